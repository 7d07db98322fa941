"""Who is asking for what at this moment: whatever is in flight anywhere on one storage is asked once.

Beside the answers lies one file for each writer (a teacher that is asking): what it HOLDS, so that
nobody else asks for it, and what it INTENDS to hold. A claim covers an ask with all its attempts.

To claim some asks, a writer (1) publishes them as intended, (2) then lists the files and reads those
of the other living writers, and holds what it finds in none of them, be it held or intended. What it
holds stays published until the answers are durable and the claim is released; after (2) the answers
are listed anew before they are looked up.

Why no two hold the same: from before (2) until its release a writer's file names the ask without a
break. Of two that overlap, one published its intent first; the other published later and read later
still, so it found the first one's intent (or claim) and does not hold the ask. All this needs of the
storage is that what was written is listed and read from then on, as on a local disk, S3, GCS and
Azure. Why no answer is missed: who released an ask had stored its answers before, and they are
listed after its release was read.

Where two intend the same at once, each may see the other. The one whose name sorts higher withdraws;
the lower one, which can't know whether the other had already decided, keeps its intent until the
other's next state shows it: withdrawn (then it holds the ask) or held (then it withdraws). If that
takes long, it withdraws as well, which is always safe, and tries again later.

Nothing waits for a dead writer. On a disk of this machine each file is locked as long as its writer
lives. Besides, writers write their file anew every few seconds, and one of another machine that has not changed for a
minute by the reader's own clock is removed; clocks are never compared. A writer that was held up so
long itself (a suspended machine) takes its claims for lost: see `valid`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np

from rare_assets.files.processes import machine
from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import answer_files as files
from rare_assets.text.shown_url import shown, without_secrets

logger = logging.getLogger(__name__)

# A file that can't be locked counts as its dead writer's after so long without a change.
DEAD_AFTER_S = 60.0
_BEATS = 4  # in that time
# Until what was released, or decided, is published: on a local disk, and behind a URL.
_FLUSH_S = (0.1, 2.0)
# So long the lower of two that intend the same waits for the other's decision.
_UNDECIDED_S = (1.0, 5.0)
# Writing may take at most this share of the time.
_WRITING_SHARE = 0.05
# Until it is said who is waited for: others are often done before that.
_SAID_AFTER_S = 2.0
_FORGOTTEN_S = 7 * 86400.0


class ClaimsLost(TeacherStopped):
    """Claims can't be published, so that others might ask for the same."""


class Holder(NamedTuple):
    """A process that is asking, for people: `since` is Unix time by its own clock."""

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone()
        return f"process {self.pid} on {self.host} (at work since {began:%H:%M:%S})"


@dataclass(slots=True)
class _Other:
    """Another living writer's file as it was read."""

    name: str
    holder: Holder
    held: frozenset[int] = frozenset()
    intended: frozenset[int] = frozenset()
    unreadable: bool = False


@dataclass(slots=True)
class _Wish:
    """Asks that somebody wants to claim, and what came of it."""

    keys: Sequence[bytes]
    done: Future[dict[bytes, Holder]] = field(default_factory=Future)


