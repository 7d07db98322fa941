"""A damaged file costs nothing: runs refuse what is not what was written, and the next run mends it."""

import io
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from rare_assets.command.plan import Planner, Stale
from rare_assets.command.report import print_report
from rare_assets.stages.options import Options
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.gate import Gate
from rare_assets_tests.support.graph import Graph, failure_text, metadata
from rare_assets_tests.support.passages import write_jsonl

SHARD = "a.jsonl"


def flip(path: Path, share: float = 0.4) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 4
    path.write_bytes(content)


@pytest.fixture
def endpoint():
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def graph(nothing_set, tmp_path, endpoint):
    graph = Graph(tmp_path, endpoint.url)
    write_jsonl(graph.source / SHARD, range(30))
    return graph


ASK_ALL = {"questions": {"min_words": 1}}


def require_success(results):
    assert [failure_text(result) for result in results if not result.success] == []


def planner(graph):
    options = Options.from_run_config(
        {"ops": {asset: {"config": config} for asset, config in ASK_ALL.items()}}
    )
    return Planner(graph.tables, graph.retriever, graph.teacher, options)


def stale(graph):
    (shard,) = graph.register().shards
    plan = planner(graph)
    if (documents := plan.documents(shard)) is not None:
        return [documents]
    if why := plan.index(graph.shards):
        return [Stale("corpus_index", why)]
    return plan.asked(SHARD, plan.index_state())


@pytest.mark.parametrize(
    ("table", "step"),
    [
        ("documents", "questions"),
        ("questions", "hard_negatives"),
        ("hard_negatives", "reasoning"),
        ("documents", "reasoning"),
    ],
)
def test_a_damaged_table_is_refused_before_it_is_paid_for_and_made_again(
    graph, endpoint, table, step
):
    require_success(graph.make_all(**ASK_ALL))
    assert stale(graph) == []
    paid = len(endpoint.requests)
    flip(graph.tables.path(table, SHARD))
    result = graph.make("rare_job", SHARD, step, **{step: ASK_ALL.get(step, {})})
    assert not result.success
    assert f"{table}/{SHARD}.parquet is damaged" in failure_text(result)
    assert f"Materialize {table} for shard '{SHARD}' again" in failure_text(result)
    assert len(endpoint.requests) == paid

    assert stale(graph)[0] == Stale(table, "damaged")
    require_success(graph.make_all(**ASK_ALL))
    assert stale(graph) == []
    assert len(endpoint.requests) == paid


def test_a_damaged_example_at_the_end_of_a_run_is_said_and_made_again(graph, endpoint):
    require_success(graph.make_all(**ASK_ALL))
    paid = len(endpoint.requests)
    path = graph.tables.path("reasoning", SHARD)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(1000) + content[1004:])
    told = []
    for _ in range(2):
        console = Console(record=True, width=200, file=io.StringIO())
        print_report(console, graph.tables, [SHARD], {}, graph.source, graph.source, "rare-assets")
        told.append(console.export_text())
    assert f"reasoning/{SHARD}.parquet is damaged: its checksum is not" in told[0]
    assert "One example" not in told[0]
    (counted,) = [line for line in told[1].splitlines() if "│ reasoning" in line]
    assert "0 of 1" in counted

    assert stale(graph) == [Stale("reasoning", "damaged")]
    require_success(graph.make_all(**ASK_ALL))
    assert stale(graph) == []
    assert len(endpoint.requests) == paid


def test_a_sync_refuses_damaged_documents_and_leaves_the_index_as_it_is(graph):
    graph.make_all(**ASK_ALL)
    with graph.retriever.open() as engine:
        before = engine.state()
    path = graph.tables.path("documents", SHARD)
    path.write_bytes(path.read_bytes()[:-30])
    result = graph.make("corpus_index_job")
    assert "is damaged" in failure_text(result)
    with graph.retriever.open() as engine:
        assert engine.state() == before
    # Nor is it emptied where all documents are gone, as from a disk that is not mounted.
    path.unlink()
    result = graph.make("corpus_index_job")
    assert "None of the 1 registered shards has documents" in failure_text(result)
    with graph.retriever.open() as engine:
        assert engine.state() == before


def test_a_damaged_index_stops_before_anything_is_paid_and_the_next_sync_mends_it(graph, endpoint):
    graph.make_all(**ASK_ALL)
    paid = len(endpoint.requests)
    (terms,) = Path(graph.tables.root / "corpus_index").rglob("terms")
    terms.write_bytes(b"")
    result = graph.make("rare_job", SHARD, "hard_negatives", "reasoning")
    assert "terms has 0 bytes" in failure_text(result)
    assert stale(graph) == [Stale("corpus_index", "damaged")]
    assert graph.make("corpus_index_job").success
    assert stale(graph) == []
    assert len(endpoint.requests) == paid


def test_a_shard_without_negatives_stops_before_anything_is_paid(graph, endpoint):
    graph.make_all(**ASK_ALL)
    paid = len(endpoint.requests)
    impossible = {"min_score": 1e9}
    result = graph.make("rare_job", SHARD, "hard_negatives", hard_negatives=impossible)
    # Not in this run alone, where its check blocks, but in any later one.
    result = graph.make("rare_job", SHARD, "reasoning")
    assert "30 of 30 questions have no negative at all, in an index of 30" in failure_text(result)
    assert len(endpoint.requests) == paid


def test_an_object_store_that_is_away_leaves_a_live_index_as_it_is(
    nothing_set, tmp_path, monkeypatch, s3_bucket, elasticsearch_url, elasticsearch_index
):
    with Gate(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        graph = Graph(
            tmp_path,
            elasticsearch=(elasticsearch_url, elasticsearch_index),
            storage=f"{s3_bucket}/storage",
        )
        lines = [{"text": f"Cells store charge in plate {i}."} for i in range(240)]
        (graph.source / SHARD).write_text("\n".join(map(json.dumps, lines)))
        graph.register()
        assert graph.make("documents_job", SHARD).success
        result = graph.make("corpus_index_job")
        assert metadata(result, "corpus_index")["dagster/row_count"] == 240
        with gate.shut():
            result = graph.make("corpus_index_job")
        assert gate.refused
    assert not result.success
    path = f"{s3_bucket}/storage/documents/{SHARD}.parquet"
    assert f"{path} can't be read" in failure_text(result)
    with graph.retriever.open() as engine:
        assert engine.state().n_documents == 240
