"""After a sync, a shard's negatives are unsynced where it has outdated them: in the UI as in planning."""

import json
import shutil
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from rare_assets.assets import corpus_index as index_asset
from rare_assets.command.plan import Options, Planner
from rare_assets.command.status import shard_states
from rare_assets.resources.dataset import UNNAMED
from rare_assets.stages.standing import find_standing
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import passage, row, write_jsonl

A, B, OTHER, MORE = "a.jsonl", "b.jsonl", "other.jsonl", "more.jsonl"
OTHERS = range(12, 16)


@pytest.fixture
def endpoint(only_key_set):
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def graph(endpoint, tmp_path):
    """Hard negatives of two shards, and documents that nothing was asked about."""
    graph = Graph(tmp_path, endpoint.url)
    write_jsonl(graph.source / A, range(6))
    write_jsonl(graph.source / B, range(6, 12))
    write_jsonl(graph.source / OTHER, OTHERS)
    write_jsonl(graph.source / MORE, range(16, 20))
    graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert graph.make("corpus_index_job").success
    for shard in (A, B):
        assert graph.make("rare_job", shard, "questions", "hard_negatives").success
    assert unsynced(graph) == planned(graph) == set()
    return graph


def unsynced(graph):
    """Shards whose hard negatives, or what follows them, Dagster takes for unsynced."""
    resolver = CachingStaleStatusResolver(
        graph.instance, graph.defs.resolve_asset_graph(), LoadingContextForTest(graph.instance)
    )
    return {
        shard
        for shard in (A, B)
        for asset in ("hard_negatives", "reasoning")
        if resolver.get_status(dg.AssetKey(asset), shard) is StaleStatus.STALE
    }


def planned(graph, **options):
    """Shards whose hard negatives `rare-assets run` would make; its status says the same."""
    run_config = {"ops": {asset: {"config": config} for asset, config in options.items()}}
    planner = Planner(
        graph.tables, graph.retriever, graph.teacher, Options.from_run_config(run_config)
    )
    index = planner.index_state()
    stale = {
        shard
        for shard in (A, B)
        if "hard_negatives" in [found.stage for found in planner.after_questions(shard, index)]
    }
    shards = [shard for shard in graph.register().shards if shard.key in (A, B)]
    states = shard_states(planner, shards, index)
    told = {key for key in states if states[key]["hard_negatives"].state != "current"}
    assert told == stale
    return stale


def sync(graph, name=None, **options):
    """Sync the index, after reading one file anew."""
    if name is not None:
        graph.register()
        assert graph.make("documents_job", name).success
    result = graph.make("corpus_index_job", **options)
    assert result.success
    return result


def events(graph, shard):
    """How often hard negatives of a shard were materialized, and the last of those events."""
    of_shard = dg.AssetRecordsFilter(UNNAMED.key("hard_negatives"), asset_partitions=[shard])
    records = graph.instance.fetch_materializations(of_shard, limit=100).records
    return len(records), records[0].asset_materialization


def put_other(graph, changed=()):
    """Write the file that nothing was asked about, some of its documents with other texts."""
    rows = [row(number) for number in OTHERS]
    for each in rows:
        if each["id"] in changed:
            each["text"] = passage(99)
    (graph.source / OTHER).write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def negatives(graph, shard):
    """Ids of a shard's negatives."""
    rows = graph.tables.scan("hard_negatives", shard).collect()
    return {each["doc_id"] for found in rows["negatives"] for each in found}


def of_one_alone(graph):
    """A document of the others that is a negative in one shard, that shard, and the one without."""
    others = {row(number)["id"] for number in OTHERS}
    for shard, without in ((A, B), (B, A)):
        if found := sorted(others & (negatives(graph, shard) - negatives(graph, without))):
            return found[0], shard, without
    raise AssertionError("no such document")


def state(graph):
    with graph.retriever.open() as engine:
        return engine.state()


def test_added_documents_and_changed_ones_that_are_no_negatives_leave_every_shard_in_sync(
    graph, endpoint
):
    sent = len(endpoint.requests)
    (graph.source / "new.jsonl").write_text(json.dumps(row(20)))
    sync(graph, "new.jsonl")
    assert unsynced(graph) == planned(graph) == set()
    (graph.source / "new.jsonl").write_text(json.dumps({**row(20), "text": passage(98)}))
    sync(graph, "new.jsonl")
    assert unsynced(graph) == planned(graph) == set()
    # They keep their events, so their pages and the results of their checks.
    assert [events(graph, shard)[0] for shard in (A, B)] == [1, 1]

    # From 20 documents to 24, a fifth more, and to 25.
    write_jsonl(graph.source / "newer.jsonl", range(21, 24))
    sync(graph, "newer.jsonl")
    assert unsynced(graph) == planned(graph) == set()
    write_jsonl(graph.source / "newest.jsonl", range(24, 25))
    sync(graph, "newest.jsonl")
    assert unsynced(graph) == planned(graph) == {A, B}
    assert len(endpoint.requests) == sent


