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
# Whether this process, or the one that it was forked from, has put its imports out of the collector's sight. To
# ask the collector how much that is takes it a walk through all of it, a tenth of a run's start.
_frozen = False
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
    that out again and again takes a quarter of a command's start."""
    global _frozen
    if not gc.isenabled():
        # Within another one.
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Once: later, what is not imported would be kept, too.
        if not _frozen:
            gc.freeze()
            _frozen = True
        gc.enable()
