"""Read and write files of claims: what a file says of its writer, how it is named, how it is kept."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from rare_assets.files.processes import machine
from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store import locks
from rare_assets.teacher.store.folder import Folder

logger = logging.getLogger(__name__)

_FORGOTTEN_S = 7 * 86400.0
_NAME = re.compile(r"claims-(\d{8}T\d{6})-[^/]+\.json\.gz")


class Holder(NamedTuple):
    """A process that is asking, for people; `since` is Unix time by its own clock."""

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone()
        return f"process {self.pid} on {self.host} (at work since {began:%H:%M:%S})"


@dataclass(slots=True)
class ClaimFile:
    """A writer's file as it was read.

    Attributes:
        name: of the file.
        holder: the process that writes it.
        held: fingerprints of the keys that only the writer may ask for.
        intended: fingerprints of the keys that the writer is about to claim.
        unreadable: it can't be read, so it counts as claiming everything.
    """

    name: str
    holder: Holder
    held: frozenset[int] = frozenset()
    intended: frozenset[int] = frozenset()
    unreadable: bool = False


class LocalFile:
    """A writer's file on a disk of this machine, locked as long as it is open."""

    def __init__(self, folder: Folder) -> None:
        self.name, self._path, self._descriptor, self.locked = locks.create_locked(folder, new_name)

    def write(self, content: bytes) -> None:
        """Replace the content, in place. Raises OSError, also if the file was removed."""
        locks.check_place(self._descriptor, self._path)
        rest, at = memoryview(content), 0
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[written:], at + written
        os.ftruncate(self._descriptor, at)

    def remove(self) -> None:
        """Remove the file and give up its lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._descriptor)


class RemoteFile:
    """A writer's file behind a URL."""

    locked = False

    def __init__(self, folder: Folder) -> None:
        self.name = new_name()
        self._folder = folder

    def write(self, content: bytes) -> None:
        """Replace the content. Raises what the file system raises."""
        self._folder.write(self.name, content)

    def remove(self) -> None:
        """Remove the file; a failure is logged."""
        try:
            self._folder.delete(self.name)
        except Exception as error:  # others find out that it does not change any more
            logger.warning("%s/%s is left: %s", self._folder.root, self.name, error)


def is_claims(name: str) -> bool:
    """Return whether a name is that of a file of claims."""
    return _NAME.fullmatch(name) is not None


def is_of_this_machine(name: str) -> bool:
    """Return whether a file of claims was written on this machine, so that its lock is seen here."""
    return name.split("-")[2] == _machine()


def is_forgotten(name: str) -> bool:
    """Return whether a file of claims is older than 7 days, so that its writer can't be at work any more."""
    return (
        files.age_s(name.replace("claims-", "part-").replace(".json.gz", files.DATA)) > _FORGOTTEN_S
    )


def new_name() -> str:
    """Return a file name that nobody else will choose and that tells the writer's machine."""
    kind, begun, _, *rest = files.new_name("claims").replace(files.DATA, ".json.gz").split("-")
    return "-".join((kind, begun, _machine(), *rest))


def _machine() -> str:
    """Return the machine in a file's name: containers on one see each other's locks, whatever their host names
    are, and machines of one host name don't."""
    return re.sub(r"[^A-Za-z0-9]", "", machine() or socket.gethostname())[:32] or "host"


def _pack(numbers: Iterable[int]) -> str:
    return base64.b64encode(np.fromiter(numbers, "<u8").tobytes()).decode()


def _unpack(packed: str) -> frozenset[int]:
    return frozenset(np.frombuffer(base64.b64decode(packed), "<u8").tolist())


def state_of(since: float, held: Iterable[int], intended: Iterable[int]) -> bytes:
    """Return the content of this process's file.

    Args:
        since: Unix time at which it began to ask, by its own clock.
        held: fingerprints of the keys that only it may ask for.
        intended: fingerprints of the keys that it is about to claim.
    """
    state = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": round(since, 3),
        # No two states are alike, so that a reader sees that the writer lives.
        "state": secrets.token_hex(8),
        "held": _pack(held),
        "intended": _pack(intended),
    }
    return zlib.compress(json.dumps(state).encode(), 1, wbits=31)


def parse(name: str, content: bytes) -> ClaimFile:
    """Return what a file says. An empty one claims nothing yet; one that can't be read claims everything."""
    if not content:
        return ClaimFile(name, Holder("", 0, 0.0))
    try:
        # What follows is of an earlier, longer state.
        inflate = zlib.decompressobj(wbits=31)
        state = json.loads(inflate.decompress(content))
        if not inflate.eof:
            raise ValueError("cut")
        holder = Holder(str(state["host"]), int(state["pid"]), float(state["since"]))
        return ClaimFile(name, holder, _unpack(state["held"]), _unpack(state["intended"]))
    except (ValueError, KeyError, TypeError, zlib.error):
        return ClaimFile(name, Holder("another machine", 0, 0.0), unreadable=True)
