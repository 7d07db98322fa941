"""A storage that can't be used ends a command with one message, and a run with one sentence."""

import errno
import os

import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.s3_server import CREDENTIALS
from rare_assets_tests.support.small_disk import remount, small_disk


@pytest.fixture
def home(nothing_set, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    write_jsonl(tmp_path / "corpus" / "a.jsonl", range(3))
    # The command sets them for the runs that it starts.
    monkeypatch.setenv("RARE_SOURCE", str(tmp_path / "corpus"))
    monkeypatch.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    return tmp_path


def command(*arguments):
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 1, (result.output, result.exception)
    assert "Traceback" not in result.output
    (said,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return said


@pytest.mark.parametrize("arguments", [["run"], ["run", "--dry-run"], ["status"], ["shards"]])
def test_a_storage_that_is_a_file_is_one_message(home, arguments):
    (home / "storage").write_text("a file")
    said = command(*arguments)
    assert "a file lies where a folder is needed; is RARE_STORAGE a folder?" in said
    assert str(home / "storage") in said


def test_a_url_of_no_store_is_one_message_without_its_secrets(home):
    said = command("status", "--storage", "nope://key:SECRET@bucket/rare")
    assert "nope://bucket/rare can't be opened" in said
    assert "SECRET" not in said


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("setting", ["storage", "source"])
def test_authorities_that_can_not_be_read_are_named(home, monkeypatch, content, setting):
    authorities = home / "ca.pem"
    if content:
        authorities.write_text(content)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authorities))
    said = command("status", f"--{setting}", "s3://bucket/rare")
    assert "s3://bucket/rare" in said
    assert f"(AWS_CA_BUNDLE is {authorities}: " in said


def test_a_storage_that_cannot_be_written_is_a_sentence_in_a_run(nothing_set, tmp_path):
    with small_disk(tmp_path / "disk", 32) as disk:
        graph = Graph(tmp_path / "graph", storage=str(disk))
        write_jsonl(graph.source / "a.jsonl", range(1_000))
        graph.register()
        said = failure_text(graph.make("documents_job", "a.jsonl"))
        assert os.strerror(errno.ENOSPC) in said
        assert "make room, then run again" in said
        remount(disk, "ro")
        said = failure_text(graph.make("documents_job", "a.jsonl"))
        assert os.strerror(errno.EROFS) in said
        said = failure_text(graph.make("corpus_index_job"))
        assert os.strerror(errno.EROFS) in said
