"""How processes that make runs are started: forked from one that has imported what they all import."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import NoReturn

from rare_assets.files.cache import socket_folder

_PRELOADED = "rare_assets.resources.preloaded"
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
    context.set_forkserver_preload([_PRELOADED, *also])
    return context


def fork_server() -> None:
    """Import what such processes share, and fork the server that they are forked from out of this process.

    A server that is started when the first of them is would import all that a second time, for most of a
    second. To be called first of all: where this process has threads or Polars already, or `multiprocessing`
    has another way to start its server, that is left to `multiprocessing`.
    """
    if process_context().get_start_method() != "forkserver":
        return
    from multiprocessing import connection, forkserver, resource_tracker

    importlib.import_module(_PRELOADED)
    server = forkserver._forkserver  # type: ignore[attr-defined]
    parts = {"_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"}
    # From Python 3.14 on it asks for a key, and is started with it.
    known = parts <= vars(server).keys() and not hasattr(server, "_forkserver_authkey")
    alone = threading.active_count() == 1 and "polars" not in sys.modules
    if not known or not alone or server._forkserver_pid is not None:
        return
    resource_tracker.ensure_running()
    address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    os.chmod(address, 0o600)
    listener.listen()
    alive_r, alive_w = os.pipe()
    # Its processes begin with both held, lest a stop ends one before it can handle it.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    if pid == 0:
        _serve(listener, alive_r, alive_w)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    listener.close()
    os.close(alive_r)
    server._forkserver_address, server._forkserver_alive_fd = address, alive_w
    server._forkserver_pid = pid


def _serve(listener: socket.socket, alive_r: int, alive_w: int) -> NoReturn:
    """Fork processes on demand, until nobody has the other end of the pipe any more."""
    from multiprocessing import forkserver

    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(alive_w)
        gc.freeze()
        gc.enable()
        forkserver.main(listener.detach(), alive_r, [])
    finally:
        # Nothing of the process that it was forked from is ended here.
        os._exit(0)


def _has_room() -> bool:
    """Return whether the socket by which forks are asked for can be made, and its name is not too long."""
    folder = socket_folder()
    return folder is not None and len(os.fsencode(folder)) + _ADDED <= _SOCKET_NAME


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Import without garbage collection, and never look through what was imported: it stays, and to find
    that out again and again takes a quarter of a command's start."""
    if not gc.isenabled():
        # Within another one.
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Once: later, what is not imported would be kept, too.
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
