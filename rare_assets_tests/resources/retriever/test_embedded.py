"""What the embedded engine alone has to do: its files, its limits, its agreement with Elasticsearch."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import rare_assets_tests
from rare_assets.resources.retriever import embedded
from rare_assets.resources.retriever.embedded import EmbeddedRetriever, lucene_length
from rare_assets.resources.retriever.interface import Bm25, IndexConflict, IndexMissing
from rare_assets_tests.resources.retriever.corpus import Corpus, found, queries, text_hash

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
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def folders(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


# SmallFloat.byte4ToInt(SmallFloat.intToByte4(length)), asked of Lucene.
@pytest.mark.parametrize(
    ("length", "kept"),
    [
        *((n, n) for n in (0, 1, 7, 8, 15, 16, 23, 24, 25, 38, 39, 40)),
        (41, 40),
        (42, 42),
        (55, 54),
        (56, 56),
        (59, 56),
        (60, 60),
        (88, 88),
        (95, 88),
        (100, 96),
        (152, 152),
        (183, 168),
        (1000, 984),
        (100_000, 98328),
    ],
)
def test_lengths_are_rounded_as_lucene_rounds_them(length, kept):
    assert lucene_length(np.array([length])).tolist() == [kept]


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
    from rare_assets.resources.retriever.elasticsearch import ElasticsearchRetriever

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


def test_the_files_are_an_index_of_bm25s(retriever, corpus, tmp_path):
    import bm25s

    retriever.sync(corpus.shards, corpus.read, Bm25())
    (state,) = (tmp_path / "index" / "states").iterdir()

    index = bm25s.BM25.load(state, mmap=True)

    numbers, scores = index.retrieve([["night", "moon"]], k=2, show_progress=False)
    hits = retriever.search(queries("moon night"), depth=2)
    assert [["cat", "dog", "moon", "star"][number] for number in numbers[0]] == ["moon", "star"]
    assert hits["doc_id"].to_list() == ["moon", "star"]
    assert hits["score"].to_list() == pytest.approx(scores[0].tolist())


def test_scores_equal_to_five_digits_are_ordered_by_id():
    scores = np.array([1.00001, 2.50000, 1.00004, 0.0, 2.50004, 2.5001], np.float32)

    def best(depth):
        return embedded._best(scores, depth)[0].tolist()

    assert best(9) == [5, 1, 4, 0, 2]
    assert best(2) == [5, 1]


def test_the_best_are_found_among_many(retriever):
    rng = np.random.default_rng(5)
    scores = np.round(rng.gamma(2, 2, 20_000), 2).astype(np.float32) * (rng.random(20_000) < 0.3)
    for depth in (1, 10, 100, 1000):
        numbers, values = embedded._best(scores, depth)
        expected = sorted(np.flatnonzero(scores), key=lambda n: (-float(f"{scores[n]:.4e}"), n))
        assert numbers.tolist() == expected[:depth]
        assert values.tolist() == scores[expected[:depth]].tolist()


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


def test_nothing_of_an_older_state_stays_on_disk(retriever, corpus, tmp_path):
    for number in range(3):
        corpus.put("sky", {"moon": f"The moon number {number}."})
        retriever.sync(corpus.shards, corpus.read, Bm25())

    assert len(folders(tmp_path / "index" / "states")) == 1
    assert len(folders(tmp_path / "index" / "shards")) == 2


@pytest.mark.parametrize("cut", [0, 1, None], ids=["whole", "torn", "gone"])
def test_a_damaged_vocabulary_does_no_harm(retriever, corpus, tmp_path, cut):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    vocabulary = tmp_path / "index" / "shards" / "vocabulary"
    if cut is None:
        vocabulary.unlink()
    elif cut:
        vocabulary.write_bytes(vocabulary.read_bytes() + "nigh\u00e9".encode()[:-1])
    corpus.put("sea", {"tide": "The tide rises, night after night."})

    retriever.sync(corpus.shards, corpus.read, Bm25())

    fresh = EmbeddedRetriever(str(tmp_path / "fresh"))
    fresh.sync(corpus.shards, corpus.read, Bm25())
    asked = queries("night rises", "tide", "chasing cats")
    assert retriever.search(asked, depth=9).equals(fresh.search(asked, depth=9))
    assert len(fresh.search(asked, depth=9)) == 6


def test_terms_of_documents_long_gone_are_forgotten(retriever, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_SPARE_TERMS", 10)
    sizes = []
    for number in range(8):
        texts = {"a": " ".join(f"t{number}x{i}" for i in range(20)), "b": f"moon t{number}x7"}
        corpus = Corpus(tmp_path / "documents", {"s": texts})
        retriever.sync(corpus.shards, corpus.read, Bm25())
        hits = retriever.search(queries(f"t{number}x7 moon", f"t{number - 1}x7"), depth=5)
        assert found(hits) == {"q1": ["b", "a"]}
        (state,) = (tmp_path / "index" / "states").iterdir()
        sizes.append(len(json.loads((state / "vocab.index.json").read_text())))
    assert sizes == [21, 41, 61, 21, 41, 61, 21, 41]


def test_an_opened_state_stays_readable_after_the_next_sync(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    reader = EmbeddedRetriever(str(tmp_path / "index"))
    before = reader.state()
    corpus.put("sky", {"sun": "The sun sets at night."})
    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
    assert reader.texts(["star", "sun"]).rows() == [("star", "Stars shine at night.")]
    assert reader.state() == retriever.state() != before
    assert found(reader.search(queries("night"), depth=5)) == {"q1": ["sun"]}


KILLED = """
import os, signal, sys
from pathlib import Path
from rare_assets.resources.retriever.embedded import EmbeddedRetriever
from rare_assets.resources.retriever.interface import Bm25
from rare_assets_tests.resources.retriever.corpus import Corpus

