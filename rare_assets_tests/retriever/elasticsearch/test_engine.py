"""What Elasticsearch's engine does beyond the interface: production's faults, all of them real."""

import contextlib
import itertools
import json
import logging
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event

import polars as pl
import pytest
from elasticsearch import Elasticsearch
from pydantic import SecretStr

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.retriever.elasticsearch import comparison
from rare_assets.retriever.elasticsearch.connection import Connection
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.interface import (
    Bm25,
    IndexConflict,
    IndexMissing,
    ShardContent,
)
from rare_assets_tests.support.doubles import questions
from rare_assets_tests.support.elasticsearch_proxy import running_proxy
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.ports import free_port
from rare_assets_tests.support.retrieved_corpus import Corpus, found, passages, queries, text_hash

SECRET = "c2VjcmV0LWtleQ-do-not-show"  # noqa: S105


class SettledRetriever(ElasticsearchRetriever):
    """Syncs to the very end, for tests of what a sync leaves behind and of its every request."""

    def sync(self, *given):
        report = super().sync(*given)
        self.settle()
        return report


@pytest.fixture
def open_retriever(elasticsearch_url, elasticsearch_index):
    opened = []

    def open_retriever(
        url=elasticsearch_url, index=elasticsearch_index, kind=SettledRetriever, **options
    ):
        opened.append(kind(url, index, **{"wait_seconds": 10, **options}))
        return opened[-1]

    yield open_retriever
    for retriever in opened:
        retriever.close()


@pytest.fixture
def retriever(open_retriever):
    return open_retriever()


@pytest.fixture
def client(elasticsearch_url):
    with Elasticsearch(elasticsearch_url.split(",")) as client:
        yield client


@pytest.fixture
def proxy(elasticsearch_url):
    with running_proxy(elasticsearch_url) as proxy:
        yield proxy


@pytest.fixture
def corpus(tmp_path):
    shards = {"a": passages("a", 20), "b": passages("b", 20), "c": passages("c", 20)}
    return Corpus(tmp_path / "documents", shards)


def concrete(client, index):
    """Name of the one index behind the alias."""
    (name,) = client.indices.get_alias(name=index).body
    return name


def operations(client, index):
    """Documents ever written to or removed from the index behind the alias."""
    shards = client.indices.stats(index=index, level="shards").body["indices"].values()
    return sum(
        copies[0]["seq_no"]["max_seq_no"] + 1
        for index in shards
        for copies in index["shards"].values()
    )


# Sync


