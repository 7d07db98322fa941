"""Ports of loopback for servers that take a while until they listen."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path

import filelock

# Below the ports that Linux (from 32,768) and macOS (from 49,152) hand out by themselves.
RANGE = range(20_000, 32_000)
RESERVED = Path(tempfile.gettempdir()) / f"rare_assets_tests-ports-{os.getuid()}"

_reserved: list[filelock.FileLock] = []


def free_port() -> int:
    """Reserve a port that nothing listens on, until this process ends.

    What `bind` to port 0 gives may be given to another process before the server listens on it: two
    test processes once started their servers on one port.
    """
    RESERVED.mkdir(exist_ok=True)
    while True:
        port = random.choice(RANGE)
        lock = filelock.FileLock(RESERVED / str(port), timeout=0)
        try:
            lock.acquire()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except (filelock.Timeout, OSError):
            lock.release(force=True)
            continue
        _reserved.append(lock)
        return port
