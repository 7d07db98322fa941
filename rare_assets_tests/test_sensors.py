"""The sensor `new_shards`: registers, requests one run a new or changed file, and says why it does nothing."""

import shutil

import dagster as dg
import pytest

from rare_assets.sensors import new_shards
from rare_assets_tests.graph import Graph
from rare_assets_tests.passages import write_jsonl


@pytest.fixture
def graph(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    return graph


def tick(graph):
    """Evaluate the sensor, and do what the daemon does with its partition requests."""
    context = dg.build_sensor_context(instance=graph.instance, definitions=graph.defs)
    result = new_shards(context, corpus=graph.corpus, storage=graph.storage)
    if isinstance(result, dg.SensorResult):
        for request in result.dynamic_partitions_requests:
            graph.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
    return result


def requested(result):
    return [request.partition_key for request in result.run_requests]


def test_it_ships_stopped_since_it_costs_money():
    assert new_shards.default_status is dg.DefaultSensorStatus.STOPPED
    assert "Costs money" in new_shards.description


def test_new_files_are_registered_and_get_a_run_each(graph):
    assert requested(tick(graph)) == ["a.jsonl", "b.jsonl"]
    assert graph.shards == ["a.jsonl", "b.jsonl"]


def test_a_tick_without_news_skips_and_says_so(graph):
    tick(graph)
    result = tick(graph)
    assert isinstance(result, dg.SkipReason)
    assert "2 shards" in result.skip_message


def test_a_changed_file_gets_one_run_and_each_version_a_key_of_its_own(graph):
    first = {request.partition_key: request.run_key for request in tick(graph).run_requests}
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    (request,) = tick(graph).run_requests
    assert request.partition_key == "b.jsonl"
    assert request.run_key != first["b.jsonl"]
    assert isinstance(tick(graph), dg.SkipReason)


def test_a_source_that_cannot_be_read_is_a_reason_to_skip(graph):
    shutil.rmtree(graph.source)
    result = tick(graph)
    assert isinstance(result, dg.SkipReason)
    assert str(graph.source) in result.skip_message
    assert graph.shards == []
