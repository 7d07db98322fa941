"""A damaged embedded index is never searched: it is told, and the next sync makes it anew."""

import errno
import json
import os
import subprocess
import sys

import pytest

from rare_assets.files.stored_bytes import StorageError
from rare_assets.retriever.embedded import folder as embedded_folder
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.embedded.manifest import SEGMENT_FILES, STATE_FILES
from rare_assets.retriever.interface import Bm25, IndexDamaged
from rare_assets_tests.support.retrieved_corpus import Corpus, found, queries

SHARDS = {
    "animals": {"cat": "The cat chased a mouse.", "dog": "Dogs chase cats."},
    "sky": {"moon": "The moon rises at night.", "star": "Stars shine at night."},
}


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    "one bit": flip,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path / "documents", SHARDS)


@pytest.fixture
def retriever(tmp_path, corpus):
    retriever = EmbeddedRetriever(str(tmp_path / "index"))
    retriever.sync(corpus.shards, corpus.read, Bm25())
    yield retriever
    retriever.close()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*STATE_FILES, *SEGMENT_FILES])
def test_damage_is_told_and_mended_by_the_next_sync(retriever, corpus, tmp_path, name, damage):
    (file,) = (tmp_path / "index").rglob(name)
    content = file.read_bytes()
    damaged = DAMAGES[damage](content)
    if damaged == content:
        pytest.skip("the file holds no other bytes to begin with")
    file.write_bytes(damaged)
    for attempt in (
        retriever.state,
        lambda: retriever.search(queries("night"), depth=5),
        lambda: retriever.texts(["cat"]),
    ):
        retriever.close()
        with pytest.raises(IndexDamaged, match=rf"{name}.*Materialize corpus_index"):
            attempt()
    said = []
    report = retriever.sync(corpus.shards, corpus.read, Bm25(), said.append)
    assert any("is damaged" in line and name in line for line in said)
    assert sorted(report.indexed_shards) == ["animals", "sky"]
    assert retriever.state() == report.state
    assert found(retriever.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"[]", b"{}", b'{"format": 3}'])
def test_a_pointer_that_says_nothing_is_told_and_mended(retriever, corpus, tmp_path, content):
    (tmp_path / "index" / "current.json").write_bytes(content)
    with pytest.raises(IndexDamaged, match=r"current\.json"):
        retriever.state()
    report = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert sorted(report.indexed_shards) == ["animals", "sky"]
    assert retriever.state() == report.state


def written_by_the_version_before(index):
    """Take from the index what that version did not write."""
    pointer = json.loads((index / "current.json").read_text())
    del pointer["checksum"]
    (index / "current.json").write_text(json.dumps(pointer))
    state = index / "states" / pointer["state"] / "state.json"
    manifest = json.loads(state.read_text())
    del manifest["sums"]
    state.write_text(json.dumps(manifest))


def test_an_index_without_checksums_is_read_and_gets_them_with_its_next_change(
    retriever, corpus, tmp_path
):
    before = retriever.state()
    index = tmp_path / "index"
    written_by_the_version_before(index)
    assert retriever.state() == before
    assert found(retriever.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}
    assert retriever.sync(corpus.shards, corpus.read, Bm25()).indexed_shards == []

    # k1 changes the state alone: the segment stays, and is summed up all the same.
    retriever.sync(corpus.shards, corpus.read, Bm25(k1=1.2))
    (texts,) = index.rglob("texts")
    texts.write_bytes(flip(texts.read_bytes()))
    with pytest.raises(IndexDamaged, match="texts"):
        retriever.state()


@pytest.mark.parametrize("damage", ["emptied", "cut", "longer"])
@pytest.mark.parametrize("name", sorted({*STATE_FILES, *SEGMENT_FILES} - {"state.json", "pairs"}))
def test_lengths_that_contradict_each_other_are_damage_without_checksums(
    retriever, corpus, tmp_path, name, damage
):
    index = tmp_path / "index"
    written_by_the_version_before(index)
    (file,) = index.rglob(name)
    content = file.read_bytes()
    damaged = DAMAGES[damage](content)
    # Arrow files and arrays say themselves where they end.
    if name.endswith((".arrow", ".npy")) and damage == "longer":
        pytest.skip("bytes behind the end change nothing")
    if name == "duplicates.arrow":
        pytest.skip("no search reads it")
    file.write_bytes(damaged)
    retriever.close()
    with pytest.raises(IndexDamaged, match="corpus_index"):
        retriever.search(queries("night"), depth=5)
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert found(retriever.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}


