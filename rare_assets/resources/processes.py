"""How processes that make runs are started: forked from one that has imported what they all import."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext

from rare_assets.files.cache import socket_folder

PRELOADED = "rare_assets.resources.preloaded"
# Bytes of a socket's name on Linux, less the zero at its end; of those, what multiprocessing adds to a folder.
_SOCKET_NAME, _ADDED = 107, len("/pymp-12345678/listener-12345678")


def process_context(*also: str) -> BaseContext:
    """Return the context of `multiprocessing` to start such processes with.

    Args:
        also: modules to import once for all of them, beside those of `rare_assets.resources.preloaded`.
    """
    # Elsewhere the system's own libraries don't bear a fork, as Python's default has it.
    if sys.platform != "linux" or not _has_room():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED, *also])
    return context


def _has_room() -> bool:
    """Return whether the socket by which forks are asked for can be made, and its name is not too long."""
    folder = socket_folder()
    return folder is not None and len(os.fsencode(folder)) + _ADDED <= _SOCKET_NAME


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Import without garbage collection, and never look through what was imported: it stays, and to find
    that out again and again takes a quarter of a command's start.

    In a process that is forked, too: the first collections after its imports would look through them all.
    """
    if not gc.isenabled():
        # Within another one.
        yield
        return
    gc.disable()
    imported = len(sys.modules)
    try:
        yield
    finally:
        # Where nothing was, only what is not imported would be kept.
        if len(sys.modules) > imported:
            gc.freeze()
        gc.enable()
