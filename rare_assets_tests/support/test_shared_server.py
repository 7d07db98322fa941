"""A shared server is started once, and ends with the last of those that use it, however they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rare_assets_tests.support.forked import Forked

# The server counts its starts, and says when the file that it lives with has come to its end.
SERVER = 'import sys; sys.stdin.read(); open(sys.argv[1], "a").write("alone\\n")'
USER = f"""
import subprocess, sys
from pathlib import Path
from rare_assets_tests.support.shared_server import shared_server
folder = Path(sys.argv[1])
said = folder / "said"
def start(lives_with):
    with said.open("a") as file: file.write("started\\n")
    subprocess.Popen([sys.executable, "-c", {SERVER!r}, said], stdin=lives_with, stdout=subprocess.DEVNULL)
    return {{"port": 7}}
def end(facts):
    with said.open("a") as file: file.write(f"ended {{facts}}\\n")
with shared_server(folder / "shared", start, end) as facts:
    print(facts["port"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def use(tmp_path):
    """Starts a process that uses the server until it is told to end."""
    started = []

    def use():
        process = Forked(
            [sys.executable, "-c", USER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "7\n"
        return process

    yield use
    for process in started:
        process.kill()
        process.communicate()


def said(folder: Path, lines: int) -> list[str]:
    """What the server and its users have said, once it is so many lines."""
    while len(told := (folder / "said").read_text().splitlines()) < lines:
        pass
    return told


def test_the_last_that_leaves_ends_it(use, tmp_path):
    first, second = use(), use()
    first.communicate()
    third = use()
    second.communicate()
    assert said(tmp_path, 1) == ["started"]
    third.communicate()
    assert sorted(said(tmp_path, 3)) == ["alone", "ended {'port': 7}", "started"]
    use().communicate()
    assert said(tmp_path, 6).count("started") == 2


def test_it_does_not_outlive_those_that_are_killed(use, tmp_path):
    users = use(), use()
    for process in users:
        assert said(tmp_path, 1) == ["started"]
        process.kill()
        process.wait()
    assert said(tmp_path, 2) == ["started", "alone"]
    users, _ = json.loads((tmp_path / "shared/known.json").read_text())
    assert users == 2
