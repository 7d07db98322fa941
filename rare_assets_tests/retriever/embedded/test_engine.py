"""What the embedded engine alone has to do: its files, its limits, its agreement with Elasticsearch."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import rare_assets_tests
from rare_assets.files.stored_bytes import StorageError
from rare_assets.retriever import analyzers
from rare_assets.retriever.embedded import build as embedded_build
from rare_assets.retriever.embedded import engine as embedded
from rare_assets.retriever.embedded import postings as embedded_postings
from rare_assets.retriever.embedded import segment as embedded_segment
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.embedded.manifest import SEGMENT_FILES, STATE_FILES
from rare_assets.retriever.english import english_terms
from rare_assets.retriever.interface import (
    Bm25,
    IndexConflict,
    IndexDamaged,
    IndexMissing,
)
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.retrieved_corpus import Corpus, found, queries, text_hash

SHARDS = {
    "animals": {"cat": "The cat chased a mouse.", "dog": "Dogs chase cats."},
    "sky": {"moon": "The moon rises at night.", "star": "Stars shine at night."},
}


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path / "documents", SHARDS)


@pytest.fixture
def retriever(tmp_path):
    retriever = EmbeddedRetriever(str(tmp_path / "index"))
    yield retriever
    retriever.close()


def start(program, *arguments):
    """Another Python process that runs `program` with these arguments."""
    root = str(Path(rare_assets_tests.__file__).parents[1])
    return Forked(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def segments(tmp_path):
    """The one state's segments, name -> shards in it; what else is on disk is of no use."""
    index = tmp_path / "index"
    (folder,) = (index / "states").iterdir()
    state = json.loads((folder / "state.json").read_text())
    shards, owners, named = [*state["shards"], None], np.load(folder / "owners.npy"), {}
    for name, n_rows in state["segments"]:
        named[name] = sorted({shards[owner] for owner in owners[:n_rows] if owner >= 0})
        owners = owners[n_rows:]
    assert len(owners) == 0
    assert {path.name for path in (index / "segments").glob("*")} == set(named)
    assert not (index / "analyzed").exists()
    return named


def sizes(tmp_path):
    """How many documents lie in each segment of the one state."""
    (folder,) = (tmp_path / "index" / "states").iterdir()
    listed = json.loads((folder / "state.json").read_text())["segments"]
    segments = tmp_path / "index" / "segments"
    for name, n_rows in listed:
        assert len(pl.read_ipc(segments / name / "documents.arrow")) == n_rows
    return [n_rows for _, n_rows in listed]


def many(shard, n=40):
    return {f"{shard}{i}": f"{shard} number {i}" for i in range(n)}


