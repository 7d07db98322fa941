"""Claim asks, so that each one is asked once at a time by all processes on one storage.

Beside the answers lies one file for each writer (a teacher that is asking). It names the asks that the
writer HOLDS, so that nobody else asks for them, and those that it INTENDS to hold. A claim covers an ask with
all its attempts.

To claim asks, a writer (1) publishes them as intended, and (2) then lists the files, reads those of the other
living writers, and holds each ask that none of them holds or intends. What it holds stays published until
the answers are durable and the claim is released. After (2) the answers are listed again before they are
looked up.

Why no two writers hold the same ask: from before (2) until its release, a writer's file names the ask
without a break. Of two that overlap, one published its intent first. The other published later and read even
later, so it found the first one's intent or claim and does not hold the ask. This needs a storage where
what was written is listed and read from then on, as a local disk, S3, GCS and Azure are. Why no answer is
missed: whoever releases an ask has stored its answers before, and they are listed after the release was read.

If two intend the same ask at once, each may see the other. The one whose name sorts higher withdraws. The
lower one can't know whether the other had decided already, so it keeps its intent until the other's next
state shows the ask as withdrawn (then it holds the ask) or as held (then it withdraws). If that takes long,
it withdraws as well, which is always safe, and tries again later.

Nobody waits for a dead writer. On a disk of this machine each file is locked as long as its writer lives.
Writers also write their file again every few seconds, and a file of another machine that has not changed for
a minute by the reader's own clock is removed; clocks are never compared. A writer that was held up for that
long itself, as on a suspended machine, counts its claims as lost: see `epoch`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store import locks
from rare_assets.teacher.store.claim_files import (
    ClaimFile,
    Holder,
    LocalFile,
    RemoteFile,
    is_of_this_machine,
    parse,
    state_of,
)
from rare_assets.teacher.store.folder import Folder
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


class ClaimsLost(TeacherStopped):
    """Claims can't be published, so that others might ask for the same."""


@dataclass(slots=True)
class _Wish:
    """Asks that a caller wants to claim, and what came of it."""

    keys: Sequence[bytes]
    done: Future[dict[bytes, Holder]] = field(default_factory=Future)


class Claims:
    """The claims of one writer.

    Args:
        folder: of the answers.
        look: lists the folder again, takes in new answers, and returns the names of all files of claims.
        dead_after_s: seconds without a change until another writer counts as dead, where no lock can tell.

    Attributes:
        poll_s: seconds between two looks at what others hold.
    """

    def __init__(
        self,
        folder: Folder,
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
        self._file: LocalFile | RemoteFile | None = None
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._met = False
        self._since = time.time()
        self._published_at = _now()
        self._writing_s = 0.0
        self._epoch = 0

    async def acquire(self, keys: Sequence[bytes]) -> dict[bytes, Holder]:
        """Claim the keys that nobody else has; returns the others, each with its holder.

        Release each claim as often as it was acquired.

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
        """Let others ask for these keys; their answers are stored, or will not be asked for here."""
        with self._wake:
            for key in keys:
                self._held[key] -= 1
                if self._held[key] <= 0:
                    del self._held[key]
            self._changed = True
            self._wake.notify()

    async def taken(self, keys: Iterable[bytes]) -> dict[bytes, Holder]:
        """Return which of these keys others have at this moment, each with its holder."""
        return await asyncio.to_thread(self._taken, list(keys))

    @property
    def epoch(self) -> int:
        """Number that changes when others may have taken this writer for dead; earlier claims are then lost."""
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

    def _decide(self, wanted: frozenset[int]) -> tuple[dict[int, ClaimFile], bool]:
        """Return which of the intended keys others have, and whether there are living others at all."""
        until = _now() + self._undecided_s
        while True:
            others = self._others()
            theirs: dict[int, ClaimFile] = {}
            undecided: dict[int, ClaimFile] = {}
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
            kind = LocalFile if self._folder.local is not None else RemoteFile
            self._file = kind(self._folder)
        self._file.write(state_of(self._since, map(files.fingerprint, held), intended))
        # From before it was written, since readers may have seen it then.
        self._published_at = started
        self._writing_s = _now() - started

    def _others(self) -> list[ClaimFile]:
        """Return the files of all other living writers; remove those that dead ones have left."""
        with self._reading:
            own = self._file.name if self._file is not None else None
            names = [name for name in self._look() if name != own]
            self._met = bool(names)
            self._seen = {name: seen for name, seen in self._seen.items() if name in names}
            found = []
            for name, content in zip(names, self._contents(names), strict=True):
                if content is None:
                    continue
                other = parse(name, content)
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
        """Read a local file, which may be in the middle of a write."""
        content = b""
        for _ in range(40):
            try:
                content = self._folder.read_whole(name)
            except FileNotFoundError:
                return None
            if not content or not parse(name, content).unreadable:
                break
            time.sleep(0.005)
        return content

    def _is_dead(self, other: ClaimFile, content: bytes) -> bool:
        """Return whether a file's writer is gone; if so, remove the file."""
        unlocked = None
        if self._folder.local is not None:
            here = is_of_this_machine(other.name)
            # A lock of another machine may not be seen here.
            unlocked = locks.remove_if_unlocked(self._folder.local / other.name, only_look=not here)
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
    """Tell people which processes are waited for: after two seconds, then more and more rarely."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._due = time.monotonic() + _SAID_AFTER_S
        self._pause = 60.0

    def note(self, taken: Mapping[bytes, Holder]) -> None:
        """Take in what is waited for now, by key with its holder; say it if that is due."""
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


def _now() -> float:
    """Return seconds of a clock that never goes back; it counts sleep of the machine if the system has such a clock."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
