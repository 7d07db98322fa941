"""A command's processes come from what the command has imported."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux alone"),
]


# Tells of itself, of the server, and of a process that came from it; then it waits.
ASKING = """
import json, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver

from rare_assets.resources.fork_server import fork_server
from rare_assets.resources.processes import process_context


def threads_for_a_product():
    import numpy

    before = len(os.listdir("/proc/self/task"))
    numpy.ones((500, 500)) @ numpy.ones((500, 500))
    return len(os.listdir("/proc/self/task")) - before


def told():
    return {
        "threads for a product": threads_for_a_product(),
        "parent": os.getppid(),
        "held": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "ended by SIGTERM": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "collects": __import__("gc").isenabled(),
        "modules": sorted(sys.modules),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)
    for name in sys.argv[1:]:
        __import__(name)
    fork_server()
    server, mine = forkserver._forkserver._forkserver_pid, sorted(sys.modules)
    with ProcessPoolExecutor(1, process_context()) as pool:
        theirs = pool.submit(told).result()
    print(json.dumps([os.getpid(), server, mine, theirs]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def asking(tmp_path):
    """Start a program that forks a server, with these modules imported before. Returns what it tells."""
    program = tmp_path / "asking.py"
    program.write_text(ASKING)
    started = []

    def asking(*modules):
        command = [sys.executable, str(program), *modules]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1], *json.loads(started[-1].stdout.readline())[1:]

    yield asking
    for process in started:
        process.kill()
        process.communicate()


def test_processes_are_forked_from_what_this_one_has_imported(asking):
    process, server, mine, theirs = asking()
    assert theirs["parent"] == server
    assert set(mine) - set(theirs["modules"]) == set()
    # They begin as those of a server that was started anew.
    here = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert set(theirs["held"]) == {*here, signal.SIGINT, signal.SIGTERM}
    assert theirs["ended by SIGTERM"]
    assert theirs["collects"]
    # Those of NumPy's library would look for work in vain, one a core, in every server and process.
    assert theirs["threads for a product"] == 0
    # The server alone imports what this process has no use for, and no one what can't be forked.
    assert {"dagster", "rare_assets.resources.dagster_internals"} <= set(mine)
    assert not {"openai", "polars"} & set(mine)
    assert "openai" in theirs["modules"]
    assert "polars" not in theirs["modules"]

    process.kill()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{server}"):
        assert time.monotonic() < deadline, "the server has outlived its process"
        time.sleep(0.05)


def test_a_process_with_what_can_not_be_forked_forks_no_server(asking):
    process, server, _, theirs = asking("polars")
    assert server is None
    assert theirs["parent"] != process.pid
    assert "openai" in theirs["modules"]
