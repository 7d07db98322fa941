"""Storage keeps each table's shard whole, typed, findable, and tells what it was made from."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rare_assets_tests
from rare_assets.schemas import Documents, DocumentsRejects
from rare_assets.storage import parquet_files
from rare_assets.storage.footers import content_hash
from rare_assets.storage.tables import ParquetTables, TableMissing, file_name

STORED = Path(rare_assets_tests.__file__).parent / "stored" / "first_round" / "storage"


def documents(*texts: str) -> pl.DataFrame:
    return Documents.cast(
        pl.DataFrame(
            {
                "doc_id": [f"d{i}" for i in range(len(texts))],
                "text": texts,
                "title": None,
                "question": None,
                "scenario": None,
                "answer": None,
                "parent_id": [f"d{i}" for i in range(len(texts))],
                "passage": 1,
                "char_start": None,
                "char_end": None,
                "text_hash": [f"h-{text}" for text in texts],
                "source": [f"a.jsonl:{i + 1}" for i in range(len(texts))],
                "n_words": [len(text.split()) for text in texts],
            },
            schema_overrides={"doc_id": pl.String, "text": pl.String, "text_hash": pl.String},
        )
    )


@pytest.fixture
def tables(tmp_path):
    return ParquetTables(str(tmp_path / "storage"))


def test_rows_rejects_and_provenance_come_back_as_written(tables, tmp_path):
    rejects = DocumentsRejects.cast(
        pl.DataFrame({"file": ["a"], "row": [3], "reason": ["no_text"], "detail": [None]})
    )
    written = tables.write("documents", "a", documents("one", "two"), rejects, {"source": "v1"})
    assert_frame_equal(tables.scan("documents", "a").collect(), documents("one", "two"))
    assert_frame_equal(tables.scan_rejects("documents", "a").collect(), rejects)
    assert tables.provenance("documents", "a") == written
    assert written.made_from == {"source": "v1"}
    assert (written.n_rows, written.n_rejects) == (2, 1)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.parquet"))
    assert files == ["storage/documents/a.parquet", "storage/documents_rejects/a.parquet"]


def test_a_lazy_frame_is_stored_like_an_eager_one(tables):
    eager = tables.write("documents", "a", documents("one"))
    lazy = tables.write("documents", "b", documents("one").lazy())
    assert eager == lazy
    assert_frame_equal(tables.scan("documents", "b").collect(), documents("one"))


def test_content_hash_changes_with_the_content_and_with_nothing_else(tables):
    one = tables.write("documents", "a", documents("one", "two"), made_from={"x": "1"})
    again = tables.write("documents", "a", documents("one", "two"), made_from={"x": "2"})
    other = tables.write("documents", "a", documents("one", "three"))
    assert one.content_hash == again.content_hash != other.content_hash
    assert (
        content_hash(pl.DataFrame({"a": [1]}), ("a",)) == "e346432021b04179"
    )  # printf '{"a":1}\n' | sha256sum


def test_an_empty_shard_is_an_empty_table_with_the_columns(tables):
    tables.write("documents", "a", Documents.create_empty())
    assert tables.scan("documents", "a").collect().schema == Documents.create_empty().schema


@pytest.mark.parametrize("shard", ["..", "../evil", "/abs", "a/b", ".hidden", "c*[1]?", "ü b"])
def test_no_shard_key_leaves_its_folder(tables, shard):
    tables.write("documents", shard, documents("one"))
    folder = tables.root / "documents"
    assert tables.path("documents", shard).parent == folder
    assert [p.name for p in folder.iterdir()] == [f"{file_name(shard)}.parquet"]
    assert tables.scan("documents", shard).collect().height == 1


def test_different_keys_have_different_files():
    keys = ["a/b", "a%2Fb", ".a", "%2Ea", "a.b", "..", "a b"]
    assert len({file_name(key) for key in keys}) == len(keys)


def test_a_missing_shard_says_what_to_materialize(tables):
    with pytest.raises(
        TableMissing, match=r"questions/x\.parquet.*materialize questions for shard 'x'"
    ):
        tables.scan("questions", "x")
    assert tables.provenance("questions", "x") is None


def test_rows_that_do_not_fit_name_table_shard_and_column(tables):
    with pytest.raises(ValueError, match=r"documents, shard 'a': .*columns are missing: text_hash"):
        tables.write("documents", "a", documents("one").drop("text_hash"))
    with pytest.raises(ValueError, match=r"documents, shard 'a': rows do not fit.*'many'|\"many\""):
        tables.write("documents", "a", documents("one").with_columns(n_words=pl.lit("many")))


def test_a_failing_write_leaves_the_good_file(tables, tmp_path):
    tables.write("documents", "a", documents("one"))

    def explode(_):
        raise RuntimeError("in the middle")

    broken = (
        documents("two")
        .lazy()
        .with_columns(pl.col("title").map_batches(explode, return_dtype=pl.String))
    )
    with pytest.raises(Exception, match="in the middle"):
        tables.write("documents", "a", broken)
    assert tables.scan("documents", "a").collect()["text"].to_list() == ["one"]
    assert [p.name for p in (tmp_path / "storage/documents").iterdir()] == ["a.parquet"]


@pytest.mark.processes
def test_a_full_disk_leaves_the_good_file_and_no_rest(tables, tmp_path):
    """The write is tried in a process whose files may not pass 4 KiB, as on a full disk."""
    tables.write("documents", "a", documents("one"))
    code = f"""