def prose(rng, n_words):
    """Text with a natural distribution of words, inflected, with names, numbers and possessives."""
    forms = ["{}", "{}s", "{}'s", "{}ed", "{}ing", "{}ly", "{}.", "{},", "({})", "{}-{}", "19{}"]
    stems = "glacier river protein market archive signal enzyme harbour verdict lattice".split()  # noqa: SIM905
    common = "the of and to in is that it was for on with as by at from this".split()  # noqa: SIM905
    words = []
    for _ in range(n_words):
        if rng.random() < 0.4:
            words.append(rng.choice(common))
        else:
            rank = int(rng.paretovariate(0.6)) % 900
            stem = stems[rank % 10] + ("" if rank < 10 else chr(97 + rank // 40) + "o")
            words.append(rng.choice(forms).format(stem, rng.choice(stems)))
    return " ".join(words)


def test_hits_and_scores_are_elasticsearchs(
    retriever, tmp_path, elasticsearch_url, elasticsearch_index
):
    from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever

    rng = random.Random(3)
    shards = {
        f"s{shard}": {f"d{shard}-{i:03}": prose(rng, rng.randint(5, 200)) for i in range(150)}
        for shard in range(4)
    }
    shards["s0"]["copy"] = shards["s1"]["copy"] = prose(rng, 60)
    corpus = Corpus(tmp_path / "documents", shards)
    asked = queries(*(prose(rng, 25) for _ in range(60)))
    other = ElasticsearchRetriever(elasticsearch_url, elasticsearch_index, wait_seconds=10)

    retriever.sync(corpus.shards, corpus.read, Bm25())
    other.sync(corpus.shards, corpus.read, Bm25())

    ours, theirs = (engine.search(asked, depth=10) for engine in (retriever, other))
    other.close()
    assert ours["score"].to_numpy() == pytest.approx(theirs["score"].to_numpy(), rel=1e-5)
    same = ours.join(theirs, on=["question_id", "doc_id"], how="semi")
    # Scores that differ in the last bit may round to different 5 digits and so change places.
    assert len(same) >= 0.995 * len(theirs) > 500


def test_a_sync_reads_only_shards_that_changed(retriever, corpus):
    asked = []

    def read(shard):
        asked.append(shard)
        return corpus.read(shard)

    retriever.sync(corpus.shards, read, Bm25())
    assert sorted(asked) == ["animals", "sky"]
    corpus.put("sky", {"moon": "The moon rises at night."})
    asked.clear()
    retriever.sync(corpus.shards, read, Bm25())
    assert asked == ["sky"]
    asked.clear()
    retriever.sync(corpus.shards, read, Bm25(k1=1.2, b=0.75))
    retriever.sync(corpus.shards, read, Bm25(k1=1.2, b=0.75))
    assert asked == []
    assert retriever.state().bm25 == Bm25(k1=1.2, b=0.75)


def test_a_changed_index_is_the_index_built_at_once(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    corpus.put("sky", {"moon": "The moon is a mouse's moon.", "sun": "Sunny nights."})
    corpus.put("birds", {"owl": "Owls hunt a mouse at night."})
    corpus.drop("animals")
    retriever.sync(corpus.shards, corpus.read, Bm25())
    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(corpus.shards, corpus.read, Bm25())

    asked = queries("moon mouse", "night owl sunny", "cat")
    assert retriever.search(asked, depth=9).equals(fresh.search(asked, depth=9))
    assert retriever.state() == fresh.state()
    assert found(fresh.search(asked, depth=9)) == {"q1": ["moon", "owl"], "q2": ["sun", "owl"]}


def test_states_that_follow_each_other_are_the_index_built_at_once(retriever, tmp_path):
    rng = random.Random(11)
    corpus = Corpus(tmp_path / "documents")
    made = itertools.count()

    def documents(shard, n):
        return {f"{shard}-{next(made)}": prose(rng, rng.randint(0, 60)) for _ in range(n)}

    for shard in range(12):
        corpus.put(f"s{shard}", documents(shard, rng.choice([1, 5, 40])))
    asked = queries(*(prose(rng, 12) for _ in range(20)))
    counts = set()
    for step in range(25):
        for _ in range(rng.choice([1, 1, 3])):
            shard = rng.choice(sorted(corpus.documents))
            match rng.choice(["edit", "edit", "drop", "add", "copy", "move", "revert"]):
                case "edit":
                    kept = dict(corpus.documents[shard])
                    kept.pop(rng.choice(sorted(kept)))
                    corpus.put(shard, {**documents(shard, 1), **kept})
                case "drop" if len(corpus.documents) > 3:
                    corpus.drop(shard)
                case "add":
                    corpus.put(f"s{step}+", documents(step, rng.choice([0, 2, 10])))
                case "copy":
                    copied = dict(itertools.islice(corpus.documents[shard].items(), 3))
                    corpus.put(f"copy-{step}", copied)
                case "move":
                    moved = corpus.documents[shard]
                    corpus.drop(shard)
                    corpus.put(f"{shard}m", moved)
                case "revert":
                    before = corpus.documents[shard]
                    corpus.put(shard, documents(shard, 1))
                    retriever.sync(corpus.shards, corpus.read, Bm25())
                    corpus.put(shard, before)
        for shard in [shard for shard, of in corpus.documents.items() if not of]:
            corpus.drop(shard)
        retriever.sync(corpus.shards, corpus.read, Bm25())
        fresh = EmbeddedRetriever(str(tmp_path / f"fresh{step}"))
        fresh.sync(corpus.shards, corpus.read, Bm25())

        hits = fresh.search(asked, depth=15)
        assert retriever.search(asked, depth=15).equals(hits)
        pairs = asked.join(hits.select("doc_id").unique("doc_id").sort("doc_id"), how="cross")
        assert retriever.score(pairs).equals(fresh.score(pairs))
        expected = {doc_id: text for of in corpus.documents.values() for doc_id, text in of.items()}
        assert dict(retriever.texts([*expected, "none"]).drop("title").iter_rows()) == expected
        assert retriever.state() == fresh.state()
        counts.add(len(segments(tmp_path)))
    assert counts == {1, 2}


@pytest.fixture
def analyzed(monkeypatch):
    """The texts that have been analyzed for the index."""
    texts = []

    def analyze(text):
        texts.append(text)
        return english_terms(text)

    monkeypatch.setitem(analyzers.ANALYZERS, "english", analyze)
    return texts


def test_a_small_change_leaves_the_large_segment_alone(retriever, tmp_path):
    corpus = Corpus(tmp_path / "documents", {name: many(name) for name in "abcdefghxy"})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    ((large, shards),) = segments(tmp_path).items()
    assert shards == [*"abcdefghxy"]

    # Documents that did not change stay where they are, though their shard did.
    corpus.put("a", {"new": "a new document", **many("a", 39)})
    corpus.put("c", {f"new{number}": f"c number {number}" for number in range(7)})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert list(segments(tmp_path).values()) == [[*"abdefghxy"], ["a", "c"]]
    corpus.put("i", many("i", 7))
    corpus.drop("b")
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert list(segments(tmp_path).values()) == [[*"adefghxy"], ["a", "c", "i"]]
    assert next(iter(segments(tmp_path))) == large
    assert sizes(tmp_path) == [400, 15]
    hits = retriever.search(queries("number document"), depth=400)
    assert sorted(hits["doc_id"]) == sorted(
        doc_id for documents in corpus.documents.values() for doc_id in documents
    )

    # 81 gone and 31 beside are more than a quarter of 400.
    corpus.put("j", many("j", 16))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert list(segments(tmp_path).values()) == [[*"acdefghijxy"]]
    assert sizes(tmp_path) == [350]


def test_only_texts_that_are_new_are_analyzed(retriever, tmp_path, analyzed):
    corpus = Corpus(tmp_path / "documents", {name: many(name) for name in "abc"})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert len(analyzed) == 120

    analyzed.clear()
    corpus.put("b", {"new": "b and more", **many("b"), "again": "b number 3"})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert analyzed == ["b and more", "b number 3"]

    # The same documents, cut into other shards.
    analyzed.clear()
    documents = {**corpus.documents["a"], **corpus.documents["b"], **many("c", 20)}
    for shard in "abc":
        corpus.drop(shard)
    items = list(documents.items())
    for start in range(0, len(items), 30):
        corpus.put(f"part{start}", dict(items[start : start + 30]))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert analyzed == []
    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(corpus.shards, corpus.read, Bm25())
    asked = queries("b number", "more", "number 3")
    assert retriever.search(asked, depth=200).equals(fresh.search(asked, depth=200))


def test_a_shard_analyzed_by_a_stopped_sync_is_analyzed_anew_if_what_it_reused_is_not_there(
    retriever, tmp_path, analyzed
):
    corpus = Corpus(tmp_path / "documents", {"a": many("a"), "b": many("b")})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    before = corpus.documents["a"]
    corpus.put("a", {"first": "the first", **before})
    corpus.put("c", many("c"))
    analyzed.clear()

    def read(shard):
        if shard == "c":
            raise ConnectionError("the store is gone")
        return corpus.read(shard)

    with pytest.raises(ConnectionError):
        retriever.sync(corpus.shards, read, Bm25())
    assert analyzed == ["the first"]
    # Now the old shard is part of the index, too, and needs its postings itself.
    both = Corpus(tmp_path / "both", {**corpus.documents, "a": before, "d": corpus.documents["a"]})
    shards = {**both.shards, "e": corpus.shards["a"]}
    retriever.sync(shards, lambda key: corpus.read("a") if key == "e" else both.read(key), Bm25())
    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(shards, lambda key: corpus.read("a") if key == "e" else both.read(key), Bm25())
    asked = queries("a number", "first 3")
    assert retriever.search(asked, depth=200).equals(fresh.search(asked, depth=200))


def test_k1_and_b_change_without_a_segment_being_written(retriever, corpus, tmp_path, analyzed):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    before = segments(tmp_path)
    analyzed.clear()
    retriever.sync(corpus.shards, corpus.read, Bm25(k1=1.2, b=0.75))

    assert segments(tmp_path) == before
    assert analyzed == []
    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(corpus.shards, corpus.read, Bm25(k1=1.2, b=0.75))
    asked = queries("night moon", "cats chase")
    assert retriever.search(asked, depth=9).equals(fresh.search(asked, depth=9))


def test_another_analyzer_analyzes_everything_anew(retriever, corpus, monkeypatch):
    monkeypatch.setitem(analyzers.ANALYZERS, "white_space", str.split)
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert found(retriever.search(queries("rise"), depth=5)) == {"q1": ["moon"]}
    report = retriever.sync(corpus.shards, corpus.read, Bm25(analyzer="white_space"))

    assert report.state.bm25.analyzer == "white_space"
    hits = retriever.search(queries("rise", "rises", "The"), depth=5)
    assert found(hits) == {"q2": ["moon"], "q3": ["cat", "moon"]}


def test_a_shard_of_many_batches_is_the_shard_of_one(retriever, tmp_path, monkeypatch):
    rng = random.Random(4)
    texts = {f"d{number:03}": prose(rng, rng.randint(0, 90)) for number in range(300)}
    corpus = Corpus(tmp_path / "documents", {"s": texts})
    retriever.sync(corpus.shards, corpus.read, Bm25())
    monkeypatch.setattr(embedded_segment, "_BATCH_BYTES", 1_000)
    monkeypatch.setattr(embedded_segment, "_BATCH_ROWS", 7)
    monkeypatch.setattr(embedded_segment, "_COPIED_BYTES", 999)
    monkeypatch.setattr(embedded_postings, "_AT_ONCE", 100)
    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(corpus.shards, corpus.read, Bm25())

    asked = queries(*(prose(rng, 12) for _ in range(20)))
    assert retriever.search(asked, depth=50).equals(fresh.search(asked, depth=50))
    assert dict(fresh.texts(texts).drop("title").iter_rows()) == texts


def test_memory_does_not_grow_with_the_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_segment, "_BATCH_BYTES", 100_000)
    monkeypatch.setattr(embedded_postings, "_AT_ONCE", 5_000)
    rng = random.Random(6)
    pool = prose(rng, 2_000).split()
    peaks = []
    for n in (300, 1_000, 20_000):
        texts = {f"d{number:05}": " ".join(rng.choices(pool, k=100)) for number in range(n)}
        corpus = Corpus(tmp_path / f"{n}", {"s": texts})
        tracemalloc.start()
        EmbeddedRetriever(str(tmp_path / f"index{n}")).sync(corpus.shards, corpus.read, Bm25())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first one has filled what the analyzer remembers. Ids and hashes of a document take
    # 100 bytes; what waits for a slow disk up to 3 MB; held whole, postings alone are 9 MB more.
    assert peaks[2] - peaks[1] < 19_000 * 350


def test_nothing_of_an_older_state_stays_on_disk(retriever, corpus, tmp_path):
    for number in range(3):
        corpus.put("sky", {"moon": f"The moon number {number}."})
        retriever.sync(corpus.shards, corpus.read, Bm25())

    (shards,) = segments(tmp_path).values()
    assert sorted(shards) == ["animals", "sky"]


def test_an_opened_state_stays_readable_after_the_next_sync(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    reader = EmbeddedRetriever(str(tmp_path / "index"))
    before = reader.state()
    corpus.put("sky", {"sun": "The sun sets at night."})
    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
    assert reader.texts(["star", "sun"]).rows() == [("star", "Stars shine at night.", None)]
    assert reader.state() == retriever.state() != before
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["sun"]}


KILLED = """
import os, signal, sys
from pathlib import Path
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.interface import Bm25
from rare_assets_tests.support.retrieved_corpus import Corpus

folder, stop, more = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
steps = 0
def watch(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.rmdir", "os.remove"):
        if str(folder / "index") in str(arguments[0]):
            steps += 1
            if steps == stop:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
corpus = Corpus(folder / "new", {
    "animals": {"cat": "The cat chased a mouse.", "dog": "Dogs chase cats."},
    "sky": {"sun": "The sun sets at night."},
    "more": {f"more{i}": f"more number {i}" for i in range(more)},
})
EmbeddedRetriever(str(folder / "index")).sync(corpus.shards, corpus.read, Bm25())
print("done")
"""


# With 40 more documents the change becomes a segment of its own, else all becomes one.
@pytest.mark.parametrize("more", [0, 40])
def test_a_kill_at_any_step_leaves_the_old_index_or_the_new(retriever, tmp_path, more):
    corpus = Corpus(tmp_path / "documents", {**SHARDS, "more": many("more", more)})
    new = Corpus(tmp_path / "new", {**corpus.documents, "sky": {"sun": "The sun sets at night."}})
    asked = queries("night")
    outcomes = []
    # Every fourth step on a file of the index, up to one that is never reached.
    for step in range(1, 400, 4):
        retriever.sync(corpus.shards, corpus.read, Bm25())
        if more:
            # The state that the killed sync finds has a large segment, as of the first sync.
            assert [*segments(tmp_path).values()][:1] == [["animals", "more", "sky"]]
        process = start(KILLED, tmp_path, step, more)
        output, _ = process.communicate(timeout=60)
        hits = found(EmbeddedRetriever(str(tmp_path / "index")).search(asked, depth=5))
        outcomes.append(hits["q1"])
        if output:
            assert process.returncode == 0
            break
        assert process.returncode == -signal.SIGKILL
        retriever.sync(new.shards, new.read, Bm25())
        assert found(retriever.search(asked, depth=5)) == {"q1": ["sun"]}
        assert len(segments(tmp_path)) == (2 if more else 1)
    n_old = outcomes.count(["moon", "star"])
    assert n_old > 3
    assert outcomes == [["moon", "star"]] * n_old + [["sun"]] * (len(outcomes) - n_old)
    assert outcomes[-1] == ["sun"]


def test_a_sync_that_was_stopped_goes_on_with_what_it_had_analyzed(retriever, tmp_path):
    corpus = Corpus(tmp_path / "documents", {name: many(name, 5) for name in "abcd"})
    asked = []

    def read(shard):
        asked.append(shard)
        if asked == ["a", "b", "c"]:
            raise ConnectionError("the store is gone")
        return corpus.read(shard)

    with pytest.raises(ConnectionError):
        retriever.sync(corpus.shards, read, Bm25())
    with pytest.raises(IndexMissing):
        retriever.state()
    retriever.sync(corpus.shards, read, Bm25())

    assert asked == ["a", "b", "c", "c", "d"]
    assert len(retriever.search(queries("number"), depth=100)) == 20
    assert list(segments(tmp_path).values()) == [["a", "b", "c", "d"]]


SYNC = """
import sys, time
from pathlib import Path
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.interface import Bm25
from rare_assets_tests.support.retrieved_corpus import Corpus

folder, name = Path(sys.argv[1]), sys.argv[2]
texts = {f"{name}{i}": f"night of {name} number {i}" for i in range(300)}
corpus = Corpus(folder / name, {name: texts, "both": {"x": "the same text"}})
retriever = EmbeddedRetriever(str(folder / "index"))
while not (folder / "go").exists():
    time.sleep(0.01)
for _ in range(5):
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert dict(report.state.shards) == corpus.hashes
print("done")
"""


def test_syncs_at_once_come_one_after_the_other(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    processes = [start(SYNC, tmp_path, name) for name in ("a", "b")]
    (tmp_path / "go").touch()
    seen = set()
    # A reader sees whole states only, all the while.
    while any(process.poll() is None for process in processes):
        reader = EmbeddedRetriever(str(tmp_path / "index"))
        hits = reader.search(queries("night"), depth=400)["doc_id"]
        seen.add((hits[0][0], len(hits)))
    assert [process.communicate()[0] for process in processes] == ["done\n", "done\n"]

    retriever.close()
    hits = retriever.search(queries("night"), depth=400)["doc_id"]
    last = hits[0][0]
    assert last in "ab"
    assert set(hits) == {f"{last}{i}" for i in range(300)}
    assert seen <= {("m", 2), ("a", 300), ("b", 300)}
    assert len(segments(tmp_path)) == 1


def test_a_waiting_sync_says_so(retriever, corpus, tmp_path):
    from filelock import FileLock

    retriever.sync(corpus.shards, corpus.read, Bm25())
    lock = FileLock(tmp_path / "index" / "sync.lock")
    lines = []

    def progress(line):
        lines.append(line)
        lock.release()

    lock.acquire()
    retriever.sync(corpus.shards, corpus.read, Bm25(), progress)
    assert "another sync" in lines[0]


READ = """
import json, sys
import polars as pl
from pathlib import Path
from rare_assets.retriever.embedded.engine import EmbeddedRetriever

retriever = EmbeddedRetriever(sys.argv[1])
hits = retriever.search(pl.DataFrame({"question_id": ["q1"], "query": ["night"]}), depth=5)
maps = Path("/proc/self/maps")
mapped = [line.split()[-1] for line in maps.read_text().splitlines()] if maps.exists() else None
print(json.dumps([hits["doc_id"].to_list(), mapped]))
"""


def test_processes_share_one_mapped_index(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    processes = [start(READ, tmp_path / "index") for _ in range(2)]

    for process in processes:
        doc_ids, mapped = json.loads(process.communicate(timeout=60)[0])
        assert doc_ids == ["moon", "star"]
        if mapped is not None:
            names = {Path(path).name for path in mapped if str(tmp_path) in path}
            assert {"terms", "rows", "impacts", "texts"} <= names


@pytest.mark.parametrize("shards", [{}, {"none": {}}, {"stops": {"d": "the of and"}}], ids=str)
def test_an_index_without_terms_finds_nothing(retriever, tmp_path, shards):
    corpus = Corpus(tmp_path / "documents", shards)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert report.state == retriever.state()
    assert report.state.n_documents == sum(map(len, shards.values()))
    assert retriever.search(queries("the night", ""), depth=3).is_empty()
    pairs = queries("night").with_columns(doc_id=pl.lit("d"))
    assert retriever.score(pairs)["score"].to_list() == [0.0 if "stops" in shards else None]
    assert retriever.texts(["d"]).drop("title").rows() == list(shards.get("stops", {}).items())


def test_documents_without_a_term_do_not_count_in_the_statistics(retriever, tmp_path):
    plain = Corpus(tmp_path / "plain", {"s": {"a": "moon night", "b": "moon"}})
    retriever.sync(plain.shards, plain.read, Bm25())
    before = retriever.search(queries("moon night"), depth=5)
    padded = Corpus(tmp_path / "padded", {**plain.documents, "t": {"c": "the of", "d": "..."}})
    retriever.sync(padded.shards, padded.read, Bm25())

    assert retriever.search(queries("moon night"), depth=5).equals(before)
    assert retriever.state().n_documents == 4


def test_two_shards_of_equal_content_are_both_held(retriever, tmp_path):
    documents = {"a": "moon night", "b": "moon"}
    corpus = Corpus(tmp_path / "documents", {"one": documents, "two": documents})
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert dict(report.state.shards) == corpus.hashes
    assert report.duplicates.rows() == sorted(
        (text_hash(text), [doc_id], ["one", "two"]) for doc_id, text in documents.items()
    )
    assert found(retriever.search(queries("moon"), depth=5)) == {"q1": ["b", "a"]}


def test_duplicates_are_counted_beyond_those_listed_and_known_to_a_sync_without_work(
    retriever, tmp_path, monkeypatch
):
    monkeypatch.setattr(embedded_build, "LISTED_DUPLICATES", 2)
    twins = {f"{twin}{i}": f"text {i}" for i in range(5) for twin in "ab"}
    corpus = Corpus(tmp_path / "documents", {"s": {**twins, "single": "alone"}})

    for _ in range(2):
        report = retriever.sync(corpus.shards, corpus.read, Bm25())
        assert report.n_duplicates == 5
        hashes = sorted(text_hash(f"text {i}") for i in range(5))
        assert report.duplicates["text_hash"].to_list() == hashes[:2]


def test_a_conflict_names_the_id_and_both_places(retriever, corpus):
    corpus.put("other", {"x": "X.", "moon": "Another moon."})
    with pytest.raises(IndexConflict) as caught:
        retriever.sync(corpus.shards, corpus.read, Bm25())
    assert str(caught.value) == (
        "doc_id 'moon' has two texts, in shard 'other' (other.jsonl:2) and shard 'sky' "
        "(sky.jsonl:1): give each text an id of its own, or remove one. Nothing was indexed"
    )


def test_a_shard_that_changes_under_the_sync_is_a_conflict(retriever, corpus):
    with pytest.raises(IndexConflict, match="shard 'sky' has 1 rows, not 2"):
        retriever.sync(
            corpus.shards,
            lambda shard: corpus.read(shard).head(1 if shard == "sky" else 2),
            Bm25(),
        )
    with pytest.raises(IndexMissing):
        retriever.state()


@pytest.mark.parametrize(
    ("bm25", "message"),
    [
        (Bm25(analyzer="klingon"), "analyzer is 'klingon': there are arabic, .*, turkish"),
        (Bm25(analyzer="greek"), "no analyzer 'greek': set ELASTICSEARCH_URL, .* english, "),
        (Bm25(k1=-1.0), "k1=-1.0"),
        (Bm25(b=1.5), "b=1.5"),
    ],
)
def test_settings_that_cannot_rank_are_refused(retriever, corpus, bm25, message):
    with pytest.raises(ValueError, match=message):
        retriever.sync(corpus.shards, corpus.read, bm25)


def test_a_depth_below_one_is_refused(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    with pytest.raises(ValueError, match="depth is 0"):
        retriever.search(queries("moon"), depth=0)


def test_a_large_corpus_warns_and_names_elasticsearch(retriever, corpus, monkeypatch):
    assert retriever.sync(corpus.shards, corpus.read, Bm25()).warnings == ()
    monkeypatch.setattr(embedded, "LIMIT", 3)
    (warning,) = retriever.sync(corpus.shards, corpus.read, Bm25()).warnings
    assert warning == (
        "4 passages in the embedded index, which is meant for up to 3: set ELASTICSEARCH_URL to use "
        "Elasticsearch"
    )
    assert found(retriever.search(queries("moon"), depth=1)) == {"q1": ["moon"]}


def test_an_index_of_another_format_is_built_anew(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    (tmp_path / "index" / "current.json").write_text('{"format": 0, "state": "old"}')

    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.state()
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert sorted(report.indexed_shards) == ["animals", "sky"]
    assert retriever.state() == report.state


def test_a_state_that_lacks_a_file_is_built_anew(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    index = tmp_path / "index"
    expected = retriever.search(queries("night cat"), depth=5)
    files = [path.relative_to(index) for path in index.rglob("*/*/*")]
    assert len(files) == len(STATE_FILES) + len(SEGMENT_FILES)
    for name in sorted({path.name for path in files}):
        (file,) = index.rglob(name)
        file.unlink()
        with pytest.raises(IndexDamaged, match=rf"{name}.*Materialize corpus_index"):
            retriever.state()
        report = retriever.sync(corpus.shards, corpus.read, Bm25())
        assert sorted(report.indexed_shards) == ["animals", "sky"]
        assert retriever.search(queries("night cat"), depth=5).equals(expected)


def test_an_index_in_an_object_store_is_read_through_a_cache(s3_bucket, corpus, tmp_path):
    import s3fs

    url = f"{s3_bucket}/index"

    def open_in(cache):
        return EmbeddedRetriever(url, cache=str(tmp_path / cache))

    writer, reader = open_in("one"), open_in("two")
    with pytest.raises(IndexMissing, match="corpus_index"):
        reader.state()
    writer.sync(corpus.shards, corpus.read, Bm25())
    before = reader.state()
    assert before == writer.state()
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}

    # Whoever syncs next, from wherever, goes on from what lies in the store.
    corpus.put("sky", {"sun": "The sun sets at night."})
    report = open_in("three").sync(corpus.shards, corpus.read, Bm25())
    assert (report.indexed_shards, report.n_removed) == (["sky"], 2)
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
    assert reader.state() == report.state == writer.state()
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["sun"]}
    s3fs.S3FileSystem.clear_instance_cache()
    assert len(s3fs.S3FileSystem().ls(f"{url}/states")) == 1


@pytest.fixture
def uploads(monkeypatch):
    """Files put into the object store; `uploads.left` more, then the store is gone."""
    import s3fs

    put_file = s3fs.S3FileSystem._put_file

    class Uploads(list):
        left = 1_000

    uploads = Uploads()

    async def put(filesystem, source, target, **kwargs):
        if len(uploads) == uploads.left:
            raise ConnectionError("the store is gone")
        uploads.append("/".join(Path(target).parts[-3:]))
        return await put_file(filesystem, source, target, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", put)
    # Its instances have bound the method that they found.
    s3fs.S3FileSystem.clear_instance_cache()
    yield uploads
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_change_uploads_what_changed(s3_bucket, tmp_path, uploads):
    corpus = Corpus(tmp_path / "documents", {name: many(name) for name in "abcd"})
    first, second = (EmbeddedRetriever(f"{s3_bucket}/i", cache=str(tmp_path / c)) for c in "12")
    first.sync(corpus.shards, corpus.read, Bm25())
    corpus.put("e", many("e", 5))
    corpus.drop("a")
    uploads.clear()
    second.sync(corpus.shards, corpus.read, Bm25())

    kinds = [file.split("/")[0] for file in uploads]
    assert kinds.count("segments") == len(SEGMENT_FILES)
    assert kinds.count("states") == len(STATE_FILES)
    first.close()
    hits = first.search(queries("number"), depth=400)
    assert sorted(hits["doc_id"]) == sorted(id for of in corpus.documents.values() for id in of)


@pytest.mark.parametrize("more", [0, 40])
def test_an_upload_that_breaks_off_leaves_the_state_before(
    s3_bucket, corpus, tmp_path, uploads, more
):
    url = f"{s3_bucket}/index"
    corpus.put("more", many("more", more))
    writer = EmbeddedRetriever(url, cache=str(tmp_path / "writer"))
    writer.sync(corpus.shards, corpus.read, Bm25())
    corpus.put("sky", {"sun": "The sun sets at night."})

    for left in itertools.count():
        uploads.clear()
        uploads.left = left
        # Every time from another machine: it has what lies in the store, and nothing else.
        try:
            EmbeddedRetriever(url, cache=str(tmp_path / f"{left}")).sync(
                corpus.shards, corpus.read, Bm25()
            )
            break
        except StorageError:
            reader = EmbeddedRetriever(url, cache=str(tmp_path / "reader"))
            assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
    assert left == len(STATE_FILES) + len(SEGMENT_FILES)
    reader = EmbeddedRetriever(url, cache=str(tmp_path / "reader"))
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["sun"]}
    assert len(reader.search(queries("number"), depth=100)) == more


def test_a_remote_index_that_lacks_a_file_is_built_anew(s3_bucket, corpus, tmp_path):
    import s3fs

    url = f"{s3_bucket}/index"
    writer = EmbeddedRetriever(url, cache=str(tmp_path / "writer"))
    writer.sync(corpus.shards, corpus.read, Bm25())
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    (rows,) = filesystem.glob(f"{url.removeprefix('s3://')}/segments/*/rows")
    filesystem.rm(rows)
    other = EmbeddedRetriever(url, cache=str(tmp_path / "other"))
    with pytest.raises(IndexMissing, match="corpus_index"):
        other.state()
    report = other.sync(corpus.shards, corpus.read, Bm25())
    assert sorted(report.indexed_shards) == ["animals", "sky"]
    reader = EmbeddedRetriever(url, cache=str(tmp_path / "reader"))
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
