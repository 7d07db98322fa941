"""Checks of the index, as Dagster runs them: after a sync, and by themselves."""

import json

import dagster as dg

from rare_assets.checks.index import Lag, index_lag
from rare_assets.retriever.interface import ShardContent
from rare_assets_tests.support.graph import Graph


def test_the_lag_names_shards_that_are_missing_changed_and_surplus():
    wanted = {"a": ShardContent("1", 1), "b": ShardContent("2", 1), "c": ShardContent("3", 1)}
    assert index_lag(wanted, {"a": "1", "b": "old", "gone": "9"}) == Lag(["c"], ["b"], ["gone"])
    assert not any(index_lag(wanted, {"a": "1", "b": "2", "c": "3"}))


def judge_alone(graph):
    """Runs the check by itself, as its button in the UI does."""
    job = dg.define_asset_job(
        "check_alone",
        dg.AssetSelection.checks(
            dg.AssetCheckKey(dg.AssetKey("corpus_index"), "index_holds_every_shard")
        ),
    )
    defs = dg.Definitions.merge(graph.defs, dg.Definitions(jobs=[job]))
    result = defs.resolve_job_def("check_alone").execute_in_process(instance=graph.instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def write_source(graph, **texts):
    for name, text in texts.items():
        (graph.source / f"{name}.jsonl").write_text(json.dumps({"id": name, "text": text}) + "\n")


def test_documents_made_after_the_sync_are_told_by_the_check_alone(tmp_path):
    graph = Graph(tmp_path)
    write_source(graph, a="Cells store charge.", b="Cells divide.")
    graph.register()
    graph.make("documents_job", "a.jsonl")
    graph.make("documents_job", "b.jsonl")
    graph.make("corpus_index_job")
    fresh = judge_alone(graph)
    assert fresh.passed
    assert {name: fresh.metadata[name].value for name in ("shards", "missing", "threshold")} == {
        "shards": 2,
        "missing": 0,
        "threshold": 0,
    }

    write_source(graph, b="Cells divide in two.", c="Charge is conserved.")
    graph.register()
    graph.make("documents_job", "b.jsonl")
    graph.make("documents_job", "c.jsonl")
    behind = judge_alone(graph)
    assert not behind.passed
    assert behind.severity is dg.AssetCheckSeverity.ERROR
    assert not behind.blocking
    assert behind.metadata["examples"].value == {
        "missing": ["c.jsonl"],
        "changed": ["b.jsonl"],
        "surplus": [],
    }
    synced = graph.instance.get_latest_materialization_event(dg.AssetKey("corpus_index"))
    assert behind.metadata["synced"].value == synced.timestamp

    graph.make("corpus_index_job")
    assert judge_alone(graph).passed


def test_an_index_that_was_never_made_lacks_every_shard(tmp_path):
    graph = Graph(tmp_path)
    write_source(graph, a="Cells store charge.")
    graph.register()
    graph.make("documents_job", "a.jsonl")
    judged = judge_alone(graph)
    assert not judged.passed
    assert judged.metadata["missing"].value == 1
    assert "synced" not in judged.metadata
