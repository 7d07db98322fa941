"""Pages and files in a folder: whole or not at all, and nothing of somebody else's overwritten."""

import errno
import os
import time
from pathlib import Path

import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rare_assets.exports.folder import MARKER, PAGE_MARK, OutFolder
from rare_assets.exports.options import ExportError
from rare_assets.files.stored_bytes import StorageError

READ = r"nothing was changed; run again once the storage can be read"
WRITTEN = r"what is stored stays; run again once the storage can be written"
OURS = f"<html>{PAGE_MARK}report</title></html>"


def test_a_page_takes_the_place_of_a_page_and_of_nothing_else(tmp_path):
    folder = OutFolder(str(tmp_path))
    folder.write_page("r.html", OURS)
    folder.write_page("r.html", OURS.replace("report", "pilot"))
    assert (tmp_path / "r.html").read_text().count("pilot") == 1
    (tmp_path / "mine.html").write_text("<title>Mine</title>")
    with pytest.raises(ExportError, match="was not written by rare-assets"):
        folder.write_page("mine.html", OURS)
    assert (tmp_path / "mine.html").read_text() == "<title>Mine</title>"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ExportError, match="can't be written"):
        folder.write_page("folder.html", OURS)


def test_a_full_disk_leaves_the_page_before_and_no_rest(tmp_path, monkeypatch):
    folder = OutFolder(str(tmp_path))
    folder.write_page("r.html", OURS)
    whole = Path.write_text

    def half(path, text, **how):
        whole(path, text[:9], **how)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ExportError, match=r"No space left on device.*make room"):
        folder.write_page("r.html", OURS.replace("report", "pilot"))
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == OURS


def test_what_a_killed_export_was_writing_goes_a_day_after(tmp_path):
    rests = [
        f"messages/train/.a.jsonl.jsonl.{'0' * 32}",
        f"manifest/beir/.a.jsonl.json.{'9' * 32}",
        f".splits.parquet.{'a' * 32}.17",
    ]
    others = [
        "messages/train/a.jsonl.jsonl",
        f"messages/train/a.jsonl.jsonl.{'0' * 32}",
        f"messages/train/.a.jsonl.jsonl.{'0' * 31}",
        f"messages/train/.a.png.{'0' * 32}",
        f".cache/.a.jsonl.{'0' * 32}",
    ]
    folder = OutFolder(str(tmp_path))
    for hours, live in ((30, False), (1, True)):
        for name in rests + others:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, times=(0, time.time() - hours * 3600))
        folder.remove_leftovers()
        there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert there == {*others, *(rests if live else ())}


def test_a_claim_that_was_broken_off_is_taken_up_again(tmp_path):
    manifest = tmp_path / "manifest"
    manifest.mkdir()
    (manifest / f".export.json.{'0' * 32}").touch()
    OutFolder(str(tmp_path)).claim()
    assert (tmp_path / MARKER).exists()
    (tmp_path / MARKER).unlink()
    (manifest / "mine.json").touch()
    with pytest.raises(ExportError, match=r"holds something else \(manifest\)"):
        OutFolder(str(tmp_path)).claim()


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        (OutFolder.claim, READ),
        (lambda folder: folder.names("manifest"), READ),
        (lambda folder: folder.sizes("manifest"), READ),
        (lambda folder: folder.read_json(MARKER), READ),
        (lambda folder: folder.require_bytes(MARKER), READ),
        (lambda folder: folder.write_text(MARKER, "{}"), WRITTEN),
        (lambda folder: folder.require_page("r.html"), WRITTEN),
        (lambda folder: folder.remove(MARKER), WRITTEN),
    ],
)
def test_a_store_that_is_away_is_a_sentence(monkeypatch, use, hint):
    def away(*_, **__):
        raise RuntimeError("Could not connect to the endpoint URL")

    folder = OutFolder("memory://bucket/out")
    for name in ("exists", "info", "ls", "isfile", "open", "cat_file", "put_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, away)
    with pytest.raises(StorageError) as error:
        use(folder)
    assert str(error.value).startswith("memory://")
    assert f": Could not connect to the endpoint URL ({hint})." in str(error.value)


def test_neither_messages_nor_the_name_show_a_password():
    folder = OutFolder("http://user:secretpw@127.0.0.1:9/out?token=secretpw")
    assert str(folder) == "http://127.0.0.1:9/out"
    with pytest.raises(
        StorageError, match=r"http://127\.0\.0\.1:9/out.* can't be written"
    ) as error:
        folder.claim()
    assert "secretpw" not in str(error.value)
    with pytest.raises(StorageError, match=r"^nope://bucket/out can't be opened: ") as error:
        OutFolder("nope://user:secretpw@bucket/out")
    assert "secretpw" not in str(error.value)


def test_a_parquet_file_that_is_gone_or_damaged_is_named(tmp_path):
    folder = OutFolder(str(tmp_path))
    with pytest.raises(ExportError, match=rf"^{tmp_path}/a\.parquet is gone\. Export again"):
        folder.scan("a.parquet")
    (tmp_path / "a.parquet").touch()
    with pytest.raises(ExportError, match=rf"^{tmp_path}/a\.parquet is damaged: .*\. Remove it,"):
        folder.scan("a.parquet")
    pl.DataFrame({"row": [1]}).write_parquet(tmp_path / "a.parquet")
    assert folder.scan("a.parquet").collect().to_dicts() == [{"row": 1}]
