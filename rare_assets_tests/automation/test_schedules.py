"""The nightly schedule: runs for new and changed files alone, and none for what is read."""

import contextvars

import dagster as dg
import pytest

from rare_assets.definitions import defs
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import write_jsonl

(nightly,) = defs.schedules


@pytest.fixture
def graph(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    # A schedule opens its instance anew, which an ephemeral one does not allow.
    graph.instance = dg.DagsterInstance.local_temp(str(tmp_path))
    return graph


def requested(graph):
    def evaluate():
        with dg.build_schedule_context(instance=graph.instance) as context:
            return nightly(context, corpus=graph.corpus, storage=graph.storage)

    # What Dagster sets for the instance that was opened must not outlive it.
    asked = contextvars.copy_context().run(evaluate)
    return asked.skip_message if isinstance(asked, dg.SkipReason) else asked


def test_new_files_are_registered_and_requested_and_changed_ones_again(graph):
    first = requested(graph)
    assert [request.partition_key for request in first] == ["a.jsonl", "b.jsonl"]
    assert graph.shards == ["a.jsonl", "b.jsonl"]
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert "No new or changed files; 2 shards" in requested(graph)
    write_jsonl(graph.source / "b.jsonl", range(3, 8))
    (again,) = requested(graph)
    assert again.partition_key == "b.jsonl"
    assert again.run_key not in {request.run_key for request in first}


def test_a_source_that_cannot_be_read_requests_nothing(graph):
    for path in graph.source.iterdir():
        path.unlink()
    graph.source.rmdir()
    assert "The source can't be read" in requested(graph)


def test_it_is_stopped_until_somebody_switches_it_on(graph):
    (schedule,) = graph.defs.schedules
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