class Claims:
    """The claims of one writer.

    Args:
        folder: the folder of the answers.
        look: lists that folder anew, takes in new answers, and returns the names of all files of
            claims.
        dead_after_s: seconds without a change after which another writer counts as dead, where no
            lock can tell.
    """

    def __init__(
        self,
        folder: files.Folder,
        look: Callable[[], Collection[str]],
        *,
        dead_after_s: float = DEAD_AFTER_S,
    ) -> None:
        local = folder.local is not None
        self._folder = folder
        self._look = look
        self._dead_after_s = dead_after_s
        self._flush_s, self._undecided_s = (part[not local] for part in (_FLUSH_S, _UNDECIDED_S))
        self._flush_s = min(self._flush_s, dead_after_s / _BEATS)
        self.poll_s = 2 * self._flush_s
        self._wake = threading.Condition()
        self._wishes: list[_Wish] = []
        self._held: Counter[bytes] = Counter()
        self._changed = False
        self._closing = False
        self._thread: threading.Thread | None = None
        # Used by the thread alone, or under `_reading`.
        self._reading = threading.Lock()
        self._file: _LocalFile | _Object | None = None
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._met = False
        self._since = time.time()
        self._published_at = _now()
        self._writing_s = 0.0
        self._epoch = 0

    async def acquire(self, keys: Sequence[bytes]) -> dict[bytes, Holder]:
        """Claim what nobody else has. Returns the others, each with who has it.

        Each claim must be released as often as it was acquired.

        Raises:
            TeacherStopped: nothing can be claimed, since the storage can't be written or read.
        """
        wish = _Wish(keys)
        with self._wake:
            if self._closing:
                raise ClaimsLost("The teacher was closed while it was being asked.")
            self._wishes.append(wish)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()
            self._wake.notify()
        try:
            return await asyncio.shield(asyncio.wrap_future(wish.done))
        except asyncio.CancelledError:
            wish.done.add_done_callback(self._take_back(wish.keys))
            raise

    def _take_back(self, keys: Sequence[bytes]) -> Callable[[Future[dict[bytes, Holder]]], None]:
        def release(done: Future[dict[bytes, Holder]]) -> None:
            if done.exception() is None:
                self.release(key for key in keys if key not in done.result())

        return release

    def release(self, keys: Iterable[bytes]) -> None:
        """Let others ask for these, whose answers are stored or will not be asked for."""
        with self._wake:
            for key in keys:
                self._held[key] -= 1
                if self._held[key] <= 0:
                    del self._held[key]
            self._changed = True
            self._wake.notify()

    async def taken(self, keys: Iterable[bytes]) -> dict[bytes, Holder]:
        """Which of these others have at this moment, each with who has it."""
        return await asyncio.to_thread(self._taken, list(keys))

    @property
    def epoch(self) -> int:
        """Changes when claims may have been taken for those of a dead writer: they count no more."""
        if self._file is not None and not self._file.locked:
            with self._wake:
                if self._held and _now() - self._published_at > 0.9 * self._dead_after_s:
                    self._held.clear()
                    self._epoch += 1
        return self._epoch

    async def close(self) -> None:
        """Give up all claims."""
        await asyncio.to_thread(self._close)

    # ---- the thread: whoever wants to claim at the same time does so together

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._wishes or self._closing) and (pause := self._pause()) > 0:
                    self._wake.wait(pause)
                if self._closing:
                    wishes, self._wishes = self._wishes, []
                    for wish in wishes:
                        wish.done.set_exception(ClaimsLost("The teacher was closed."))
                    return
                wishes, self._wishes = self._wishes, []
            try:
                if wishes:
                    self._grant(wishes)
                else:
                    self._publish(())
                    if self._seen:  # whose writers may be dead
                        self._others()
            except Exception as error:
                self._fail(wishes, error)

    def _pause(self) -> float:
        # Also where a lock tells, since it may not be seen from another machine.
        beat = self._dead_after_s / _BEATS
        if self._changed:
            beat = min(beat, max(self._flush_s, self._writing_s / _WRITING_SHARE))
        return self._published_at + beat - _now()

    def _fail(self, wishes: list[_Wish], error: Exception) -> None:
        if not wishes:
            # The next claim or answer meets the same, and stops what is asking.
            logger.info("%s: claims were not published: %s", self._folder.root, error)
            with self._wake:
                self._wake.wait(10 * self._flush_s)
        for wish in wishes:
            if isinstance(error, TeacherStopped):
                wish.done.set_exception(error)
                continue
            lost = ClaimsLost(
                f"What is being asked can't be noted under {shown(self._folder.root)}: "
                f"{type(error).__name__}: {without_secrets(error, str(self._folder.root))}. Nothing more is asked, since others might ask for "
                "the same and the answers could not be stored. Mend the storage, then run again."
            )
            lost.__cause__ = error
            wish.done.set_exception(lost)

    def _grant(self, wishes: list[_Wish]) -> None:
        with self._wake:
            wanted = {key for wish in wishes for key in wish.keys if key not in self._held}
        by_print = {files.fingerprint(key): key for key in wanted}
        self._publish(by_print)
        theirs, watched = self._decide(frozenset(by_print))
        refused = {by_print[number]: other.holder for number, other in theirs.items()}
        with self._wake:
            for wish in wishes:
                self._held.update(key for key in wish.keys if key not in refused)
            self._changed = True
        if watched:
            self._publish(())  # somebody may wait for the decision
        if self._met or self._folder.local is not None:
            # What others stored before they released it, or died, must be found. A local listing is
            # no snapshot: it may show an older size than that of the moment at which it shows no claim.
            self._look()
        for wish in wishes:
            wish.done.set_result({key: refused[key] for key in wish.keys if key in refused})

    def _decide(self, wanted: frozenset[int]) -> tuple[dict[int, _Other], bool]:
        """Which of those intended others have; and whether there are living others at all."""
        until = _now() + self._undecided_s
        while True:
            others = self._others()
            theirs: dict[int, _Other] = {}
            undecided: dict[int, _Other] = {}
            for other in others:
                if other.unreadable:
                    theirs.update(dict.fromkeys(wanted, other))
                theirs.update(dict.fromkeys(wanted & other.held, other))
                lower = self._file is not None and self._file.name < other.name
                (undecided if lower else theirs).update(
                    dict.fromkeys(wanted & other.intended, other)
                )
            if not undecided.keys() - theirs.keys():
                return theirs, bool(others)
            if _now() > until:
                return undecided | theirs, True
            time.sleep(self._flush_s / 10)

    def _taken(self, keys: list[bytes]) -> dict[bytes, Holder]:
        found: dict[bytes, Holder] = {}
        for other in self._others():
            for key in keys:
                number = files.fingerprint(key)
                if other.unreadable or number in other.held or number in other.intended:
                    found[key] = other.holder
        return found

    def _close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            self._file.remove()
            self._file = None

    # ---- files

    def _publish(self, intended: Iterable[int]) -> None:
        _ = self.epoch  # what has lapsed must not be said to be held
        with self._wake:
            held, self._changed = list(self._held), False
        started = _now()
        if self._file is None:
            kind = _LocalFile if self._folder.local is not None else _Object
            self._file = kind(self._folder)
        state = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": round(self._since, 3),
            # No two states are alike, so that a reader sees that the writer lives.
            "state": secrets.token_hex(8),
            "held": _pack(map(files.fingerprint, held)),
            "intended": _pack(intended),
        }
        self._file.write(zlib.compress(json.dumps(state).encode(), 1, wbits=31))
        # From before it was written, since readers may have seen it then.
        self._published_at = started
        self._writing_s = _now() - started

    def _others(self) -> list[_Other]:
        """Every other living writer; what dead ones have left is removed."""
        with self._reading:
            own = self._file.name if self._file is not None else None
            names = [name for name in self._look() if name != own]
            self._met = bool(names)
            self._seen = {name: seen for name, seen in self._seen.items() if name in names}
            found = []
            for name, content in zip(names, self._contents(names), strict=True):
                if content is None:
                    continue
                other = _parse(name, content)
                if self._is_dead(other, content):
                    self._seen.pop(name, None)
                    continue
                found.append(other)
            return found

    def _contents(self, names: list[str]) -> list[bytes | None]:
        if self._folder.local is None:
            return self._folder.read_all(names)
        return [self._read_whole(name) for name in names]

    def _read_whole(self, name: str) -> bytes | None:
        """A local file, which may be in the middle of a write."""
        content = b""
        for _ in range(40):
            try:
                content = self._folder.read_whole(name)
            except FileNotFoundError:
                return None
            if not content or not _parse(name, content).unreadable:
                break
            time.sleep(0.005)
        return content

    def _is_dead(self, other: _Other, content: bytes) -> bool:
        """Whether a file's writer is gone; the file then goes, too."""
        unlocked = None
        if self._folder.local is not None:
            here = is_of_this_machine(other.name)
            # A lock of another machine may not be seen here.
            unlocked = files.remove_if_unlocked(self._folder.local / other.name, only_look=not here)
            if unlocked is not None and (here or not unlocked):
                return unlocked
        now = _now()
        before, since = self._seen.get(other.name, (None, now))
        if before != content:
            self._seen[other.name] = content, now
            return False
        if now - since < self._dead_after_s:
            return False
        logger.info("%s: %s is gone, its claims are void", self._folder.root, other.holder)
        self._folder.delete(other.name)
        return True


