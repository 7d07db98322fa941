"""The pilot in the UI: an asset of a group of its own, which no job makes."""

import dagster as dg
import pytest

from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.pilot import write_corpus


@pytest.fixture
def endpoint():
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def graph(only_key_set, tmp_path, endpoint):
    graph = Graph(tmp_path, endpoint.url, model="gpt-4o-mini")
    write_corpus(graph.source)
    return graph


def materialize(graph, **config):
    return dg.materialize(
        [graph.defs.get_assets_def("pilot")],
        instance=graph.instance,
        resources=graph.defs.resources,
        run_config={"ops": {"pilot": {"config": config}}},
        raise_on_error=False,
    )


def test_it_tries_configurations_of_the_launchpad(graph, endpoint, tmp_path):
    dear = {"resources": {"teacher": {"config": {"model": "gpt-4o"}}}}
    result = materialize(graph, documents=2, configurations={"cheap": {}, "dear": dear})
    assert result.success
    (event,) = result.asset_materializations_for_node("pilot")
    found = {name: value.value for name, value in event.metadata.items()}
    assert (found["documents"], found["corpus_documents"], found["requests"]) == (2, 6, 8)
    assert found["cost_usd"] > 0
    records = [record.data for record in event.metadata["configurations"].records]
    assert [(r["configuration"], r["model"], r["reasoning"]) for r in records] == [
        ("cheap", "gpt-4o-mini", 2),
        ("dear", "gpt-4o", 2),
    ]
    assert (tmp_path / "storage/pilot/pilot.html").exists()
    assert not (tmp_path / "storage/documents").exists()
    assert len(endpoint.requests) == 8


def test_it_fails_where_no_configuration_came_to_its_end(graph, endpoint):
    result = materialize(graph, configurations={"a": {"ops": {"questions": {"config": {"n": 1}}}}})
    assert not result.success
    assert "ops.questions.config: no option n" in failure_text(result)
    assert endpoint.requests == []


def test_no_job_makes_it(graph):
    assert graph.defs.get_assets_def("pilot").group_names_by_key == {dg.AssetKey("pilot"): "pilot"}
    for job in graph.defs.jobs:
        assert "pilot" not in str(job.selection)
