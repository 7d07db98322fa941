"""Servers that die, hang, have no memory for a document or a node less, and what opens them: nodes of these tests alone."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import polars as pl
import pytest
from pydantic import SecretStr

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.interface import PAIRS, Bm25
from rare_assets_tests.retriever.elasticsearch.test_refusals import expect_left_out
from rare_assets_tests.support.doubles import questions
from rare_assets_tests.support.elasticsearch_node import (
    ElasticsearchCluster,
    Unavailable,
    make_certificates,
    skip_or_fail,
)
from rare_assets_tests.support.retrieved_corpus import (
    Corpus,
    found,
    passages,
    queries,
    text_hash,
)

MEGABYTE = 1_000_000
SECRET = "c2VjcmV0LWtleQ-do-not-show"  # noqa: S105


def test_a_server_that_dies_and_comes_back_loses_nothing(elasticsearch_node, tmp_path):
    node = elasticsearch_node
    retriever = ElasticsearchRetriever(
        node.url, "dies", batch_size=5, bulk_size=10, threads=2, wait_seconds=120
    )
    corpus = Corpus(tmp_path / "documents", {"a": passages("a", 200)})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    asked = queries(*corpus.documents["a"])
    expected = retriever.search(asked, depth=3)
    for shard in "bcd":
        corpus.put(shard, passages(shard, 100))
    shards_read = []

    def read(shard):
        shards_read.append(shard)
        if shards_read == [*"bcd", *"bcd"]:  # compared before, b and c are being sent
            node.kill()
            pool.submit(node.start)
        return corpus.read(shard)

    mined = []

    def mine():
        while not mined or not synced.is_set():
            mined.append(retriever.search(asked, depth=3))

    synced = Event()
    with ThreadPoolExecutor(2) as pool:
        searching = pool.submit(mine)
        try:
            report = retriever.sync(corpus.shards, read, Bm25())
        finally:
            synced.set()
        searching.result()

    assert shards_read == [*"bcd", *"bcd"]
    assert report.n_indexed == 300
    assert report.state == retriever.state()
    assert report.state.shards == corpus.hashes
    columns = ["question_id", "rank", "doc_id", "text_hash"]
    assert expected.height == 200
    assert all(hits.select(columns).equals(expected.select(columns)) for hits in mined)
    retriever.close()


def test_a_server_that_hangs_is_asked_again(elasticsearch_node, tmp_path):
    node = elasticsearch_node
    retriever = ElasticsearchRetriever(node.url, "hangs", request_timeout=1)
    shards = {shard: passages(shard, 20) for shard in "abc"}
    corpus = Corpus(tmp_path / "documents", shards)
    retriever.sync(corpus.shards, corpus.read, Bm25())
    asked = queries(*corpus.documents["a"])
    expected = retriever.search(asked, depth=3)

    with ThreadPoolExecutor(1) as pool:
        node.kill(signal.SIGSTOP)
        try:
            searching = pool.submit(retriever.search, asked, depth=3)
            time.sleep(1.5)
            assert not searching.done()
        finally:
            node.kill(signal.SIGCONT)
        assert searching.result().equals(expected)
    retriever.close()


@pytest.fixture(scope="module")
def secure_cluster(tmp_path_factory):
    """Two nodes that speak TLS and ask for a password; the first alone is master, so the second may be lost."""
    try:
        certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
        cluster = ElasticsearchCluster(2, password=SECRET, certificates=certificates)
    except Unavailable as error:
        skip_or_fail(error)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def test_only_the_right_ca_and_password_open_a_secure_server(secure_cluster):
    node = secure_cluster.nodes[0]
    login = {"username": "elastic", "password": SECRET}
    for options, message in [
        ({"ca_certs": node.ca_certs, "username": "elastic", "password": "wrong"}, "PASSWORD"),
        ({"ca_certs": node.ca_certs}, "ELASTICSEARCH_API_KEY"),
        (login, "ELASTICSEARCH_CA_CERTS"),
    ]:
        retriever = ElasticsearchRetriever(node.url, **options)
        with pytest.raises(ElasticsearchError, match=message) as caught:
            retriever.state()
        assert SECRET not in str(caught.value)
        retriever.close()


def test_a_cluster_loses_a_node_and_no_result(secure_cluster, tmp_path):
    shards = {shard: passages(shard, 30) for shard in "abc"}
    corpus = Corpus(tmp_path / "documents", shards)
    asked = questions(
        *(
            {
                "question_id": f"q {doc_id}",
                "doc_id": doc_id,
                "text_hash": text_hash(text),
                "question": text,
            }
            for documents in shards.values()
            for doc_id, text in documents.items()
        )
    )
    retriever = ElasticsearchRetriever(
        secure_cluster.url,
        username="elastic",
        password=SecretStr(SECRET),
        ca_certs=secure_cluster.nodes[0].ca_certs,
        number_of_shards=3,
        batch_size=20,
    )
    retriever.sync(corpus.shards, corpus.read, Bm25())

    def mine():
        return bm25_hard_neg(asked, retriever, near_duplicate_threshold=0).produced.rows

    expected = mine()
    assert expected["gold_rank"].to_list() == [1] * 90
    assert expected["hard_negatives"].list.len().to_list() == [3] * 90
    secure_cluster.nodes[0].request("GET", "/_cluster/health?wait_for_status=green&timeout=60s")

    with ThreadPoolExecutor(1) as pool:
        mined = []
        mining = pool.submit(lambda: [mined.append(mine()) for _ in range(3)])
        while not mined:
            time.sleep(0.01)
        secure_cluster.nodes[1].kill()
        assert not mining.done()
        mining.result()
    assert all(rows.equals(expected) for rows in mined)

    # With a node down, syncs go on.
    corpus.put("b", passages("b", 40))
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (report.n_indexed, report.n_removed) == (40, 30)
    assert retriever.state() == report.state
    retriever.close()


def test_a_document_too_large_for_the_server_is_left_out(elasticsearch_node, tmp_path):
    """This one is above what the server has memory for, a tenth of it by default."""
    (node,) = elasticsearch_node.request("GET", "/_nodes/jvm")["nodes"].values()
    heap = node["jvm"]["mem"]["heap_max_in_bytes"]
    mixed = {
        "m0": "common passage",
        "huge": "common " + "giant " * (heap // 10 // 6 + MEGABYTE),
        "m1": "common passage two",
    }
    good = {f"g{i}": f"common passage {i} of many" for i in range(30)}
    corpus = Corpus(tmp_path / "documents", {"good": good, "mixed": mixed})
    retriever = ElasticsearchRetriever(elasticsearch_node.url, "large", wait_seconds=8)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    expect_left_out(report, corpus, retriever, "huge")
    assert report.n_indexed == 32
    assert "1 documents are left out" in report.warnings[0]
    assert all(report.rejects["detail"].str.len_chars() < 1_000)

    # The next sync has nothing to do, and tells it all the same.
    again = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert again.indexed_shards == []
    expect_left_out(again, corpus, retriever, "huge")
    # To the miner it is a document that shares no word with any question.
    pairs = pl.DataFrame([("q", "giant", "huge"), ("q", "common", "m0")], PAIRS, orient="row")
    assert retriever.score(pairs)["score"].to_list() == [0.0, pytest.approx(0.03, abs=0.03)]
    assert retriever.texts(["huge", "m0"]).sort("doc_id")["text"].to_list() == [
        "",
        "common passage",
    ]
    # Once its text can be taken, it is there.
    corpus.put("mixed", {"m0": "common passage", "huge": "common giant, cut"})
    mended = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (mended.n_rejects, mended.rejects.height, mended.warnings) == (0, 0, ())
    assert found(retriever.search(queries("giant"), depth=5)) == {"q1": ["huge"]}
    retriever.close()
