"""A storage that can't be read or written is an error, in words; only what is not found is missing."""

import errno
import json
import os
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import polars as pl
import pytest

from rare_assets.files.stored_bytes import StorageDamaged, StorageError, explained
from rare_assets.storage import footers, parquet_files
from rare_assets.storage.footers import FOOTER_KEY
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing
from rare_assets.text.shown_url import shown
from rare_assets_tests.storage.test_tables import documents
from rare_assets_tests.support.gate import Gate
from rare_assets_tests.support.s3_server import CREDENTIALS
from rare_assets_tests.support.small_disk import remount, small_disk


@pytest.fixture
def tables(tmp_path):
    tables = ParquetTables(str(tmp_path / "storage"))
    tables.write("documents", "a", documents("one", "two"), made_from={"source": "v1"})
    return tables


@pytest.fixture
def faulty_store(monkeypatch):
    """Storage root on an S3 endpoint that answers every request with `status`; 0: it is closed."""
    import s3fs

    class Handler(BaseHTTPRequestHandler):
        status = 503

        def answer(self):
            body = b"" if self.command == "HEAD" else b"<Error><Code>Oops</Code></Error>"
            self.send_response(Handler.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    # As a user would who does not want to wait for an endpoint that does not answer.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(parquet_files, "POLARS_OPTIONS", {"max_retries": 0})
    s3fs.S3FileSystem.clear_instance_cache()

    def root(status):
        Handler.status = status
        if not status:
            server.shutdown()
            server.server_close()
        return "s3://rare-bucket/storage"

    yield root
    server.shutdown()
    server.server_close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("status", [0, 400, 403, 500, 503])
def test_a_store_that_does_not_answer_is_never_a_missing_table(faulty_store, status):
    tables = ParquetTables(faulty_store(status))
    for ask in (
        lambda: tables.provenance("documents", "a"),
        lambda: tables.exists("documents", "a"),
        lambda: tables.scan("documents", "a"),
        lambda: tables.load("documents", "a"),
        lambda: tables.delete("a"),
        lambda: tables.read_file(tables.root / "corpus_files" / "shards.parquet"),
        lambda: tables.write("documents", "a", documents("one")),
    ):
        with pytest.raises(StorageError, match="s3://rare-bucket/storage/") as caught:
            ask()
        assert not isinstance(caught.value, StorageDamaged)


@pytest.mark.parametrize("status", [0, 503])
def test_a_store_that_is_away_for_a_while_is_waited_for(s3_bucket, monkeypatch, status):
    """That refuses connections, or answers with errors of its own."""
    import s3fs

    written = ParquetTables(f"{s3_bucket}/storage")
    written.write("documents", "a", documents("one"), made_from={"source": "v1"})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Gate(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        tables = ParquetTables(f"{s3_bucket}/storage")
        for read in (
            lambda: tables.provenance("documents", "a").n_rows,
            lambda: tables.scan("documents", "a").collect().height,
            lambda: tables.write("documents", "a", documents("one")).n_rows,
        ):
            with ThreadPoolExecutor(1) as thread:
                with gate.shut(status):
                    reading = thread.submit(read)
                    while not gate.refused and not reading.done():
                        time.sleep(0.01)
                assert gate.refused
                gate.refused = 0
                assert reading.result() == 1


def test_a_bucket_that_is_not_there_is_never_a_missing_table(s3_bucket):
    tables = ParquetTables("s3://no-such-bucket/storage")
    for ask in (tables.provenance, tables.exists, tables.scan, tables.load):
        with pytest.raises(StorageError, match="There is no s3://no-such-bucket"):
            ask("documents", "a")
    assert ParquetTables(f"{s3_bucket}/storage").provenance("documents", "a") is None


def test_a_file_or_folder_in_the_wrong_place_is_never_a_missing_table(tables, tmp_path):
    (tmp_path / "storage" / "questions").write_text("a file")
    (tmp_path / "storage" / "documents" / "b.parquet").mkdir()
    loop = tmp_path / "storage" / "documents" / "c.parquet"
    loop.symlink_to(loop)
    for table, shard in (("questions", "a"), ("documents", "b"), ("documents", "c")):
        for ask in (tables.provenance, tables.load):
            with pytest.raises(StorageError, match=f"{table}/{shard}"):
                ask(table, shard)
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        tables.write("questions", "a", pl.DataFrame(schema=_questions()))
    assert tables.provenance("documents", "missing") is None


def _questions():
    from rare_assets.schemas import Questions

    return Questions.create_empty().schema


def test_another_user_is_told_who_may_not_read_or_write():
    if os.getuid():
        pytest.skip("needs root, to become another user")
    # A folder of its own: those of pytest are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        tables = ParquetTables(f"{folder}/storage")
        tables.write("documents", "a", documents("one"))
        tables.path("documents", "a").chmod(0o600)
        os.seteuid(65534)
        try:
            for what, ask in (
                ("read", lambda: tables.provenance("documents", "a")),
                ("read", lambda: tables.load("documents", "a")),
                ("written", lambda: tables.write("documents", "a", documents("three"))),
            ):
                with pytest.raises(StorageError, match=f"be {what}: {os.strerror(errno.EACCES)}"):
                    ask()
        finally:
            os.seteuid(0)
        assert tables.load("documents", "a").collect()["text"].to_list() == ["one"]


def damaged_copies(content, rng, n=150):
    """The file with one bit flipped, anywhere."""
    for _ in range(n):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_no_flipped_bit_goes_unnoticed(tables):
    path = tables.path("documents", "a")
    tables.write("documents", "a", documents(*(f"text number {i}" for i in range(300))))
    content = path.read_bytes()
    for damaged in damaged_copies(content, random.Random(1)):
        path.write_bytes(damaged)
        with pytest.raises(TableDamaged, match=r"documents/a\.parquet is damaged.*Materialize doc"):
            tables.load("documents", "a")
        # From now on whoever looks at the footer alone is told, too.
        with pytest.raises(TableDamaged):
            tables.provenance("documents", "a")
        assert tables.provenance_if_whole("documents", "a") is None
    tables.write("documents", "a", documents("mended"))
    assert tables.load("documents", "a").collect()["text"].to_list() == ["mended"]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1PAR1PAR1", b"garbage" * 100])
def test_a_footer_that_is_no_footer_is_damage_and_no_missing_table(tables, damage):
    path = tables.path("documents", "a")
    whole = path.read_bytes()
    for content in (damage, whole[: len(whole) // 2] + damage, bytes(len(whole))):
        path.write_bytes(content)
        for ask in (tables.provenance, tables.load):
            with pytest.raises(TableDamaged, match="shard 'a' again"):
                ask("documents", "a")


def test_a_file_of_somebody_else_is_no_missing_table(tables):
    documents("one").write_parquet(tables.path("documents", "a"))
    with pytest.raises(TableDamaged, match="does not say that rare_assets wrote it"):
        tables.provenance("documents", "a")


def written_by_the_version_before(tables, rows):
    """A table with a footer that holds no checksum."""
    written = tables.write("documents", "a", rows, made_from={"source": "v1"})
    path = tables.path("documents", "a")
    footer = {FOOTER_KEY: json.dumps(written._asdict())}
    rows.lazy().sink_parquet(str(path), metadata=footer)
    documents().clear().write_parquet(tables.rejects_path("documents", "a"))
    return written


def test_a_table_without_a_checksum_is_read_and_its_rows_compared_with_their_hash(tables):
    rows = documents("one", "two")
    written = written_by_the_version_before(tables, rows)
    assert tables.provenance("documents", "a") == written
    assert tables.load("documents", "a").collect().equals(rows)
    assert tables.load_rejects("documents", "a").collect().is_empty()

    path = tables.path("documents", "a")
    other = rows.with_columns(doc_id=pl.lit("another"))
    other.lazy().sink_parquet(str(path), metadata={FOOTER_KEY: json.dumps(written._asdict())})
    with pytest.raises(TableDamaged, match="do not have the hash"):
        tables.load("documents", "a")


def test_damage_in_an_object_store_is_marked_over_there(s3_bucket):
    tables = ParquetTables(f"{s3_bucket}/storage")
    tables.write("documents", "a", documents("one", "two"))
    assert tables.load("documents", "a").collect().height == 2
    path = tables.path("documents", "a")
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(TableDamaged):
        tables.load("documents", "a")
    with pytest.raises(TableDamaged, match="found damaged before"):
        ParquetTables(f"{s3_bucket}/storage").provenance("documents", "a")
    path.write_bytes(b"")
    for ask in (tables.provenance, tables.load):
        with pytest.raises(TableDamaged):
            ask("documents", "a")


def test_a_large_footer_is_read_whole(tables, monkeypatch):
    monkeypatch.setattr(footers, "TAIL", 64)
    tables.write("documents", "a", documents("one"), made_from={"source": "v" * 1000})
    assert tables.provenance("documents", "a").made_from == {"source": "v" * 1000}
    assert tables.load("documents", "a").collect().height == 1


def test_bare_files_are_verified(tables):
    path = tables.root / "corpus_files" / "shards.parquet"
    tables.write_file(pl.DataFrame({"key": ["a"]}), path)
    assert tables.read_file(path).to_dicts() == [{"key": "a"}]
    path.write_bytes(path.read_bytes().replace(b"key", b"kez"))
    with pytest.raises(StorageDamaged, match=r"shards\.parquet is damaged"):
        tables.read_file(path)
    pl.DataFrame({"key": ["b"]}).write_parquet(path)  # as earlier versions wrote it
    assert tables.read_file(path).to_dicts() == [{"key": "b"}]
    with pytest.raises(FileNotFoundError):
        tables.read_file(tables.root / "corpus_files" / "other.parquet")


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        tables = ParquetTables(str(disk))
        tables.write("documents", "a", documents("one"))
        words = [random.Random(i).randbytes(400).hex() for i in range(300)]
        with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC) + ".*make room"):
            tables.write("documents", "a", documents(*words))
        assert tables.load("documents", "a").collect()["text"].to_list() == ["one"]
        assert sorted(p.name for p in (disk / "documents").iterdir()) == ["a.parquet"]

        remount(disk, "ro")
        with pytest.raises(StorageError, match=os.strerror(errno.EROFS)):
            tables.write("documents", "a", documents("two"))
        assert tables.load("documents", "a").collect()["text"].to_list() == ["one"]


@pytest.mark.parametrize("url", ["s3://bucket/rare", "nope://somewhere"])
def test_a_url_without_its_package_says_what_to_install(url, monkeypatch):
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    for protocol in ("s3", "s3a"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    hint = "rare-assets\\[s3\\]" if url.startswith("s3") else "nope://"
    with pytest.raises(StorageError, match=hint):
        ParquetTables(url)


def test_no_secret_of_a_url_is_shown():
    url = "s3://key:SECRET@bucket/rare?sig=SECRET"
    assert shown(url) == "s3://bucket/rare"
    for what in ("read", "write"):
        assert "SECRET" not in explained(url, what, OSError(errno.EIO, "no"))


def test_missing_is_missing(tables):
    with pytest.raises(TableMissing, match="materialize documents for shard 'b' first"):
        tables.load("documents", "b")
    assert tables.provenance("documents", "b") is None
    assert not tables.exists("documents", "b")
