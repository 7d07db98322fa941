"""One server for all workers of a test session: the first that needs it starts it, the last ends it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

Facts = dict[str, Any]


def common_folder(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of this session share."""
    own = factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@contextlib.contextmanager
def shared_server(
    folder: Path, start: Callable[[int], Facts], end: Callable[[Facts], None]
) -> Iterator[Facts]:
    """What there is to know of a server that other processes use, too.

    Args:
        folder: the server's among the processes that share it.
        start: starts it and returns the facts. It is given an open file that comes to its end once none of the
            processes is there any more, in order or killed.
        end: ends it by its facts.
    """
    folder.mkdir(exist_ok=True)
    lock, pipe, known = (FileLock(folder / "lock"), folder / "pipe", folder / "known.json")
    with lock:
        if known.exists():
            here = os.open(pipe, os.O_WRONLY)
            users, facts = json.loads(known.read_text())
        else:
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
            # A pipe is opened for writing only where somebody reads.
            reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            os.set_blocking(reading, True)
            here = os.open(pipe, os.O_WRONLY)
            try:
                users, facts = 0, start(reading)
            finally:
                os.close(reading)
        known.write_text(json.dumps([users + 1, facts]))
    try:
        yield facts
    finally:
        with lock:
            users, facts = json.loads(known.read_text())
            known.write_text(json.dumps([users - 1, facts]))
            if users == 1:
                known.unlink()
                end(facts)
        os.close(here)
