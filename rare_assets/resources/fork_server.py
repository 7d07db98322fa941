"""The server of a command's processes, forked from the command before it has what can't be forked."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from rare_assets.resources.dagster_internals import import_sqlite_storage, read_migrations
from rare_assets.resources.processes import PRELOADED, process_context


def fork_server() -> None:
    """Import what this process shares with those that make runs, and fork their server from it.

    `multiprocessing` would start a server of its own with the first of them: that would import all of this a
    second time, while this process waits. To be called before anything else is imported: where this process has
    threads or Polars already, or `multiprocessing` has changed, its own way is left to it.
    """
    if process_context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    import_sqlite_storage()
    read_migrations()
    server: Any = vars(forkserver)["_forkserver"]
    parts = {"_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"}
    # From Python 3.14 on it asks for a key, and is started with it.
    known = parts <= vars(server).keys() and not hasattr(server, "_forkserver_authkey")
    alone = threading.active_count() == 1 and "polars" not in sys.modules
    if not known or not alone or server._forkserver_pid is not None:
        return
    # Where it can't be, `multiprocessing` meets the same when a process is started, and says so.
    with contextlib.suppress(OSError):
        _fork(server)


def _fork(server: Any) -> None:
    from multiprocessing import connection, resource_tracker

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
    """Import the rest, and fork processes on demand until nobody has the other end of the pipe any more."""
    from multiprocessing import forkserver

    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(alive_w)
        with contextlib.suppress(ImportError):
            importlib.import_module(PRELOADED)
        gc.freeze()
        gc.enable()
        forkserver.main(listener.detach(), alive_r, [])
    finally:
        # Nothing of the process that it was forked from is ended here.
        os._exit(0)