class WaitingSaid:
    """Says who else asks for what is waited for: soon, and then more and more seldom."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._due = time.monotonic() + _SAID_AFTER_S
        self._pause = 60.0

    def note(self, taken: Mapping[bytes, Holder]) -> None:
        """These are waited for."""
        if not taken or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._pause
        self._pause *= 2
        holders = sorted({str(holder) for holder in taken.values()})
        more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
        self._say(
            f"Waiting for {len(taken):,} answers that {', '.join(holders[:3])}{more} asks for at this "
            "moment, on the same storage: nothing is paid for twice."
        )


class _LocalFile:
    """A writer's file on a disk of this machine, locked as long as it is open."""

    def __init__(self, folder: files.Folder) -> None:
        self.name, self._path, self._descriptor, self.locked = files.create_locked(
            folder, _new_name
        )

    def write(self, content: bytes) -> None:
        files.check_place(self._descriptor, self._path)
        rest, at = memoryview(content), 0
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[written:], at + written
        os.ftruncate(self._descriptor, at)

    def remove(self) -> None:
        with files.not_found_is_fine():
            os.unlink(self._path)
        os.close(self._descriptor)


class _Object:
    """A writer's file behind a URL."""

    locked = False

    def __init__(self, folder: files.Folder) -> None:
        self.name = _new_name()
        self._folder = folder

    def write(self, content: bytes) -> None:
        self._folder.write(self.name, content)

    def remove(self) -> None:
        try:
            self._folder.delete(self.name)
        except Exception as error:  # others find out that it does not change any more
            logger.warning("%s/%s is left: %s", self._folder.root, self.name, error)