import resource, signal, sys
import polars as pl
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.storage.test_tables import documents
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import random
words = [random.Random(i).randbytes(400).hex() for i in range(200)]
try:
    ParquetTables({str(tmp_path / "storage")!r}).write("documents", "a", documents(*words))
except Exception as error:
    print("refused:", type(error).__name__)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert "refused:" in run.stdout, run.stderr
    assert tables.scan("documents", "a").collect()["text"].to_list() == ["one"]
    assert [p.name for p in (tmp_path / "storage/documents").iterdir()] == ["a.parquet"]


def test_a_listing_leaves_out_what_is_gone_since_and_nothing_else(tables):
    """As what another process writes, which has another name until it is whole."""
    tables.write("documents", "a.jsonl", documents("one"))
    tables.path("documents", ".b.jsonl").with_name(".b.jsonl.parquet.0").symlink_to("gone")
    assert list(tables.stored_versions("documents")) == ["a.jsonl"]


def test_deleting_a_shard_removes_it_from_every_table_and_leaves_the_others(tables):
    for shard in ("a", "b"):
        tables.write("documents", shard, documents("one"))
    assert len(tables.delete("a")) == 2
    assert not tables.exists("documents", "a")
    assert tables.exists("documents", "b")
    assert tables.delete("a") == []


def test_an_object_store_holds_the_same_tables(s3_bucket):
    tables = ParquetTables(f"{s3_bucket}/storage")
    written = tables.write("documents", "a", documents("one"), made_from={"source": "v1"})
    assert_frame_equal(tables.scan("documents", "a").collect(), documents("one"))
    assert tables.provenance("documents", "a") == written
    assert not tables.exists("documents", "b")
    with pytest.raises(TableMissing):
        tables.scan("documents", "b")
    assert len(tables.delete("a")) == 2
    assert not tables.exists("documents", "a")


@pytest.fixture
def fetched(s3_bucket, monkeypatch):
    """Names of the objects that were fetched whole, in turn."""
    import s3fs

    names = []
    cat_file = s3fs.S3FileSystem.cat_file

    def noted(self, path, start=None, end=None, **options):
        if start is None:
            names.append(path.rsplit("/", 1)[-1])
        return cat_file(self, path, start=start, end=end, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", noted)
    return names


def test_a_small_table_of_an_object_store_is_fetched_once_until_it_is_replaced(s3_bucket, fetched):
    tables, other = (ParquetTables(f"{s3_bucket}/storage") for _ in range(2))
    tables.write("documents", "a", documents("one", "two"))
    before = tables.scan("documents", "a")
    for each in (tables, other):
        assert each.load("documents", "a").collect().height == 2
        assert each.scan("documents", "a").collect().height == 2
    assert fetched == ["a.parquet"]

    other.write("documents", "a", documents("three"))
    assert tables.load("documents", "a").collect()["text"].to_list() == ["three"]
    assert fetched == ["a.parquet"] * 2
    # What is being read stays what it was.
    assert before.collect().height == 2

    tables.path("documents", "a").unlink()
    for read in (tables.scan, tables.load):
        with pytest.raises(TableMissing):
            read("documents", "a")


def test_large_tables_of_an_object_store_are_not_held_and_no_more_than_there_is_room_for(
    s3_bucket, fetched, monkeypatch
):
    tables = ParquetTables(f"{s3_bucket}/storage")
    for shard in "abc":
        tables.write("documents", shard, documents(shard))
    size = tables.path("documents", "a").stat().st_size
    monkeypatch.setattr(parquet_files, "SMALL", size - 1)
    assert tables.load("documents", "a").collect()["text"].to_list() == ["a"]
    assert fetched == []

    monkeypatch.setattr(parquet_files, "SMALL", size)
    monkeypatch.setattr(parquet_files, "KEPT", 2 * size)
    for shard in "abcba":
        assert tables.scan("documents", shard).collect()["text"].to_list() == [shard]
    # At "c" there was no room for "a" any more, which was not used for longest.
    assert fetched == [f"{shard}.parquet" for shard in "abca"]


def test_columns_that_came_after_a_table_was_written_are_null_where_it_is_loaded():
    """The storage that is checked in was written before documents had a number of their passage."""
    stored = ParquetTables(str(STORED))
    shard = next((STORED / "documents").glob("*.parquet")).name.removesuffix(".parquet")
    loaded = stored.load("documents", shard).collect()
    assert loaded["passage"].null_count() == loaded.height > 0
    # Who scans is told of what the file has.
    assert "passage" not in stored.scan("documents", shard).collect_schema()
