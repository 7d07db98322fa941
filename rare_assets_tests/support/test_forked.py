"""A forked process is to its starter what a new interpreter is."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rare_assets_tests.support.forked import Forked

TELLS = """
import json, os, sys
print(json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:], os.getsid(0) == os.getpid(), __name__]))
print("said", file=sys.stderr)
sys.exit(int(sys.stdin.read()))
"""


@pytest.mark.parametrize("new_session", [False, True])
def test_it_has_what_it_is_given_and_ends_with_its_own_code(tmp_path, new_session):
    seen = []
    for start in (subprocess.Popen, Forked):
        process = start(
            [sys.executable, "-c", TELLS, "a", "b c"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "ONLY": "this"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=new_session,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None
        told, said = process.communicate("3", timeout=60)
        folder, environment, *rest = json.loads(told)
        # The C library's own.
        environment.pop("LC_CTYPE", None)
        seen.append((folder, environment, rest, said, process.returncode, process.poll()))
    assert seen[0] == seen[1]
    assert seen[1][-2:] == (3, 3)


def test_a_module_runs_as_the_program():
    done = Forked([sys.executable, "-m", "json.tool"], stdin=-1, stdout=-1, text=True)
    assert done.communicate("[1]", timeout=60)[0].split() == ["[", "1", "]"]
    assert done.returncode == 0


def test_one_that_is_killed_is_known_to_be():
    process = Forked([sys.executable, "-c", "import time; time.sleep(600)"])
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
