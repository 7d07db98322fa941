"""Requests in flight fit among the files that a process may have open."""

import subprocess
import sys

import pytest

from rare_assets_tests.support.fake_endpoint import FakeEndpoint

pytest.importorskip("resource", reason="this system has no limits on a process' open files")

LIMITED = """
import resource, sys
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from rare_assets.teacher.open_files import connections_within
print(connections_within(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fit", "then"),
    [
        (2000, 2000, 256, 256, 2000),  # enough
        (256, 4000, 256, 256, 1280),  # a Mac's own limit is raised as far as it takes
        (256, 1000, 256, 250, 1000),
        (64, 64, 8, 8, 64),
        (64, 64, 256, 16, 64),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be(soft, hard, wanted, fit, then):
    command = [sys.executable, "-c", LIMITED, *map(str, (soft, hard, wanted))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(fit), str(then), str(hard)]


ASKS = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from rare_assets_tests.teacher.test_online import asks, run
result = run(sys.argv[1], asks(100), max_concurrency=100)
print(len(result.good))
"""


def test_what_is_asked_with_few_files_is_answered_and_said(tmp_path):
    with FakeEndpoint(latency=0.2) as endpoint:
        command = [sys.executable, "-c", ASKS, endpoint.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100"]
    assert "16 requests to the endpoint" in done.stderr
    assert endpoint.high_water <= 16
    assert len(endpoint.requests) == 100
