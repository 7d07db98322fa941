"""The whole graph on a small corpus, with either engine: complete, exact, and the same on every run."""

import re
import uuid

import polars as pl
import pytest

from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.operators.read_documents import read_documents
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.retriever.interface import Bm25, ShardContent
from rare_assets.settings import SAMPLE_CORPUS
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import (
    API_KEY,
    MODEL,
    Graph,
    failed_checks,
    metadata,
)
from rare_assets_tests.support.passages import passage, write_json_list, write_jsonl

TABLES = ("documents", "questions", "hard_negatives", "reasoning")
ASKED = ("questions", "reasoning")
LIST_SHARD, LINES_SHARD = "dataflow.json", "lines.jsonl"
IN_LIST, IN_LINES = range(6), range(6, 12)
SHOWN = re.compile(r'<(document-\w+) number="(\d+)">\n(.*?)\n?</\1>', re.DOTALL)


@pytest.fixture(scope="module", params=["embedded", "elasticsearch"])
def engine(request):
    """URL and index name of an Elasticsearch, or None for the embedded engine."""
    if request.param == "embedded":
        yield None
        return
    from elasticsearch import Elasticsearch

    url = request.getfixturevalue("elasticsearch_url")
    index = f"rare-test-{uuid.uuid4().hex[:12]}"
    yield url, index
    with Elasticsearch(url.split(",")) as client:
        for name in client.indices.get(index=f"{index}*", expand_wildcards="all"):
            client.indices.delete(index=name)


class Made:
    """A graph after its first runs, with what they sent and gave."""

    def __init__(self, graph, endpoint, results):
        self.graph = graph
        self.endpoint = endpoint
        self.results = results
        self.sent = list(endpoint.requests)


@pytest.fixture(scope="module")
def made(engine, only_key_set, tmp_path_factory):
    with FakeEndpoint(key=API_KEY, models=[MODEL]) as endpoint:
        graph = Graph(tmp_path_factory.mktemp("graph"), endpoint.url, engine)
        write_json_list(graph.source / LIST_SHARD, IN_LIST)
        write_jsonl(graph.source / LINES_SHARD, IN_LINES)
        yield Made(graph, endpoint, graph.make_all())


def test_every_run_succeeds_and_every_check_passes(made):
    assert all(result.success for result in made.results)
    assert failed_checks(*made.results) == []
    judged = [len(result.get_asset_check_evaluations()) for result in made.results]
    in_all_of_them = 3 + 4 + 3
    assert judged == [4, 4, 4, in_all_of_them, in_all_of_them]


def test_every_document_has_a_row_in_every_table(made):
    documents = made.graph.rows("documents")
    assert documents["text"].to_list() == [passage(number) for number in (*IN_LIST, *IN_LINES)]
    for table in TABLES[1:]:
        assert made.graph.rows(table)["doc_id"].to_list() == documents["doc_id"].to_list()
        assert made.graph.rejects(table).is_empty()
    ids = made.graph.rows("questions")["question_id"]
    assert made.graph.rows("reasoning")["question_id"].to_list() == ids.to_list()


def test_each_stage_sends_one_request_a_document(made):
    structured = ["response_format" in request.body for request in made.sent]
    assert (structured.count(True), structured.count(False)) == (12, 12)


def test_negatives_are_other_documents_of_the_whole_corpus_best_first(made):
    texts = dict(made.graph.rows("documents").select("doc_id", "text").iter_rows())
    for row in made.graph.rows("hard_negatives").iter_rows(named=True):
        ids = [negative["doc_id"] for negative in row["negatives"]]
        scores = [negative["score"] for negative in row["negatives"]]
        assert row["hard_negatives"] == [texts[doc_id] for doc_id in ids]
        assert len({*ids, row["doc_id"]}) == 4
        assert scores == sorted(scores, reverse=True)
        assert scores[0] <= 0.95 * row["gold_score"]


def test_the_teacher_saw_the_documents_in_the_stored_order(made):
    texts = dict(made.graph.rows("documents").select("doc_id", "text").iter_rows())
    shown = {
        tuple(text for _, _, text in SHOWN.findall(request.body["messages"][-1]["content"]))
        for request in made.sent
        if "response_format" not in request.body
    }
    rows = made.graph.rows("reasoning").join(
        made.graph.rows("hard_negatives").select("question_id", "negatives"), on="question_id"
    )
    positions = set()
    for row in rows.iter_rows(named=True):
        context = row["context_doc_ids"]
        negatives = [negative["doc_id"] for negative in row["negatives"]]
        assert sorted(context) == sorted([row["doc_id"], *negatives])
        assert context[row["gold_position"]] == row["doc_id"]
        assert any(
            all(texts[doc_id] in text for doc_id, text in zip(context, prompt, strict=True))
            for prompt in shown
        )
        positions.add(row["gold_position"])
    assert len(positions) > 1


