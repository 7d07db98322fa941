"""Processes: what they may use, and a name by which others can tell whether one is gone, as far as that can be
told at once.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def machine() -> str:
    """Name the running kernel, which sees all locks on its disks, whatever containers call themselves.

    "" where the system does not say.
    """
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def this_process() -> str:
    """Name this process: machine, process namespace, host name, id, start; "" where that can't be told."""
    pid = os.getpid()
    where, start = _here(pid), _start_of(str(pid))
    return f"{where}#{pid}@{start}" if where and start else ""


def is_gone(process: str) -> bool | None:
    """Return True if a process is gone; None if that can't be told from here, as of another machine
    or container.

    Args:
        process: its name, as `this_process` gave it there.
    """
    where, _, rest = process.rpartition("#")
    if not where or where != _here(os.getpid()):
        return None
    pid, _, start = rest.partition("@")
    return _start_of(pid) != start


@cache
def _here(pid: int) -> str:
    """Name where process ids mean the same as in this process; a fork keeps caches, so its id is
    given."""
    try:
        namespace = os.readlink(_PROC / "self/ns/pid")
        # Mounted for another namespace, it would show other processes under these ids.
        sees_this = os.readlink(_PROC / "self") == str(pid)
    except OSError:
        return ""
    kernel = machine()
    return f"{kernel}|{namespace}|{socket.gethostname()}" if kernel and sees_this else ""


def _start_of(pid: str) -> str:
    """Return when a running process was started, in ticks since the machine was; "" if there is
    none."""
    try:
        stat = (_PROC / pid / "stat").read_text()
    except OSError:
        return ""
    # The name before it may hold anything.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
