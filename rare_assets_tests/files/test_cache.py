"""The one folder that is written to beside storage and DAGSTER_HOME."""

import ast
import tempfile
from pathlib import Path

import pytest

import rare_assets
from rare_assets.files.cache import cache_folder, temporary_folder
from rare_assets.files.stored_bytes import StorageError
from rare_assets.retriever.embedded.folder import IndexFolder

PACKAGE = Path(rare_assets.__file__).parent


def test_without_rare_cache_it_is_the_users_cache_and_the_systems_temporary_folder(
    nothing_set, tmp_path
):
    nothing_set.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rare_assets"
    assert temporary_folder() == tempfile.gettempdir()


def test_with_rare_cache_all_lies_below_it(nothing_set, tmp_path):
    nothing_set.setenv("RARE_CACHE", str(tmp_path / "cache"))
    assert IndexFolder("s3://bucket/index").root.parent == tmp_path / "cache" / "index"
    assert temporary_folder() == str(tmp_path / "cache" / "tmp")
    with tempfile.TemporaryFile(dir=temporary_folder()) as file:
        assert file.write(b"it is there") == 11


def test_a_rare_cache_that_can_not_be_made_is_named(nothing_set, tmp_path):
    (tmp_path / "file").touch()
    nothing_set.setenv("RARE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"RARE_CACHE .*/file/cache can't be used \(Not a dir"):
        temporary_folder()


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_module_makes_temporary_files_elsewhere(path):
    """Each call of tempfile names the folder, and only `files.cache` asks for the system's."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("tempfile.")
    ]
    for call in calls:
        if path != PACKAGE / "files" / "cache.py":
            where = {each.arg: ast.unparse(each.value) for each in call.keywords}.get("dir")
            assert where == "temporary_folder()", f"{path}:{call.lineno}"
