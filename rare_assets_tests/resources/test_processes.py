"""How processes that make runs are started."""

import gc
import importlib
import os
import socket
import sys
import tempfile

import pytest

from rare_assets.resources.processes import imports_uncollected, process_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux alone")
# Of a folder for temporary files, with room for what multiprocessing adds to it.
LONGEST = 75


def folder_of(length, base):
    return f"{base}/".ljust(length, "x")


@pytest.mark.parametrize(("length", "method"), [(LONGEST, "forkserver"), (LONGEST + 1, "spawn")])
def test_a_folder_whose_name_leaves_no_room_for_a_socket_is_done_without(
    monkeypatch, length, method
):
    monkeypatch.setattr(tempfile, "tempdir", folder_of(length, "/tmp"))
    assert process_context().get_start_method() == method


def test_where_no_temporary_file_can_be_made_nothing_is_forked(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    assert process_context().get_start_method() == "spawn"


def test_a_socket_has_room_in_the_longest_folder_and_in_none_longer():
    with tempfile.TemporaryDirectory() as base:
        folder = f"{folder_of(LONGEST, base)}/pymp-12345678"
        os.makedirs(folder)
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
            one.bind(f"{folder}/listener-12345678")
            with pytest.raises(OSError, match="too long"):
                other.bind(f"{folder}/listener-123456789")


@pytest.fixture
def nothing_frozen():
    """What is collected as in a new process; as before afterwards."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Names of two modules that hold a hundred lists each and were never imported."""
    names = [f"{tmp_path.name}_{number}" for number in range(2)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("made = [[] for _ in range(100)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_what_is_imported_is_collected_neither_then_nor_later(nothing_frozen, modules):
    before = gc.get_freeze_count()
    for name in modules:
        with imports_uncollected():
            assert not gc.isenabled()
            importlib.import_module(name)
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + 100
        before = gc.get_freeze_count()

    # What is made where nothing is imported any more is garbage one day.
    with imports_uncollected():
        made = [[] for _ in range(1000)]
        importlib.import_module(modules[0])
    assert gc.get_freeze_count() < before + len(made)


def test_after_an_import_that_fails_garbage_is_collected_again(nothing_frozen):
    with pytest.raises(ImportError), imports_uncollected():
        raise ImportError("no such module")
    assert gc.isenabled()