def test_documents_of_unchanged_shards_are_not_written_again(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert operations(client, retriever.index) == 60

    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert operations(client, retriever.index) == 60

    corpus.put("b", passages("b", 7))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert operations(client, retriever.index) == 60 + 7 + 20


def test_small_shards_share_requests(proxy, open_retriever, client, tmp_path):
    shards = {f"s{n:02}": passages(f"s{n:02}-", 1 + n % 3) for n in range(30)}
    corpus = Corpus(tmp_path / "documents", shards)
    retriever = open_retriever(proxy.url, bulk_size=25, threads=1)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    sent = [[line["doc_id"] for line in r.lines if "doc_id" in line] for r in proxy.sent("_bulk")]
    assert [len(batch) for batch in sent] == [25, 25, 10]
    assert sorted(doc_id for batch in sent for doc_id in batch) == sorted(
        doc_id for of_shard in shards.values() for doc_id in of_shard
    )
    assert (report.n_indexed, retriever.state().n_documents) == (60, 60)
    assert retriever.state().shards.keys() == shards.keys()


def test_settings_for_the_load_are_undone(retriever, client, corpus):
    name = f"{retriever.index}-unmarked"
    client.indices.create(index=name)
    default = client.indices.get_settings(index=name)[name]["settings"]["index"]

    retriever.sync(corpus.shards, corpus.read, Bm25())

    made = concrete(client, retriever.index)
    settings = client.indices.get_settings(index=made)[made]["settings"]["index"]
    assert settings["number_of_replicas"] == default["number_of_replicas"] == "1"
    assert "refresh_interval" not in settings


def test_a_half_indexed_shard_is_indexed_again(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    some = client.search(index=retriever.index, query={"term": {"shard": "b"}}, size=3)
    for hit in some["hits"]["hits"]:
        client.delete(index=hit["_index"], id=hit["_id"])

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert (report.indexed_shards, report.n_indexed) == (["b"], 20)
    assert retriever.texts(corpus.documents["b"]).height == 20


def test_documents_that_do_not_belong_to_a_shard_leave_it(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    (hit,) = client.search(index=retriever.index, query={"term": {"doc_id": "b003"}})["hits"][
        "hits"
    ]
    client.index(index=hit["_index"], document={**hit["_source"], "doc_id": "intruder"})

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert (report.indexed_shards, report.n_indexed) == (["b"], 20)
    assert retriever.texts(["intruder", "b003"])["doc_id"].to_list() == ["b003"]


KILLED = """
import sys, time
from pathlib import Path
import polars as pl
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.interface import Bm25, ShardContent

url, index, folder, shards = sys.argv[1:]

def read(shard):
    return pl.scan_parquet(f"{folder}/{shard}.parquet").map_batches(slowly)

def slowly(frame):
    time.sleep(0.3)
    print("reading", flush=True)
    return frame

retriever = ElasticsearchRetriever(url, index, bulk_size=2, threads=1)
shards = {shard: ShardContent(*content) for shard, content in eval(shards).items()}
retriever.sync(shards, read, Bm25())
"""


@pytest.mark.parametrize("fresh", [True, False], ids=["first sync", "later sync"])
def test_a_killed_sync_is_repaired_by_the_next(
    open_retriever, elasticsearch_url, client, corpus, fresh
):
    retriever = open_retriever()
    if not fresh:
        old = Corpus(corpus.folder.parent / "old", {"a": {"old": "common"}, "z": {"z": "common"}})
        retriever.sync(old.shards, old.read, Bm25())
    contents = {shard: tuple(content) for shard, content in corpus.shards.items()}
    arguments = [elasticsearch_url, retriever.index, str(corpus.folder), repr(contents)]
    process = Forked(
        [sys.executable, "-c", KILLED, *arguments],
        stdout=subprocess.PIPE,
    )
    try:
        held = 0
        while not 0 < held < 60:  # in the middle of the load
            assert process.poll() is None, "the sync ended before it could be killed"
            indices = list(client.indices.get(index=f"{retriever.index}-*"))
            if indices:
                client.indices.refresh(index=indices)
                mine = {"prefix": {"doc_id": "a0"}}
                held = client.count(index=indices, query=mine)["count"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if not fresh:  # readers see what there was
        assert retriever.state().shards == old.hashes
        assert found(retriever.search(queries("common"), depth=9)) == {"q1": ["old", "z"]}

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert retriever.state() == report.state
    assert report.state.shards == corpus.hashes
    assert client.count(index=retriever.index)["count"] == 60
    assert retriever.search(queries("common"), depth=100).height == 60
    assert len(client.indices.get(index=f"{retriever.index}-*")) == 1


def test_readers_see_the_old_documents_until_all_new_ones_are_there(open_retriever, client, corpus):
    writer, reader = open_retriever(bulk_size=1, threads=1), open_retriever()
    writer.sync(corpus.shards, corpus.read, Bm25())
    before = reader.state()
    for shard in "abc":
        corpus.put(shard, {f"{shard}-new{i}": "common news" for i in range(5)})
    seen = []

    def read(shard):
        name = concrete(client, writer.index)
        client.indices.refresh(index=name)
        loaded = client.count(index=name)["count"]
        ids = reader.search(queries("common"), depth=100)["doc_id"].to_list()
        seen.append((loaded, reader.state() == before, len(ids), any("new" in d for d in ids)))
        return corpus.read(shard)

    writer.sync(corpus.shards, read, Bm25())

    assert max(loaded for loaded, *_ in seen) > 60  # some news were there
    assert {tuple(rest) for _, *rest in seen} == {(True, 60, False)}
    assert reader.search(queries("common"), depth=100).height == 15


@pytest.fixture
def changed(corpus, open_retriever):
    """A corpus of which a shard was changed, and another removed, since it was indexed."""
    open_retriever().sync(corpus.shards, corpus.read, Bm25())
    corpus.put("b", {f"b-new{i}": "common news" for i in range(5)})
    corpus.drop("c")
    return corpus


def removes(request):
    return "_bulk" in request.path and b'"delete"' in request.body


def test_readers_have_a_change_before_what_it_removed_is_gone(
    proxy, open_retriever, client, changed
):
    may_remove = Event()
    proxy.refuse = lambda request: may_remove.wait(60) and None if removes(request) else None
    retriever = open_retriever(proxy.url, kind=ElasticsearchRetriever)
    report = retriever.sync(changed.shards, changed.read, Bm25())
    name = concrete(client, retriever.index)
    try:
        assert (report.n_indexed, report.n_removed) == (5, 40)
        assert report.state == retriever.state() == open_retriever().state()
        assert retriever.search(queries("common"), depth=100).height == 25
        assert client.count(index=name)["count"] == 65
    finally:
        may_remove.set()
    retriever.close()
    assert client.count(index=name)["count"] == 25
    (alias,) = client.indices.get_alias(name=retriever.index).values()
    assert alias["aliases"][retriever.index] == {}


def test_what_can_not_be_removed_stays_hidden_until_the_next_sync(
    proxy, open_retriever, client, changed, caplog
):
    no = {"type": "no", "reason": "not now"}
    proxy.refuse = lambda request: (400, no) if removes(request) else None
    retriever = open_retriever(proxy.url, kind=ElasticsearchRetriever)
    state = retriever.sync(changed.shards, changed.read, Bm25()).state
    retriever.close()
    (warning,) = caplog.messages
    assert "Removed documents stay hidden in the index until the next sync" in warning
    assert "400 no: not now" in warning
    reader = open_retriever()
    assert reader.state() == state
    assert reader.search(queries("common"), depth=100).height == 25
    assert client.count(index=concrete(client, reader.index))["count"] == 65

    report = reader.sync(changed.shards, changed.read, Bm25())
    assert (report.state, report.n_indexed, report.n_removed) == (state, 0, 40)
    assert client.count(index=concrete(client, reader.index))["count"] == 25


def test_two_syncs_at_once_leave_one_whole_index(open_retriever, client, corpus):
    with ThreadPoolExecutor(3) as pool:
        for shards in ("abc", "xyz"):
            for shard in shards:
                corpus.put(shard, passages(shard, 150))
            syncs = [
                pool.submit(open_retriever().sync, dict(corpus.shards), corpus.read, Bm25())
                for _ in range(3)
            ]
            states = [sync.result().state for sync in syncs]
            assert states == [open_retriever().state()] * 3
            assert states[0].shards == corpus.hashes
            total = sum(n for _, n in corpus.shards.values())
            assert client.count(index=concrete(client, open_retriever().index))["count"] == total


def whole(corpus, bm25):
    """What a reader sees of an index that holds this."""
    ids = [doc_id for documents in corpus.documents.values() for doc_id in documents]
    return corpus.hashes, bm25, sorted(ids)


def seen(reader):
    """What a reader sees: what an index holds, how it ranks and what it finds; or why nothing."""
    try:
        state = reader.state()
        hits = reader.search(queries("common"), depth=100)["doc_id"].to_list()
    except IndexMissing:
        return "nothing yet"
    except ElasticsearchError as error:
        return str(error)
    return dict(state.shards), state.bm25, sorted(hits)


@pytest.fixture
def one_after_the_other(monkeypatch):
    """What a sync does beside its writes is done between them: its requests have one order."""

    @contextlib.contextmanager
    def background_worker(self):
        def submit(work):
            done = Future()
            done.set_result(work(Event()))
            return done

        yield submit

    monkeypatch.setattr(Connection, "background_worker", background_worker)


def test_of_two_syncs_that_want_different_shards_the_later_takes_over_at_any_moment(
    proxy, open_retriever, tmp_path, one_after_the_other
):
    old, ours, theirs = (
        Corpus(tmp_path / name, {"a": passages("a", 4), **more})
        for name, more in {
            "old": {"b": passages("b", 3)},
            "ours": {"b": passages("b-new", 4), "c": passages("c", 3)},
            "theirs": {"b": passages("b-other", 2), "x": passages("x", 2)},
        }.items()
    )
    reader, other = open_retriever(), open_retriever()
    moment, left, states = 0, [], []

    def meanwhile(request):
        if len(proxy.requests) == moment:
            other.sync(theirs.shards, theirs.read, Bm25())

    proxy.refuse = meanwhile
    while moment <= len(proxy.requests):
        moment += 1
        reader.sync(old.shards, old.read, Bm25())
        proxy.requests.clear()
        try:
            open_retriever(proxy.url, bulk_size=3).sync(ours.shards, ours.read, Bm25())
            left.append("ours")
        except ElasticsearchError as error:
            assert "another sync, or somebody, changed it meanwhile" in str(error)  # noqa: PT017
            left.append("theirs")
        states.append(seen(reader))

    # Ours overrules what theirs did before it claims the index, fails where theirs takes it over,
    # and is done where theirs comes after its last change.
    wins = [(name, len(list(group))) for name, group in itertools.groupby(left)]
    assert [name for name, _ in wins] == ["ours", "theirs", "ours"]
    overruled, taken_over = wins[0][1], wins[1][1]
    assert states[:overruled] == [whole(ours, Bm25())] * overruled
    assert states[overruled:-1] == [whole(theirs, Bm25())] * (len(states) - overruled - 1)
    assert taken_over > 5
    assert states[-1] == whole(ours, Bm25())  # which had the index for itself


@pytest.mark.parametrize(
    ("before", "bm25"),
    [(False, Bm25()), (True, Bm25()), (True, Bm25(k1=2.0)), (True, Bm25(analyzer="standard"))],
    ids=["first sync", "other shards", "other k1", "other analyzer"],
)
def test_a_sync_that_ends_at_any_request_leaves_readers_the_old_or_the_new(
    proxy, open_retriever, tmp_path, client, before, bm25
):
    old = {"a": passages("a", 4), "b": passages("b", 3), "c": passages("c", 2)}
    new = {"a": passages("a", 4), "b": passages("b-new", 3), "d": passages("d", 2)}
    if bm25.k1 != Bm25().k1:  # which changes at once, whatever the documents do
        new = old
    old, new = Corpus(tmp_path / "old", old), Corpus(tmp_path / "new", new)
    reader = open_retriever(wait_seconds=0.1)

    synced = whole(new, bm25)
    allowed, left, ends = 0, [], []
    end = {"type": "the_end", "reason": "no more requests"}
    proxy.refuse = lambda request: (400, end) if len(proxy.requests) > allowed else None
    while not ends or ends[-1] is not None:
        if before:
            reader.sync(old.shards, old.read, Bm25())
        proxy.requests.clear()
        try:
            open_retriever(proxy.url, bulk_size=3, threads=1).sync(new.shards, new.read, bm25)
            ends.append(None)
        except ElasticsearchError as error:
            ends.append(error.kind)
        left.append(seen(reader))
        # Every other time it is the next one's turn to sync the old again, or to begin with nothing.
        if allowed % 2:
            assert reader.sync(new.shards, new.read, bm25).state == reader.state()
            assert seen(reader) == synced
            assert len(client.indices.get(index=f"{reader.index}-*")) == 1
        if not before and (made := list(client.indices.get(index=f"{reader.index}-*"))):
            client.indices.delete(index=made)
        allowed += 1

    assert set(ends[:-1]) == {"the_end"}
    assert len(ends) > 4
    changed = left.index(synced)
    was = whole(old, Bm25()) if before else "nothing yet"
    closed = [one for one in left[:changed] if "index_closed_exception" in one]
    assert len(closed) == (2 if bm25.k1 != Bm25().k1 else 0)  # before it is set, and after
    assert left == [was] * (changed - len(closed)) + closed + [synced] * (len(left) - changed)


def test_k1_and_b_change_without_writing_documents(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    name = concrete(client, retriever.index)

    report = retriever.sync(corpus.shards, corpus.read, Bm25(k1=1.5, b=0.1))

    assert (report.indexed_shards, retriever.state().bm25) == ([], Bm25(k1=1.5, b=0.1))
    assert concrete(client, retriever.index) == name
    assert operations(client, retriever.index) == 60


def test_an_index_left_closed_is_opened(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    client.indices.close(index=concrete(client, retriever.index))

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert report.indexed_shards == []
    assert retriever.search(queries("a003"), depth=1).height == 1


def test_another_analyzer_gets_another_index_behind_the_alias(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    old = concrete(client, retriever.index)
    assert retriever.search(queries("of"), depth=100).height == 0

    report = retriever.sync(corpus.shards, corpus.read, Bm25(analyzer="standard"))

    assert report.indexed_shards == ["a", "b", "c"]
    assert retriever.state().bm25.analyzer == "standard"
    assert retriever.search(queries("of"), depth=100).height == 60
    assert concrete(client, retriever.index) != old
    assert not client.indices.exists(index=old)


def test_an_analyzer_that_the_server_lacks_is_an_error(retriever, corpus):
    with pytest.raises(ElasticsearchError, match="klingon"):
        retriever.sync(corpus.shards, corpus.read, Bm25(analyzer="klingon"))


def test_indices_of_a_longer_name_are_others(open_retriever, client, corpus, elasticsearch_index):
    short, long = open_retriever(), open_retriever(index=f"{elasticsearch_index}-2")
    long.sync(corpus.shards, corpus.read, Bm25())
    state = long.state()

    short.sync(corpus.shards, corpus.read, Bm25())
    short.sync(corpus.shards, corpus.read, Bm25(analyzer="standard"))

    assert long.state() == state
    assert long.search(queries("common"), depth=100).height == 60


# Conflicts


@pytest.mark.parametrize("how", ["index", "alias"])
def test_a_foreign_index_of_that_name_is_left_alone(
    retriever, client, corpus, elasticsearch_index, how
):
    name = elasticsearch_index if how == "index" else f"{elasticsearch_index}-theirs"
    client.index(index=name, id="1", document={"theirs": "precious"}, refresh=True)
    if how == "alias":
        client.indices.put_alias(index=name, name=elasticsearch_index)

    for call in (
        retriever.state,
        partial(retriever.sync, corpus.shards, corpus.read, Bm25()),
        partial(retriever.search, queries("precious"), depth=1),
    ):
        with pytest.raises(IndexConflict, match=f"(?s){elasticsearch_index}.*RARE_INDEX"):
            call()

    hits = client.search(index=elasticsearch_index)["hits"]["hits"]
    assert [(hit["_id"], hit["_source"]) for hit in hits] == [("1", {"theirs": "precious"})]
    assert list(client.indices.get(index=f"{elasticsearch_index}*")) == [name]


def test_an_index_whose_mapping_was_changed_is_left_alone(retriever, client, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    extra = {"extra": {"type": "keyword"}}
    client.indices.put_mapping(index=retriever.index, properties=extra)

    with pytest.raises(IndexConflict, match="mapping"):
        retriever.sync(corpus.shards, corpus.read, Bm25())


def test_one_id_twice_in_a_shard_is_a_conflict(retriever, tmp_path):
    path = tmp_path / "twice.parquet"
    pl.DataFrame(
        {
            "doc_id": ["x", "x"],
            "text": ["one"] * 2,
            "text_hash": ["h"] * 2,
            "source": ["f:1", "f:9"],
        }
    ).write_parquet(path)

    with pytest.raises(IndexConflict, match=r"'x' stands twice in shard 's'.*f:1.*f:9"):
        retriever.sync({"s": ShardContent("h", 2)}, lambda shard: pl.scan_parquet(path), Bm25())


def test_a_shard_written_meanwhile_is_not_taken_for_the_one_announced(retriever, client, corpus):
    announced = {**corpus.shards, "b": ShardContent("announced", 21)}

    with pytest.raises(IndexConflict, match="shard 'b' has 20 documents, not the 21"):
        retriever.sync(announced, corpus.read, Bm25())

    assert not client.indices.exists_alias(name=retriever.index)


@pytest.mark.parametrize("collected", [0, 100_000])
def test_comparing_many_documents_takes_several_rounds(retriever, tmp_path, monkeypatch, collected):
    monkeypatch.setattr(comparison, "COLLECTED_ROWS", collected)
    monkeypatch.setattr(comparison, "GROUPED_ROWS", 7)
    monkeypatch.setattr(comparison, "TERMS", 5)
    shards = {
        "a": passages("p", 30),
        "b": {f"q{i}": f"common passage p{i:03} of many" for i in range(20)},
    }
    corpus = Corpus(tmp_path / "documents", shards)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert report.n_duplicates == 20

    corpus.put("c", {f"r{i}": f"common passage p{i:03} of many" for i in range(25)})
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert (report.indexed_shards, report.n_duplicates) == (["c"], 25)
    of_first = {row[0]: row[1:] for row in report.duplicates.iter_rows()}[
        text_hash("common passage p000 of many")
    ]
    assert of_first == (["p000", "q0", "r0"], ["a", "b", "c"])
    corpus.put("d", {**{f"s{i}": f"new {i}" for i in range(20)}, "p029": "another text"})
    with pytest.raises(IndexConflict, match="p029"):
        retriever.sync(corpus.shards, corpus.read, Bm25())


# Faults of items and requests


def test_a_document_that_the_server_refuses_is_named(retriever, corpus):
    corpus.put("d", {"good": "fine", "x" * 33_000: "an id too long for a keyword"})

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    ((shard, doc_id, detail),) = report.rejects.select("shard", "doc_id", "detail").rows()
    assert (shard, doc_id) == ("d", "x" * 33_000)
    assert "immense term" in detail
    assert len(detail) < 1500
    assert any("left out" in warning and "immense term" in warning for warning in report.warnings)


def test_rejected_bulk_items_are_sent_again_and_only_they(proxy, open_retriever, client, corpus):
    rejected = []

    def reject(request, answer):
        if "_bulk" in request.path and len(answer["items"]) == 20:
            rejected.append(request.lines[2 * 4 + 1]["doc_id"])
            error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
            answer["items"][4]["index"] = {"status": 429, "error": error}

    proxy.change = reject
    retriever = open_retriever(proxy.url, bulk_size=20, threads=1)
    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert retriever.state().n_documents == 60
    sent = [[line["doc_id"] for line in r.lines if "doc_id" in line] for r in proxy.sent("_bulk")]
    assert [ids for ids in sent if len(ids) == 1] == [[doc_id] for doc_id in rejected]
    assert sum(map(len, sent)) == 63


def test_a_server_that_rejects_for_too_long_is_an_error(proxy, open_retriever, corpus):
    error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    proxy.refuse = lambda request: (429, error) if "_bulk" in request.path else None

    with pytest.raises(ElasticsearchError, match=r"for 0.5 s.*429.*queue is full"):
        open_retriever(proxy.url, wait_seconds=0.5).sync(corpus.shards, corpus.read, Bm25())


def test_failed_searches_of_a_batch_are_asked_again_and_only_they(
    proxy, retriever, open_retriever, corpus
):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    asked = queries(*corpus.documents["a"])  # words that only one document has
    expected = retriever.search(asked, depth=5)
    faults = [
        {"status": 503, "error": {"type": "no_shard_available_action_exception", "reason": "-"}},
        {"status": 200, "timed_out": False, "_shards": {"failed": 1}},
        {"status": 200, "timed_out": True, "_shards": {"failed": 0}},
    ]

    def fail(request, answer):
        if "_msearch" in request.path:
            for i in range(len(faults)):
                answer["responses"][i] = faults.pop()

    proxy.change = fail
    hits = open_retriever(proxy.url).search(asked, depth=5)

    assert hits.equals(expected)
    assert [len(request.lines) // 2 for request in proxy.sent("_msearch")] == [20, 3]


def test_a_query_that_the_server_refuses_is_named(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    endless = " ".join(f"w{i}" for i in range(200_000))

    with pytest.raises(ElasticsearchError, match=r"question 'q2'.*clauses"):
        retriever.search(queries("common", endless, "passage"), depth=3)


def test_a_query_of_thousands_of_words_works(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    long = " ".join(f"w{i}" for i in range(4_000))

    assert found(retriever.search(queries(f"{long} a007"), depth=3)) == {"q1": ["a007"]}


@pytest.mark.parametrize("depth", [0, 10_001])
def test_a_depth_that_no_server_allows_is_an_error(retriever, depth):
    with pytest.raises(ValueError, match=f"depth is {depth}"):
        retriever.search(queries("x"), depth=depth)


def test_a_deployment_that_refuses_settings_works_all_the_same(
    proxy, open_retriever, client, corpus
):
    def serverless(request):
        body = (
            json.loads(request.body)
            if request.method == "PUT" and "_bulk" not in request.path
            else {}
        )
        for setting in body.get("settings", body).get("index", {}):
            if setting.startswith("number_of_"):
                reason = f"Settings [index.{setting}] are not available in serverless mode"
                return 400, {"type": "illegal_argument_exception", "reason": reason}
        if request.path.partition("?")[0].endswith(("/_close", "/_forcemerge")):
            return 410, {"type": "api_not_available_exception", "reason": "not available"}
        return None

    proxy.refuse = serverless
    retriever = open_retriever(proxy.url)
    retriever.sync(corpus.shards, corpus.read, Bm25())
    name = concrete(client, retriever.index)
    settings = client.indices.get_settings(index=name)[name]["settings"]["index"]
    assert "refresh_interval" not in settings
    assert retriever.state().n_documents == 60

    corpus.put("b", passages("b", 5))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert concrete(client, retriever.index) == name

    # k1 and b can't change in place here, so there is another index.
    for bm25 in (Bm25(k1=1.5, b=0.1), Bm25(k1=0.5, b=0.5), Bm25()):
        report = retriever.sync(corpus.shards, corpus.read, bm25)
        assert report.n_indexed == 45
        assert retriever.state() == report.state
        assert retriever.state().bm25 == bm25
        assert len(client.indices.get(index=f"{retriever.index}-*")) == 1
    assert proxy.sent("_close")
    assert proxy.sent("_forcemerge")


def test_negatives_do_not_depend_on_the_number_of_primary_shards(
    open_retriever, elasticsearch_index, tmp_path
):
    draw = random.Random(3)
    words = [f"w{n}" for n in range(60)]
    texts = {
        f"d{n:03}": " ".join(draw.choices(words, range(60, 0, -1), k=draw.randint(5, 30)))
        for n in range(300)
    }
    shards = {s: dict(list(texts.items())[n::3]) for n, s in enumerate("abc")}
    corpus = Corpus(tmp_path / "documents", shards)
    asked = questions(
        *(
            {
                "question_id": f"q {doc_id}",
                "doc_id": doc_id,
                "text_hash": text_hash(text),
                "question": " ".join(text.split()[:6]),
            }
            for doc_id, text in texts.items()
        )
    )
    mined = {}
    for n in (1, 5):
        retriever = open_retriever(index=f"{elasticsearch_index}-{n}", number_of_shards=n)
        retriever.sync(corpus.shards, corpus.read, Bm25())
        mined[n] = [
            bm25_hard_neg(asked, retriever, **options).produced.rows
            for options in ({}, {"relative_margin": 0}, {"sampling_strategy": "random"})
        ]

    exact = pl.exclude("negatives", "gold_score")
    for one, several in zip(mined[1], mined[5], strict=True):
        assert one["hard_negatives"].list.len().to_list() == [3] * 300
        assert several.select(exact).equals(one.select(exact))


# Credentials


def test_the_api_key_is_sent_and_shown_nowhere(proxy, open_retriever, corpus, caplog):
    caplog.set_level(logging.DEBUG)
    retriever = open_retriever(proxy.url, api_key=SecretStr(SECRET))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    retriever.search(queries("common"), depth=3)
    kind = "security_exception"
    proxy.refuse = lambda request: (401, {"type": kind, "reason": "unable to authenticate"})

    with pytest.raises(ElasticsearchError, match="ELASTICSEARCH_API_KEY") as caught:
        retriever.state()

    assert {request.headers["authorization"] for request in proxy.requests} == {f"ApiKey {SECRET}"}
    for shown in (caplog.text, repr(retriever), str(retriever), repr(caught.value)):
        assert SECRET not in shown


def test_a_password_in_the_url_is_used_and_not_shown(proxy, open_retriever):
    url = proxy.url.replace("http://", f"http://me:{SECRET}@")
    retriever = open_retriever(url)
    proxy.refuse = lambda request: (403, {"type": "security_exception", "reason": "denied"})

    with pytest.raises(ElasticsearchError) as caught:
        retriever.state()

    assert proxy.requests[0].headers["authorization"].startswith("Basic ")
    assert SECRET not in repr(retriever) + str(caught.value)
    assert proxy.url in repr(retriever)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": " , "}, "ELASTICSEARCH_URL is ''"),
        ({"url": "127.0.0.1:9200"}, "ELASTICSEARCH_URL is '127.0.0.1:9200': give http"),
        ({"url": f"http://me:{SECRET}@127.0.0.1"}, "ELASTICSEARCH_URL is 'http://127.0.0.1'"),
        ({"api_key": SECRET, "username": "me", "password": SECRET}, "not both"),
        ({"username": "me"}, "ELASTICSEARCH_PASSWORD"),
        ({"password": SECRET}, "ELASTICSEARCH_USERNAME"),
        ({"ca_certs": "ca.crt"}, "https"),
    ],
)
def test_options_that_contradict_each_other_are_errors(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ElasticsearchRetriever(**{"url": "http://127.0.0.1:9200", **options})

    assert SECRET not in str(caught.value)


# Servers that die


def test_a_server_that_is_not_there_is_waited_for_and_then_an_error(open_retriever):
    url = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(ElasticsearchError, match=f"{url} could not look up .* for 0.3 s") as caught:
        open_retriever(url, wait_seconds=0.3).state()

    assert "refused" in str(caught.value)


def test_a_server_that_was_never_there_is_waited_for_shortly(open_retriever, caplog):
    url = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(ElasticsearchError, match=f"no Elasticsearch at {url}: .*refused") as caught:
        open_retriever(url, first_wait_seconds=0.3).state()

    assert "ELASTICSEARCH_URL" in str(caught.value)
    assert [record.getMessage() for record in caplog.records if "waiting" in record.message] == [
        f"No Elasticsearch at {url}, waiting up to 0.3 s for it: [Errno 111] Connection refused"
    ]


def test_a_server_that_starts_within_the_first_wait_is_used(
    elasticsearch_url, open_retriever, corpus, caplog
):
    port = free_port()

    def start(server):
        time.sleep(1)
        with running_proxy(elasticsearch_url, port):
            server.wait()

    with ThreadPoolExecutor(1) as pool:
        used = Event()
        pool.submit(start, used)
        try:
            retriever = open_retriever(f"http://127.0.0.1:{port}", first_wait_seconds=30)
            report = retriever.sync(corpus.shards, corpus.read, Bm25())
        finally:
            used.set()

    assert report.n_indexed == 60
    assert caplog.text.count("waiting up to") == 1


def test_a_server_that_was_there_before_is_waited_for_the_whole_time(
    elasticsearch_url, open_retriever, corpus
):
    options = {"first_wait_seconds": 0.1, "wait_seconds": 0.4}
    with running_proxy(elasticsearch_url) as proxy:
        open_retriever(proxy.url, **options).sync(corpus.shards, corpus.read, Bm25())

    with pytest.raises(ElasticsearchError, match=r"could not look up .* for 0.4 s"):
        open_retriever(proxy.url, **options).state()


def test_of_several_nodes_one_may_be_down(open_retriever, elasticsearch_url, corpus):
    url = f"http://127.0.0.1:{free_port()},{elasticsearch_url}"
    retriever = open_retriever(url, first_wait_seconds=5, wait_seconds=5)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert report.state == retriever.state()
    assert retriever.search(queries("common"), depth=100).height == 60
