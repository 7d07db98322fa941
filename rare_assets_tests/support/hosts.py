"""Hosts of their own on this machine: a name, processes and folders that others don't see."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

_UNSHARE = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def _works() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode == 0


class Host:
    """A host of that name; nothing keeps several from having the same. A context manager that ends it.

    Skips the test where this system lets nobody have one.
    """

    def __init__(self, name: str) -> None:
        if not _works():
            pytest.skip("needs unshare with the right to make namespaces, as root has")
        self.name = name
        self._groups: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on it; its output is text, in one pipe unless `stdout` is given."""
        started = subprocess.Popen(
            [*_UNSHARE, "bash", "-c", 'hostname "$0"; exec "$@"', self.name, *command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, **options},
        )
        self._groups.append(started)
        return started

    def kill(self) -> None:
        """Have the host vanish with all that runs on it, as at a power failure."""
        while self._groups:
            process = self._groups.pop()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
