"""How commands end and print where this machine has less than they expect."""

import errno
import json
import os

import click
import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.command.ending import files_error, one_message
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import MODEL
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.small_disk import fill, small_disk


@pytest.fixture
def folder(nothing_set, tmp_path):
    nothing_set.chdir(tmp_path)
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_a_terminal_does_not_have_end_no_command(folder, nothing_set, encoding):
    (folder / "corpus").mkdir()
    (folder / "corpus/a.jsonl").write_text(json.dumps({"id": "a", "text": "Salt lowers it."}))
    nothing_set.setenv("RARE_MODEL", "教師")
    nothing_set.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    arguments = ["run", "--dry-run", "--source", "corpus", "--storage", "storage"]
    result = CliRunner(charset=encoding).invoke(main, arguments)
    assert result.exception is None, result.output
    assert "Teacher: ??." in result.stdout


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_process_that_may_open_no_more_files_says_what_to_raise(nothing_set, number):
    cause = OSError(number, "Too many open files")
    with pytest.raises(click.ClickException, match=r"ulimit -n 1024") as raised, one_message():
        raise RuntimeError("no pipe") from cause
    assert "RARE_SHARDS_AT_ONCE" in raised.value.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_where_there_is_no_room_for_temporary_files_their_folder_is_named(nothing_set, number):
    cause = OSError(number, os.strerror(number), "/scratch/rare-assets-1")
    with pytest.raises(click.ClickException, match=r"RARE_CACHE") as raised, one_message():
        raise RuntimeError("no folder") from cause
    assert raised.value.message.startswith(f"{os.strerror(number)} (/scratch/rare-assets-1): ")


def test_a_full_folder_of_temporary_files_is_not_taken_for_a_full_home(folder, nothing_set):
    write_jsonl(folder / "corpus" / "a.jsonl", range(3))
    nothing_set.setenv("RARE_MODEL", MODEL)
    with small_disk(folder / "disk", 64) as disk, FakeEndpoint() as endpoint:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        nothing_set.setenv("RARE_CACHE", str(disk))
        (disk / "tmp").mkdir()
        fill(disk)
        arguments = ["run", "--source", "corpus", "--storage", "storage"]
        result = CliRunner().invoke(main, arguments)
    assert "DAGSTER_HOME" not in result.output
    assert result.exit_code == 0, result.output


def test_any_other_error_is_none_of_files():
    assert files_error(OSError(errno.ENOENT, "No such file or directory")) is None
    assert files_error(ValueError("no number")) is None
