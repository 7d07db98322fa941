"""Python processes forked from one that has imported what they import: each import costs more than most tests.

`Forked` is a `subprocess.Popen` for `python -m MODULE ...` and `python -c CODE ...`. What it starts has the folder,
the environment, the session and the files it is given, as a new interpreter has; what an interpreter reads of its
environment before it runs anything is read anew. Tests of the installed command start that itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import inspect
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any, NamedTuple

# Bytes of a request: arguments and environment.
MOST = 1 << 20


class Program(NamedTuple):
    """What a process is to be: the arguments of Python, and where and with what it runs."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    new_session: bool


class _Parent:
    """The process that is forked; started when it is first asked for, ends with the one that started it.

    Processes of `multiprocessing`'s own server end without what `atexit` holds, and start theirs from it.
    """

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket: socket.socket | None = None

    def fork(self, program: Program, *files: int) -> int:
        """Fork a process that has these files as its first three; the fourth hears how it ended."""
        with self._asking:
            if self._socket is None:
                self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                command = [sys.executable, "-m", __name__, str(theirs.fileno())]
                subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                theirs.close()
            socket.send_fds(self._socket, [pickle.dumps(program)], files)
            return int.from_bytes(self._socket.recv(8))


_parent = _Parent()


class _Forked(subprocess.Popen[str]):
    """A process forked from one that has its imports; the arguments and options are those of Popen."""

    def _execute_child(self, *arguments: Any) -> None:
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments
        python, *rest = given["args"]
        assert python == sys.executable
        self._ending, theirs = os.pipe()
        program = Program(
            [os.fspath(argument) for argument in rest],
            os.fspath(given["cwd"] or os.getcwd()),
            dict(os.environ if given["env"] is None else given["env"]),
            given["start_new_session"],
        )
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        files = (given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        try:
            # Without a file of its own it has this process'.
            opened = [own if file == -1 else file for own, file in enumerate(files)]
            self.pid = _parent.fork(program, *opened, theirs)
            self._child_created = True
        finally:
            os.close(theirs)
            self._close_pipe_fds(*(given[name] for name in pipes))

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None and not select.select([self._ending], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        with self._waitpid_lock:
            if self.returncode is None:
                said = os.read(self._ending, 8)
                assert said, "the process that this one was forked from is gone"
                self.returncode = int.from_bytes(said, signed=True)
                os.close(self._ending)
        return self.returncode


# Elsewhere the system's own libraries don't bear a fork.
Forked = _Forked if sys.platform == "linux" else subprocess.Popen


def _serve(asked: socket.socket) -> Program | None:
    """Fork as asked. Returns the program in the process that is to run it, None at the end."""
    ended_r, ended_w = os.pipe()
    os.set_blocking(ended_w, False)
    signal.set_wakeup_fd(ended_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    endings: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
            _tell_ends(endings)
        if asked not in ready:
            continue
        message, files, _, _ = socket.recv_fds(asked, MOST, 4)
        if not message:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, file in enumerate(files[:3]):
                os.dup2(file, number)
            asked.detach()
            os.closerange(3, 1 << 16)
            return pickle.loads(message)
        endings[pid] = files[3]
        for file in files[:3]:
            os.close(file)
        asked.send(pid.to_bytes(8))


def _tell_ends(endings: dict[int, int]) -> None:
    while endings:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(OSError), os.fdopen(endings.pop(pid), "wb") as ending:
            ending.write(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))


def _become(program: Program) -> None:
    """Run the program in this process, as a new interpreter would."""
    if program.new_session:
        os.setsid()
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    time.tzset()
    # Those of the parent are for the files that it has.
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stdout.reconfigure(write_through=unbuffered, line_buffering=sys.stdout.isatty())
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [program.folder, *paths]
    how, what, *rest = program.arguments
    sys.argv = [how, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert how == "-c", how
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    from rare_assets.resources import preloaded  # noqa: F401

    gc.freeze()
    if program := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(program)
