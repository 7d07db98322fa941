"""How commands end and print where this machine has less than they expect."""

import errno
import json

import click
import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.command.ending import files_error, one_message


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


def test_any_other_error_is_none_of_too_many_files():
    assert files_error(OSError(errno.ENOENT, "No such file or directory")) is None
    assert files_error(ValueError("no number")) is None