def test_dataflows_columns_come_out_of_dataflows_input(made):
    path = made.graph.tables.path("reasoning", LIST_SHARD)
    columns = ["text", "question", "scenario", "hard_negatives", "reasoning"]
    frame = pl.read_parquet(str(path), columns=columns)
    assert dict(frame.schema) == {
        "text": pl.String,
        "question": pl.String,
        "scenario": pl.String,
        "hard_negatives": pl.List(pl.String),
        "reasoning": pl.String,
    }
    assert frame["text"].to_list() == [passage(number) for number in IN_LIST]
    assert frame.null_count().sum_horizontal().item() == 0


def test_metadata_says_what_was_asked_and_made(made):
    asked = metadata(made.results[-1], "questions")
    assert asked["rows"] == 6
    assert (asked["rejects"], asked["reject_rate"]) == (0, 0.0)
    assert (asked["requests"], asked["answers_reused"], asked["retries"]) == (6, 0, 0)
    # The endpoint's own count of the tokens it was sent and gave.
    rows = made.graph.tables.scan("questions", LINES_SHARD).collect()
    assert asked["prompt_tokens"] == rows["prompt_tokens"].sum() > 0
    assert asked["completion_tokens"] == rows["completion_tokens"].sum() > 0
    # A model of unknown price has no cost, not one of zero.
    assert asked["cost_usd"] is None
    index = metadata(made.results[2], "corpus_index")
    assert (index["dagster/row_count"], index["shards"], index["documents_indexed"]) == (12, 2, 12)


def test_a_rerun_asks_nothing_and_gives_the_same_tables_with_the_same_metadata_keys(made):
    before = {table: made.graph.rows(table) for table in TABLES}
    again = made.graph.make_all()
    assert all(result.success for result in again)
    assert len(made.endpoint.requests) == len(made.sent)
    for table in TABLES:
        assert made.graph.rows(table).equals(before[table])
        for shard in range(2):
            run = shard if table == "documents" else shard + 3
            first, second = (metadata(runs[run], table) for runs in (made.results, again))
            assert list(first) == list(second)
            if table in ASKED:
                # Where nothing was asked no latency was measured, which null says and zero would not.
                assert (second["latency_p50_s"], second["latency_p95_s"]) == (None, None)
    assert metadata(again[-1], "reasoning")["answers_reused"] == 6
    assert (
        metadata(again[2], "corpus_index").keys()
        == metadata(made.results[2], "corpus_index").keys()
    )


def test_both_engines_find_the_same_negatives_in_the_sample_corpus(
    only_key_set, elasticsearch_url, tmp_path
):
    storage = Storage(root=str(tmp_path / "storage"))
    tables = storage.tables()
    source = CorpusSource(str(SAMPLE_CORPUS), 10_000)
    contents = {}
    for shard in source.shards():
        stored = tables.write(
            "documents", shard.key, *read_documents(source.read(shard), file=shard.file)
        )
        contents[shard.key] = ShardContent(stored.content_hash, stored.n_rows)
    documents = pl.concat(tables.scan("documents", shard) for shard in contents).collect()
    # Every third word of a passage: the words of its question, as no teacher would order them.
    question = documents["text"].str.split(" ").list.gather_every(3).list.head(15).list.join(" ")
    questions = documents.select(
        "doc_id",
        "text_hash",
        question_id=pl.col("doc_id") + "-q0",
        question=question,
        scenario=pl.lit("A reader wonders."),
        model=pl.lit("none"),
        prompt_tokens=pl.lit(0),
        completion_tokens=pl.lit(0),
        attempts=pl.lit(1),
    )
    index = f"rare-test-{uuid.uuid4().hex[:12]}"
    found = {}
    for name, url in (("embedded", None), ("elasticsearch", elasticsearch_url)):
        retriever = Bm25Retriever(storage=storage, elasticsearch_url=url, index=index)
        with retriever.open() as engine:
            report = engine.sync(
                contents, lambda shard: tables.scan("documents", shard), Bm25(), print
            )
            assert report.state.engine == name
            found[name] = bm25_hard_neg(questions, engine).produced.rows
            if url:
                from elasticsearch import Elasticsearch

                with Elasticsearch(url.split(",")) as client:
                    for held in client.indices.get(index=f"{index}*", expand_wildcards="all"):
                        client.indices.delete(index=held)
    ranks = pl.col("negatives").list.eval(pl.element().struct.field("rank"))
    exact = ["question_id", "hard_negatives", "gold_rank"]
    embedded, cluster = (
        found[name].select(*exact, ranks=ranks) for name in ("embedded", "elasticsearch")
    )
    assert embedded.equals(cluster)
    assert embedded["hard_negatives"].list.len().to_list() == [3] * 30
    assert embedded["gold_rank"].to_list() == [1] * 30