_NAME = re.compile(r"claims-(\d{8}T\d{6})-[^/]+\.json\.gz")


def is_claims(name: str) -> bool:
    """Whether a file is one of claims."""
    return _NAME.fullmatch(name) is not None


def is_of_this_machine(name: str) -> bool:
    """Whether a file of claims was written on this machine, so that its lock can be seen here."""
    return name.split("-")[2] == _machine()


def is_forgotten(name: str) -> bool:
    """Whether a file of claims is so old that nobody can be working any more."""
    return (
        files.age_s(name.replace("claims-", "part-").replace(".json.gz", files.DATA)) > _FORGOTTEN_S
    )


def _new_name() -> str:
    kind, begun, _, *rest = files.new_name("claims").replace(files.DATA, ".json.gz").split("-")
    return "-".join((kind, begun, _machine(), *rest))


def _machine() -> str:
    """The machine in a file's name: containers on one see each other's locks, whatever their host names
    are, and machines of one host name don't."""
    return re.sub(r"[^A-Za-z0-9]", "", machine() or socket.gethostname())[:32] or "host"


def _pack(numbers: Iterable[int]) -> str:
    return base64.b64encode(np.fromiter(numbers, "<u8").tobytes()).decode()


def _unpack(packed: str) -> frozenset[int]:
    return frozenset(np.frombuffer(base64.b64decode(packed), "<u8").tolist())


def _parse(name: str, content: bytes) -> _Other:
    """What a file says; one that says nothing yet claims nothing, one that can't be read everything."""
    if not content:
        return _Other(name, Holder("", 0, 0.0))
    try:
        # What follows is of an earlier, longer state.
        inflate = zlib.decompressobj(wbits=31)
        state = json.loads(inflate.decompress(content))
        if not inflate.eof:
            raise ValueError("cut")
        holder = Holder(str(state["host"]), int(state["pid"]), float(state["since"]))
        return _Other(name, holder, _unpack(state["held"]), _unpack(state["intended"]))
    except (ValueError, KeyError, TypeError, zlib.error):
        return _Other(name, Holder("another machine", 0, 0.0), unreadable=True)


def _now() -> float:
    """Seconds on a clock that only goes forward, also while the machine sleeps where there is such."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
