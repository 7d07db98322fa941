"""Scans of the source against the scan before and the registered partitions."""

import os

import fsspec
import polars as pl
import pytest

from rare_assets.corpus.formats import SourceError
from rare_assets.corpus.scan import known_shards, scan_source
from rare_assets.corpus.source import CorpusSource
from rare_assets.resources.configurable import Storage
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import write_jsonl


@pytest.fixture
def graph(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 5))
    return graph


def test_the_first_scan_finds_every_shard_new_and_registers_none(graph):
    scan = scan_source(
        graph.corpus.source(), graph.tables, registered_shards(graph.instance, UNNAMED)
    )
    assert [(shard.key, shard.n_rows) for shard in scan.shards] == [("a.jsonl", 3), ("b.jsonl", 2)]
    assert (scan.new, scan.changed, scan.gone) == (["a.jsonl", "b.jsonl"], [], [])
    assert graph.shards == []
    assert known_shards(graph.tables) == scan.shards


def test_a_scan_tells_new_changed_and_gone_files_apart(graph):
    graph.register()
    write_jsonl(graph.source / "a.jsonl", range(4))
    write_jsonl(graph.source / "c.jsonl", range(5, 6))
    (graph.source / "b.jsonl").unlink()
    scan = graph.register()
    assert (scan.new, scan.changed, scan.gone) == (["c.jsonl"], ["a.jsonl"], ["b.jsonl"])
    assert graph.shards == ["a.jsonl", "b.jsonl", "c.jsonl"]
    again = graph.register()
    assert (again.new, again.changed, again.gone) == ([], [], ["b.jsonl"])


def test_a_scan_that_is_not_remembered_leaves_changes_for_the_next_one(graph):
    graph.register()
    write_jsonl(graph.source / "a.jsonl", range(4))
    for remember, changed in ((False, ["a.jsonl"]), (True, ["a.jsonl"]), (True, [])):
        scan = scan_source(
            graph.corpus.source(),
            graph.tables,
            registered_shards(graph.instance, UNNAMED),
            remember=remember,
        )
        assert scan.changed == changed


def test_who_watches_hides_no_change_from_who_makes(graph):
    graph.register()
    write_jsonl(graph.source / "a.jsonl", range(4))
    for watching, changed in ((True, ["a.jsonl"]), (True, ["a.jsonl"]), (False, ["a.jsonl"])):
        scan = scan_source(
            graph.corpus.source(),
            graph.tables,
            registered_shards(graph.instance, UNNAMED),
            watching=watching,
        )
        assert scan.changed == changed
        # What was cut is kept all the same.
        assert known_shards(graph.tables) == scan.shards
    assert graph.register().changed == []


def test_a_scan_stored_by_an_earlier_version_is_read(graph):
    graph.register()
    path = graph.tables.root / "corpus_files" / "shards.parquet"
    pl.read_parquet(path).drop("noted").write_parquet(path)
    write_jsonl(graph.source / "a.jsonl", range(4))
    assert graph.register().changed == ["a.jsonl"]


def test_files_that_have_not_changed_are_not_opened(graph):
    graph.register()
    path = graph.source / "a.jsonl"
    before = path.stat()
    # As many bytes of the same age, but of one row: a scan that looked inside would see it.
    path.write_text(path.read_text().replace("\n", " "))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert graph.register().shards[0].n_rows == 3
    os.utime(path)
    assert graph.register().shards[0].n_rows == 1


def test_a_file_longer_than_a_shard_makes_several_that_stay_as_it_grows(graph):
    corpus = graph.corpus.model_copy(update={"rows_per_shard": 2})
    graph.corpus = corpus
    first = graph.register()
    keys = [shard.key for shard in first.shards]
    assert [shard.n_rows for shard in first.shards] == [2, 1, 2]
    write_jsonl(graph.source / "a.jsonl", range(5))
    grown = graph.register()
    assert [shard.key for shard in grown.shards if shard.file == "a.jsonl"][:2] == keys[:2]
    assert len(grown.new) == 1


def test_a_source_that_is_gone_is_an_error_that_changes_nothing(graph):
    graph.register()
    known = known_shards(graph.tables)
    for path in graph.source.iterdir():
        path.unlink()
    with pytest.raises(SourceError):
        graph.register()
    assert known_shards(graph.tables) == known
    assert graph.instance.get_dynamic_partitions(UNNAMED.partitions_name) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("source", "storage", "is_held"),
    [
        ("corpus", "corpus/store", True),
        ("corpus", "corpus", True),
        ("corpus/", "linked/store", True),
        ("corpus", "corpus/.store", False),
        ("corpus", "corpus/_private/store", False),
        ("corpus", "corpus2/store", False),
        ("corpus/part", "corpus", False),
        ("corpus/*.jsonl", "corpus/store", False),
        ("memory://corpus", "memory://corpus/store", True),
        ("memory://corpus", "corpus/store", False),
    ],
)
def test_a_storage_in_the_source_is_refused_before_its_tables_are_documents(
    tmp_path, source, storage, is_held
):
    for name in ("a.jsonl", "part/b.jsonl"):
        write_jsonl(tmp_path / "corpus" / name, range(3))
    (tmp_path / "linked").symlink_to(tmp_path / "corpus")
    with fsspec.open("memory://corpus/a.jsonl", "w") as file:
        file.write('{"text": "a"}')
    source, storage = (url if ":" in url else f"{tmp_path}/{url}" for url in (source, storage))
    corpus = CorpusSource(source, 100)
    if is_held:
        with pytest.raises(SourceError, match=r"RARE_STORAGE .* lies in this source"):
            scan_source(corpus, Storage(root=storage).tables(), [], remember=False)
    else:
        scan_source(corpus, Storage(root=storage).tables(), [], remember=False)