def test_a_file_is_read_once_in_a_process_for_its_checksum(retriever, tmp_path, monkeypatch):
    summed = []
    checksum = embedded_folder.checksum

    def counted(file):
        summed.append(os.path.basename(file.name))
        return checksum(file)

    monkeypatch.setattr(embedded_folder, "checksum", counted)
    for _ in range(3):
        retriever.state()
    assert summed == []  # the sync of this process has read what it wrote
    embedded_folder._seen.clear()
    for _ in range(3):
        retriever.state()
    assert sorted(summed) == sorted({*STATE_FILES, *SEGMENT_FILES} - {"state.json"})


def test_everything_is_on_the_disk_before_it_is_named(corpus, tmp_path, monkeypatch):
    synced = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle)),
    )
    monkeypatch.setattr(
        os,
        "replace",
        lambda source, target: (synced.append(f"named {target}"), replace(source, target)),
    )
    index = tmp_path / "index"
    EmbeddedRetriever(str(index)).sync(corpus.shards, corpus.read, Bm25())
    named = synced.index(f"named {index / 'current.json'}")
    needed = [path for path in index.rglob("*") if path.name not in ("current.json", "sync.lock")]
    assert {str(path) for path in needed} <= set(synced[:named])
    assert str(index) in synced[named:]


def test_a_cached_copy_that_is_damaged_is_fetched_again(s3_bucket, corpus, tmp_path):
    url = f"{s3_bucket}/index"
    writer = EmbeddedRetriever(url, cache=str(tmp_path / "writer"))
    writer.sync(corpus.shards, corpus.read, Bm25())
    reader = EmbeddedRetriever(url, cache=str(tmp_path / "reader"))
    expected = reader.search(queries("night"), depth=5)
    for name, damage in (
        ("terms", "emptied"),
        ("rows", "one bit"),
        ("state.json", "cut"),
        ("current.json", "emptied"),
    ):
        (file,) = (tmp_path / "reader").rglob(name)
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
        reader.close()
        assert reader.search(queries("night"), depth=5).equals(expected), name


def test_damage_in_the_object_store_is_told_and_mended(s3_bucket, corpus, tmp_path):
    import s3fs

    url = f"{s3_bucket}/index"
    writer = EmbeddedRetriever(url, cache=str(tmp_path / "writer"))
    writer.sync(corpus.shards, corpus.read, Bm25())
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    for pattern in ("segments/*/rows", "states/*/state.json", "current.json"):
        (path,) = filesystem.glob(f"{url.removeprefix('s3://')}/{pattern}")
        filesystem.pipe_file(path, flip(filesystem.cat_file(path)))
        other = EmbeddedRetriever(url, cache=str(tmp_path / pattern.replace("/", "-")))
        with pytest.raises(IndexDamaged, match="corpus_index"):
            other.state()
        report = other.sync(corpus.shards, corpus.read, Bm25())
        assert sorted(report.indexed_shards) == ["animals", "sky"]
        reader = EmbeddedRetriever(url, cache=str(tmp_path / "reader"))
        assert found(reader.search(queries("night"), depth=5)) == {"q1": ["moon", "star"]}


FULL = """
import resource, signal, sys
from pathlib import Path
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.interface import Bm25
from rare_assets.files.stored_bytes import StorageError
from rare_assets_tests.support.retrieved_corpus import Corpus
folder = Path(sys.argv[1])
corpus = Corpus(folder / "documents", {"a": {f"d{i}": f"number {i} " * 20 for i in range(500)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (512, 2_048, 8_192, 16_384, 32_768, 1 << 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        EmbeddedRetriever(str(folder / "index")).sync(corpus.shards, corpus.read, Bm25())
        print("synced")
        break
    except StorageError as error:
        print(error)
"""


def test_a_full_disk_is_told_wherever_it_meets_a_sync(retriever, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    *refused, last = run.stdout.splitlines()
    assert last == "synced", run.stderr
    assert len(refused) >= 3
    for line in refused:
        assert os.strerror(errno.EFBIG) in line
        assert "make room" in line
        assert str(tmp_path / "index") in line


def test_a_folder_that_is_a_file_is_told(corpus, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    inside = EmbeddedRetriever(str(tmp_path / "file" / "index"))
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        inside.sync(corpus.shards, corpus.read, Bm25())
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        inside.state()