def test_only_the_shard_whose_negative_has_another_text_is_unsynced_until_it_is_made(
    graph, endpoint
):
    for shard in (A, B):
        assert graph.make("rare_job", shard, "reasoning").success
    doc_id, shard, without = of_one_alone(graph)
    before, sent = events(graph, shard)[1], len(endpoint.requests)
    put_other(graph, changed=[doc_id])
    result = sync(graph, OTHER)
    assert unsynced(graph) == planned(graph) == {shard}
    assert len(endpoint.requests) == sent
    count, reported = events(graph, shard)
    assert (count, events(graph, without)[0]) == (2, 1)
    assert reported.metadata == before.metadata
    (made,) = result.asset_materializations_for_node("corpus_index")
    details = {each.data["figure"]: each.data["value"] for each in made.metadata["details"].records}
    assert details["shards_to_mine_again"] == 1

    # A second sync has nothing to add.
    sync(graph)
    assert unsynced(graph) == planned(graph) == {shard}
    assert events(graph, shard)[0] == 2

    # A text that comes back brings the shard back.
    put_other(graph)
    sync(graph, OTHER)
    assert unsynced(graph) == planned(graph) == set()

    put_other(graph, changed=[doc_id])
    sync(graph, OTHER)
    assert unsynced(graph) == planned(graph) == {shard}
    assert graph.make("rare_job", shard).success
    assert unsynced(graph) == planned(graph) == set()


def test_documents_that_leave_the_index_make_the_shards_unsynced_that_have_them(graph):
    gone = {row(number)["id"] for number in range(16, 20)}
    mined = {shard: negatives(graph, shard) & gone for shard in (A, B)}
    having = {shard for shard, ids in mined.items() if ids}
    assert having
    before = state(graph)
    graph.instance.delete_dynamic_partition(UNNAMED.partitions_name, MORE)
    (graph.source / MORE).unlink()
    sync(graph)
    assert unsynced(graph) == planned(graph) == having

    # The index is asked for texts of negatives alone that may have changed.
    asked = []
    with graph.retriever.open() as engine:

        def texts(doc_ids):
            asked.append(set(doc_ids))
            return engine.texts(doc_ids)

        spied = SimpleNamespace(texts=texts)
        found = find_standing(graph.tables, graph.shards, spied, before, engine.state())
    assert {key for key, each in found.items() if not each.stand} == having
    assert asked == [mined[shard] for shard in sorted(having)]


def test_shards_that_are_to_be_mined_anew_or_lack_negatives_are_unsynced_by_any_growth(graph):
    anew, more = {"remine_after_growth": 0.0}, {"num_neg": 30}
    assert graph.make("rare_job", A, "hard_negatives", hard_negatives=anew).success
    assert graph.make("rare_job", B, "hard_negatives", hard_negatives=more).success
    write_jsonl(graph.source / "new.jsonl", range(20, 21))
    sync(graph, "new.jsonl")
    assert unsynced(graph) == {A, B}
    assert A in planned(graph, hard_negatives=anew)
    assert B in planned(graph, hard_negatives=more)


def test_another_ranking_makes_every_shard_unsynced(graph):
    sync(graph, corpus_index={"b": 0.75})
    assert unsynced(graph) == planned(graph, corpus_index={"b": 0.75}) == {A, B}
    assert [events(graph, shard)[0] for shard in (A, B)] == [1, 1]


def test_what_a_sync_did_not_come_to_note_and_a_lost_index_are_made_up_for(graph, monkeypatch):
    def die(*_):
        raise RuntimeError("killed")

    doc_id, shard, _ = of_one_alone(graph)
    put_other(graph, changed=[doc_id])
    graph.register()
    assert graph.make("documents_job", OTHER).success
    with monkeypatch.context() as patched:
        patched.setattr(index_asset, "find_standing", die)
        assert not graph.make("corpus_index_job").success
    assert planned(graph) == {A, B}
    sync(graph)
    assert unsynced(graph) == planned(graph) == {shard}

    shutil.rmtree(graph.tables.root / "corpus_index")
    sync(graph)
    assert unsynced(graph) == planned(graph) == {shard}


def test_a_shard_whose_last_run_failed_goes_on_to_show_that(graph):
    doc_id, shard, _ = of_one_alone(graph)
    documents = graph.tables.path("documents", shard)
    content = documents.read_bytes()
    documents.unlink()
    assert not graph.make("rare_job", shard, "hard_negatives").success
    documents.write_bytes(content)
    put_other(graph, changed=[doc_id])
    sync(graph, OTHER)
    assert events(graph, shard)[0] == 1
    statuses = graph.instance.get_status_by_partition(
        UNNAMED.key("hard_negatives"), [shard], UNNAMED.partitions
    )
    assert statuses[shard].value == "FAILED"
    assert planned(graph) == {shard}
