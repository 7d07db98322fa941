"""Pages and files in a folder: whole or not at all, and nothing of somebody else's overwritten."""

import errno
from pathlib import Path

import pytest

from rare_assets.exports.folder import PAGE_MARK, OutFolder
from rare_assets.exports.options import ExportError

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