folder, stop = Path(sys.argv[1]), int(sys.argv[2])
steps = 0
def watch(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.link", "os.mkdir", "shutil.rmtree", "os.rmdir", "os.remove"):
        if str(folder / "index") in str(arguments[0]):
            steps += 1
            if steps == stop:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
corpus = Corpus(folder / "new", {
    "animals": {"cat": "The cat chased a mouse.", "dog": "Dogs chase cats."},
    "sky": {"sun": "The sun sets at night."},
})
EmbeddedRetriever(str(folder / "index")).sync(corpus.shards, corpus.read, Bm25())
print("done")
"""


def test_a_kill_at_any_step_leaves_the_old_index_or_the_new(retriever, corpus, tmp_path):
    new = Corpus(tmp_path / "new", {**SHARDS, "sky": {"sun": "The sun sets at night."}})
    asked = queries("night")
    outcomes = []
    # Every fifth step on a file of the index, up to one that is never reached.
    for step in range(1, 400, 5):
        retriever.sync(corpus.shards, corpus.read, Bm25())
        process = start(KILLED, tmp_path, step)
        output, _ = process.communicate(timeout=60)
        hits = found(EmbeddedRetriever(str(tmp_path / "index")).search(asked, depth=5))
        outcomes.append(hits["q1"])
        if output:
            assert process.returncode == 0
            break
        assert process.returncode == -signal.SIGKILL
        retriever.sync(new.shards, new.read, Bm25())
        assert found(retriever.search(asked, depth=5)) == {"q1": ["sun"]}
        assert len(folders(tmp_path / "index" / "states")) == 1
        assert len(folders(tmp_path / "index" / "shards")) == 2
    n_old = outcomes.count(["moon", "star"])
    assert n_old > 3
    assert outcomes == [["moon", "star"]] * n_old + [["sun"]] * (len(outcomes) - n_old)
    assert outcomes[-1] == ["sun"]


SYNC = """
import sys, time
from pathlib import Path
from rare_assets.resources.retriever.embedded import EmbeddedRetriever
from rare_assets.resources.retriever.interface import Bm25
from rare_assets_tests.resources.retriever.corpus import Corpus

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
    assert len(folders(tmp_path / "index" / "states")) == 1


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
from rare_assets.resources.retriever.embedded import EmbeddedRetriever

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
            assert {"data.csc.index.npy", "indices.csc.index.npy", "000000"} <= names


@pytest.mark.parametrize("shards", [{}, {"none": {}}, {"stops": {"d": "the of and"}}], ids=str)
def test_an_index_without_terms_finds_nothing(retriever, tmp_path, shards):
    corpus = Corpus(tmp_path / "documents", shards)
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert report.state == retriever.state()
    assert report.state.n_documents == sum(map(len, shards.values()))
    assert retriever.search(queries("the night", ""), depth=3).is_empty()
    pairs = queries("night").with_columns(doc_id=pl.lit("d"))
    assert retriever.score(pairs)["score"].to_list() == [0.0 if "stops" in shards else None]
    assert retriever.texts(["d"]).rows() == list(shards.get("stops", {}).items())


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
    monkeypatch.setattr(embedded, "LISTED_DUPLICATES", 2)
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
        (Bm25(analyzer="klingon"), r"analyzer is 'klingon'.*\['english'\]"),
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
    monkeypatch.setattr(embedded, "LIMIT", 3)
    with pytest.warns(UserWarning, match=r"4 passages .* ELASTICSEARCH_URL"):
        retriever.sync(corpus.shards, corpus.read, Bm25())
    assert found(retriever.search(queries("moon"), depth=1)) == {"q1": ["moon"]}


def test_an_index_of_another_format_is_built_anew(retriever, corpus, tmp_path):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    (tmp_path / "index" / "current.json").write_text('{"format": 0, "state": "old"}')

    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.state()
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert sorted(report.indexed_shards) == ["animals", "sky"]
    assert retriever.state() == report.state


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
