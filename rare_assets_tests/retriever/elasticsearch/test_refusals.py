"""One document that Elasticsearch does not take is left out and told; it holds up nothing else."""

import json
import time

import pytest

from rare_assets.retriever.elasticsearch import bulk as elasticsearch_bulk
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.interface import Bm25
from rare_assets_tests.support.elasticsearch_proxy import running_proxy
from rare_assets_tests.support.retrieved_corpus import Corpus, found, queries

MEGABYTE = 1_000_000


@pytest.fixture
def open_retriever(elasticsearch_url, elasticsearch_index):
    opened = []

    def open_retriever(url=elasticsearch_url, **options):
        opened.append(
            ElasticsearchRetriever(url, elasticsearch_index, **{"wait_seconds": 8, **options})
        )
        return opened[-1]

    yield open_retriever
    for retriever in opened:
        retriever.close()


@pytest.fixture
def proxy(elasticsearch_url):
    with running_proxy(elasticsearch_url) as proxy:
        yield proxy


@pytest.fixture
def corpus(tmp_path):
    return Corpus(
        tmp_path / "documents",
        {
            "good": {f"g{i}": f"common passage {i} of many" for i in range(30)},
            "mixed": {"m0": "common passage", "huge": "common giant", "m1": "common passage two"},
        },
    )


def expect_left_out(report, corpus, retriever, *doc_ids):
    assert report.n_rejects == len(doc_ids)
    assert sorted(report.rejects["doc_id"]) == sorted(doc_ids)
    assert report.rejects["shard"].unique().to_list() == ["mixed"]
    assert dict(retriever.state().shards) == dict(report.state.shards) == corpus.hashes
    assert retriever.state().n_documents == report.state.n_documents
    (hits,) = found(retriever.search(queries("common"), depth=100)).values()
    everything = {doc_id for shard in corpus.documents.values() for doc_id in shard}
    assert set(hits) == everything - set(doc_ids)


def items_of(request):
    """The documents of a bulk request."""
    return [line for line in request.lines if "doc_id" in line] if "_bulk" in request.path else []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "document_parsing_exception"),
        (429, "circuit_breaking_exception"),
        (429, "es_rejected_execution_exception"),
        (500, "exception"),
    ],
)
def test_an_item_that_is_refused_among_others_is_left_out(
    open_retriever, corpus, proxy, status, kind
):
    def refuse_one(request, answer):
        if "_bulk" not in request.path or "items" not in answer:
            return
        for document, item in zip(items_of(request), answer["items"], strict=True):
            if document["doc_id"] == "huge" and "text" in document:
                (operation,) = item
                item[operation] = {"status": status, "error": {"type": kind, "reason": "no"}}
                answer["errors"] = True

    proxy.change = refuse_one
    retriever = open_retriever(proxy.url)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    expect_left_out(report, corpus, retriever, "huge")
    assert report.rejects["reason"].to_list() == [kind]
    # A document that is refused by itself is not waited for again and again.
    assert sum("huge" in str(items_of(request)) for request in proxy.requests) < 12
    again = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert again.indexed_shards == []
    assert again.n_rejects == 1


def test_a_request_that_is_too_large_is_sent_in_parts(open_retriever, corpus, proxy):
    """A proxy in front of the server may take less than the server itself."""

    def limit(request):
        too_large = "_bulk" in request.path and len(request.body) > 2_000
        return (
            (413, {"type": "too_large", "reason": "Request Entity Too Large"})
            if too_large
            else None
        )

    proxy.refuse = limit
    corpus.put("mixed", {**corpus.documents["mixed"], "huge": "common giant " * 400})
    retriever = open_retriever(proxy.url)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    expect_left_out(report, corpus, retriever, "huge")
    assert report.n_indexed == 32


def test_an_id_that_no_field_can_hold_is_left_out(open_retriever, corpus):
    long = "x" * 40_000
    corpus.put("mixed", {"m0": "common passage", long: "common long"})
    retriever = open_retriever()
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert report.n_rejects == 1
    assert dict(retriever.state().shards) == corpus.hashes
    assert retriever.sync(corpus.shards, corpus.read, Bm25()).indexed_shards == []


def test_a_server_that_takes_nothing_is_waited_for_and_never_leaves_out_anything(
    open_retriever, corpus, proxy, monkeypatch
):
    monkeypatch.setattr(elasticsearch_bulk, "ALONE_PAUSE_SECONDS", 0.05)
    full = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    proxy.refuse = lambda request: (429, full) if "_bulk" in request.path else None
    with pytest.raises(ElasticsearchError, match="could not write"):
        open_retriever(proxy.url, wait_seconds=2).sync(corpus.shards, corpus.read, Bm25())

    # It takes them again after a while: nothing was left out.
    began = time.monotonic()
    proxy.refuse = lambda request: (
        (429, full) if "_bulk" in request.path and time.monotonic() < began + 2 else None
    )
    report = open_retriever(proxy.url, wait_seconds=8).sync(corpus.shards, corpus.read, Bm25())
    assert report.n_rejects == 0


def test_what_most_documents_meet_is_no_fault_of_theirs(open_retriever, corpus, proxy):
    def refuse_all(request, answer):
        for item in answer.get("items", []) if "_bulk" in request.path else []:
            (operation,) = item
            item[operation] = {
                "status": 400,
                "error": {"type": "strict", "reason": "no field text"},
            }

    proxy.change = refuse_all
    with pytest.raises(ElasticsearchError, match=r"no field text; so are \d+ of 33 sent with it"):
        open_retriever(proxy.url).sync(corpus.shards, corpus.read, Bm25())
    proxy.change = lambda request, answer: None
    report = open_retriever(proxy.url).sync(corpus.shards, corpus.read, Bm25())
    assert report.n_rejects == 0
    assert json.dumps(report.rejects.to_dicts()) == "[]"
