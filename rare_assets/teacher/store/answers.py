"""The teacher's answers on durable storage: each one is paid for once, whoever asks again.

Under one folder or URL lie files of answers (format: `answer_files`):

- `journal-*`: what one running process has stored so far, on a local disk; it grows by a frame and
  an fsync for all answers that are waiting (group commit). Its writer holds a lock on it.
- `part-*`: the same behind a URL, where nothing can grow: one object a group commit.
- `claims-*`: what a process is asking for at this moment (`claims`).
- `segment-*`: what journals and parts become when their writer closes or they get large. Segments
  of like size are merged eight at a time, so that few files remain however many runs there were.

Files are only ever written whole, under names nobody else chooses, and removed after all they hold
is durable elsewhere. So any number of processes may write, merge and read at once, and the worst
that a kill or a race leaves behind is a duplicate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import threading
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store.claims import (
    DEAD_AFTER_S,
    Claims,
    is_claims,
    is_forgotten,
    is_of_this_machine,
)
from rare_assets.text.shown_url import shown, without_secrets

logger = logging.getLogger(__name__)

# A journal is closed and a new one begun at this size; parts at this number.
JOURNAL_BYTES = 32 * 1024 * 1024
PARTS = 64
# Segments below FINAL_BYTES are merged once there are FAN_IN within the same factor FAN_IN of size.
FAN_IN = 8
SMALLEST_TIER_BYTES = 64 * 1024
# Of an answer, compressed; only to guess how many are lost with a file.
TYPICAL_BYTES = 500
FINAL_BYTES = 32 * 1024 * 1024
# A writer never adds to a journal after this pause, others take it over after twice as long.
IDLE_S = 1800.0
LEFTOVER_S = 86400.0


class AnswersNotStored(TeacherStopped):
    """Answers can't be written any more, so no more may be paid for."""


class AnswersNotRead(TeacherStopped):
    """Whether answers are stored can't be told, so none may be asked for."""


class AnswerStats(NamedTuple):
    """What a store holds: answers (a duplicate counts twice), bytes compressed, files."""

    answers: int
    bytes: int
    files: int


class _Group:
    """Answers that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.stored: Future[None] = Future()
        # From here on nobody who stops waiting can cancel it for the others.
        self.stored.set_running_or_notify_cancel()


class AnswerStore:
    """Answers by key, readable by every process that reaches the folder.

    Answers that another process stores are seen from the next look-up on (at most `relist_s`
    later). One store may be used from several event loops and threads.

    Args:
        root: local folder or fsspec URL such as s3://bucket/teacher_answers; made at the first put.
        storage_options: passed to the fsspec file system; object stores otherwise take theirs from
            their own environment variables.
        commit_interval_s: least time between two commits; default 0.01 s local, 1 s behind a URL.
        relist_s: least time between two listings; default 0.5 s local, 30 s behind a URL.
        dead_after_s: seconds until the claims of a process that was killed are void, where no lock
            tells at once.
        say: called with a line for people where answers are lost; default, a warning in the log.
    """

    def __init__(
        self,
        root: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        commit_interval_s: float | None = None,
        relist_s: float | None = None,
        dead_after_s: float = DEAD_AFTER_S,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = files.Folder(root, storage_options)
        local = self._folder.local is not None
        default_s = 0.01 if local else 1.0
        self._interval_s = commit_interval_s if commit_interval_s is not None else default_s
        self._relist_s = relist_s if relist_s is not None else (0.5 if local else 30.0)
        # Two locks, so that a put never waits for a look-up: one for what waits to be stored ...
        self._wake = threading.Condition()
        self._group: _Group | None = None
        self._committer: threading.Thread | None = None
        self._broken: AnswersNotStored | None = None
        self._closed = False
        # ... and one for the indexes and who writes.
        self._lock = threading.Lock()
        self._relist_lock = threading.Lock()
        self._indexes: dict[str, files.KeyIndex] = {}
        self._claim_files: list[str] = []
        self._dead_after_s = dead_after_s
        self._listed_at = -math.inf
        self._upkeep: ThreadPoolExecutor | None = None
        self._writer: _Journal | _Parts | None = None
        # Of each damaged file: where it can't be read, and how many answers are lost with that.
        self._say = say or logger.warning
        self._gaps: dict[str, dict[int, int]] = defaultdict(dict)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def unreadable(self) -> int:
        """How many answers were found to be lost in damaged files so far."""
        with self._lock:
            return sum(sum(lost.values()) for lost in self._gaps.values())

    @property
    def quick(self) -> bool:
        """Whether a put takes milliseconds, as on a local disk."""
        return self._folder.local is not None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """The answers stored under these keys (32 bytes each); of several, the one put last.

        Made for look-ups of about a thousand keys: those put together are read together.

        Raises:
            AnswersNotRead: the folder can't be listed or a file in it can't be read. An answer is
                taken for absent only where the storage says so, since it would be paid for again.
        """
        try:
            return await asyncio.to_thread(self._get, keys)
        except TeacherStopped:
            raise
        except Exception as error:
            raise AnswersNotRead(
                f"The answers stored under {shown(self._folder.root)} can't be read: "
                f"{type(error).__name__}: {without_secrets(error, str(self._folder.root))}. Nothing is asked, since what is stored there "
                "would be paid for again. Mend the storage, then run again."
            ) from error

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Store an answer under its key; returns once it is on durable storage.

        Raises:
            AnswersNotStored: it could not be written (disk full, no permission, ...). Every later
                put raises the same.
            TypeError: the record is no JSON.
        """
        line = files.encode(key, time.time(), record)
        with self._wake:
            if self._broken is not None:
                raise self._broken
            if self._closed:
                raise AnswersNotStored(
                    f"The store of answers {shown(self._folder.root)} is closed."
                )
            if self._group is None:
                self._group = _Group()
            group = self._group
            group.lines.append(line)
            if self._committer is None:
                self._committer = threading.Thread(
                    target=self._commit_loop, name="answers-commit", daemon=True
                )
                self._committer.start()
            self._wake.notify()
        await asyncio.wrap_future(group.stored)

    async def close(self) -> None:
        """Make what is waiting durable, and tidy up what this process has written.

        Raises:
            AnswersNotStored: the files that it had written are gone.
        """
        await asyncio.to_thread(self._close)

    def claims(self) -> Claims:
        """Claims of one more writer, to be closed before the store."""
        return Claims(self._folder, self._look, dead_after_s=self._dead_after_s)

    def folder(self, name: str) -> files.Folder:
        """A folder beside the answers, for what belongs to them."""
        return self._folder.folder(name)

    async def stats(self) -> AnswerStats:
        """What the folder holds now."""
        return await asyncio.to_thread(self._stats)

    # ---- reading

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        self._relist(force=False)
        for _ in range(20):
            newest: dict[bytes, tuple[float, dict[str, Any]]] = {}
            try:
                for name, places in self._locate(wanted).items():
                    for key, at, answer in self._read(name, places):
                        if key not in newest or newest[key][0] < at:
                            newest[key] = at, answer
            except FileNotFoundError:  # merged into another file since it was listed
                self._relist(force=True)
                continue
            return {key: answer for key, (_, answer) in newest.items()}
        raise OSError(f"{shown(self._folder.root)}: files keep vanishing while they are read.")

    def _locate(self, wanted: list[bytes]) -> dict[str, list[tuple[bytes, files.Place]]]:
        """For each file, the keys that may be in it and where."""
        prints = np.fromiter((files.fingerprint(key) for key in wanted), np.uint64, len(wanted))
        with self._lock:
            return {
                name: found
                for name, index in self._indexes.items()
                if (found := [(wanted[number], place) for number, place in index.find(prints)])
            }

    def _read(
        self, name: str, places: list[tuple[bytes, files.Place]]
    ) -> Iterator[tuple[bytes, float, dict[str, Any]]]:
        by_frame: dict[tuple[int, int], list[tuple[bytes, int]]] = defaultdict(list)
        for key, place in places:
            by_frame[place.start, place.end].append((key, place.line))
        lost: list[tuple[int, int]] = []
        for (start, end), raw in self._frames(name, sorted(by_frame)):
            try:
                lines = files.unpack(raw)
            except zlib.error:
                lost.append((start, end))
                continue
            for key, number in by_frame[start, end]:
                if number < len(lines) and files.key_of(lines[number]) == key:
                    found = json.loads(lines[number])
                    yield key, found["at"], found["answer"]
        self._note_lost(name, lost)

    def _note_lost(
        self, name: str, spans: Sequence[tuple[int, int]], more: int | None = None
    ) -> None:
        """Say what is lost where a file can't be read, once: `more` answers, or those indexed there."""
        with self._lock:
            index, known = self._indexes.get(name), self._gaps[name]
            new = [span for span in spans if span[0] not in known]
            if not new:
                return
            for start, _ in new:
                known[start] = index.in_frame(start) if more is None and index is not None else 0
            if more is not None:
                known[new[0][0]] = more
            answers = sum(known[start] for start, _ in new)
        places = ", ".join(f"{start:,} to {end:,}" for start, end in new[:3])
        self._say(
            f"{shown(self._folder.root)}/{name} is damaged: {answers:,} stored answers can't be read "
            f"(bytes {places}{', ...' if len(new) > 3 else ''}). Those that are needed are asked and "
            "paid for again; to prevent that, stop now and restore this file from a backup. It is "
            f"kept, later as {_aside(name)}."
        )

    def _frames(
        self, name: str, spans: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], bytes]]:
        """The bytes of some frames in file order; neighbours are read in one go."""
        runs: list[list[tuple[int, int]]] = []
        for span in spans:
            if runs and runs[-1][-1][1] == span[0] and span[1] - runs[-1][0][0] <= files.READ_BYTES:
                runs[-1].append(span)
            else:
                runs.append([span])
        for first in range(0, len(runs), 64):
            batch = runs[first : first + 64]
            read = self._folder.read(name, [(run[0][0], run[-1][1]) for run in batch])
            for run, content in zip(batch, read, strict=True):
                for start, end in run:
                    yield (start, end), content[start - run[0][0] : end - run[0][0]]

    def _look(self) -> list[str]:
        """List anew, and return the files of claims."""
        self._relist(force=True)
        return self._claim_files

    def _relist(self, *, force: bool) -> None:
        """Bring the indexes up to what the folder holds now."""
        with self._relist_lock:
            if not force and time.monotonic() - self._listed_at < self._relist_s:
                return
            with self._lock:
                known, writer = list(self._indexes), self._writer
                written = writer.stored if writer is not None else ()
            sizes = self._folder.sizes(lambda name: files.kind_of(name) or is_claims(name))
            self._claim_files = [name for name in sizes if is_claims(name)]
            if lost := [name for name in written if name not in sizes]:
                with self._lock:
                    if self._writer is writer:  # else it has made a segment of them
                        raise AnswersNotStored(_gone(self._folder.root, lost))
            for name, size in sizes.items():
                if name.endswith(files.DATA):
                    with contextlib.suppress(FileNotFoundError):
                        self._index(name, size, has_keys=_keys_name(name) in sizes)
            with self._lock:
                for name in known:  # not those written since, which the listing can't show
                    if name not in sizes:
                        self._indexes.pop(name, None)
            self._listed_at = time.monotonic()

    def _index(self, name: str, size: int, *, has_keys: bool) -> None:
        """Index a file that is new or has grown. Raises FileNotFoundError."""
        with self._lock:
            known = self._indexes.get(name)
            if known is not None and known.size >= size:
                return
            if self._writer is not None and name in self._writer.names:
                return
        indexed = self._load_keys(name) if known is None and has_keys else None
        if indexed is not None and indexed.size == size and self._is_index_of(indexed, name):
            with self._lock:
                self._indexes[name] = indexed
            return
        start = known.size if known is not None else 0
        gaps: list[tuple[int, int]] = []
        grown = [
            (frame.start, frame.end, files.fingerprints(frame.lines))
            for frame in files.scan(self._reader(name), start, size, gaps)
        ]
        with self._lock:
            index = self._indexes.setdefault(name, files.KeyIndex())
            for frame_start, end, prints in grown:
                if frame_start >= index.size:
                    index.add(frame_start, end, prints)
        whole = files.kind_of(name) != "journal"
        if gaps and not whole and gaps[-1][1] == size:
            gaps.pop()  # its writer was killed, or is still writing: nobody has this answer yet
        if whole and not size:
            gaps.append((0, 0))  # files that appear whole are never empty
        if gaps:
            self._note_lost(name, gaps, self._number_lost(grown, gaps, indexed))

    @staticmethod
    def _number_lost(
        grown: Sequence[tuple[int, int, files.Fingerprints]],
        gaps: Sequence[tuple[int, int]],
        indexed: files.KeyIndex | None,
    ) -> int:
        """How many answers lay in the gaps of a file: by its index, else by the size of the others."""
        found = sum(len(prints) for _, _, prints in grown)
        if indexed is not None and len(indexed) > found:
            return len(indexed) - found
        lost = sum(end - start for start, end in gaps)
        read = sum(end - start for start, end, _ in grown)
        return max(1, round(found * lost / read)) if read else max(1, lost // TYPICAL_BYTES)

    def _load_keys(self, name: str) -> files.KeyIndex | None:
        """The index beside a file; None if it is missing or of no use, and the file must be read."""
        try:
            dumped = self._folder.read_whole(_keys_name(name))
        except FileNotFoundError:
            return None
        try:
            return files.KeyIndex.load(dumped)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s/%s: %s", self._folder.root, _keys_name(name), error)
            return None

    def _is_index_of(self, index: files.KeyIndex, name: str) -> bool:
        """Whether an index is that of the file, judged by the first frame that can be read."""
        for start, end, prints in index.frames():
            try:
                lines = files.unpack(self._reader(name)(start, end))
            except zlib.error:
                continue
            return np.array_equal(files.fingerprints(lines), prints)
        return False

    def _reader(self, name: str) -> Any:
        return lambda start, end: self._folder.read(name, [(start, end)])[0]

    def _stats(self) -> AnswerStats:
        self._relist(force=True)
        sizes = self._folder.sizes()
        with self._lock:
            return AnswerStats(
                sum(len(index) for index in self._indexes.values()),
                sum(sizes.values()),
                len(sizes),
            )

    # ---- writing

    def _commit_loop(self) -> None:
        earliest = 0.0
        while True:
            with self._wake:
                while self._group is None and not self._closed:
                    self._wake.wait()
                while not self._closed and (pause := earliest - time.monotonic()) > 0:
                    self._wake.wait(pause)
                group, self._group = self._group, None
                if group is None:
                    return
            earliest = time.monotonic() + self._interval_s
            try:
                if self._broken is not None:
                    raise self._broken
                self._commit(group.lines)
            except AnswersNotStored as error:
                group.stored.set_exception(error)
            except Exception as error:
                stored = self._writer.stored if self._writer is not None else ()
                gone = isinstance(error, FileNotFoundError) and stored
                self._broken = AnswersNotStored(
                    _gone(self._folder.root, stored)
                    if gone
                    else f"Answers can't be stored under {shown(self._folder.root)}: {error}. Asking stops, "
                    "since every further answer would be paid for and lost. Make room or mend the "
                    "storage, then run again: what is stored will not be asked again."
                )
                self._broken.__cause__ = error
                group.stored.set_exception(self._broken)
            else:
                group.stored.set_result(None)

    def _commit(self, lines: list[bytes]) -> None:
        if self._writer is not None and self._writer.full:
            self._retire()
        if self._writer is None:
            kind = _Journal if self._folder.local is not None else _Parts
            with self._lock:
                self._writer = kind(self._folder)
        frame = files.pack(lines)
        name, start = self._writer.append(frame)
        with self._lock:
            index = self._indexes.setdefault(name, files.KeyIndex())
            index.add(start, start + len(frame), files.fingerprints(lines))

    def _retire(self) -> None:
        """Have a full journal made a segment in the background, and begin a new one."""
        with self._lock:
            writer, self._writer = self._writer, None
            if self._upkeep is None:
                self._upkeep = ThreadPoolExecutor(1, "answers-upkeep")
        if writer is not None:
            self._upkeep.submit(self._tidy, writer)

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._committer is not None:
            self._committer.join()
        if self._upkeep is not None:
            self._upkeep.shutdown()
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.check()
            except OSError as error:
                writer.release()
                raise AnswersNotStored(_gone(self._folder.root, writer.stored)) from error
            self._tidy(writer)

    # ---- upkeep: every answer is durable already, so nothing here is fatal

    def _tidy(self, writer: _Journal | _Parts) -> None:
        try:
            self._rewrite(writer.names)
            writer.release()
            self._adopt()
            self._merge()
            self._set_damaged_aside()
            self._sweep()
        except Exception as error:
            logger.warning("%s: files of answers left as they are: %s", self._folder.root, error)
        finally:
            writer.release()

    def _adopt(self) -> None:
        """Make segments of what writers that are gone have left."""
        self._relist(force=True)
        with self._lock:
            own = set(self._writer.names if self._writer is not None else ())
            others = [name for name in self._indexes if name not in own]
        old = [
            name
            for name in others
            if files.kind_of(name) == "part" and files.age_s(name) > 2 * IDLE_S
        ]
        if old:
            self._rewrite(old)
        if self._folder.local is None:
            return
        for name in others:
            if files.kind_of(name) == "journal":
                with contextlib.suppress(OSError):
                    self._adopt_journal(name)

    def _adopt_journal(self, name: str) -> None:
        assert self._folder.local is not None
        path = self._folder.local / name
        with open(path, "r+b") as journal:
            locked = files.lock(journal.fileno())
            status = os.fstat(journal.fileno())
            if locked is None:
                locked = time.time() - status.st_mtime > 2 * IDLE_S
            if locked and status.st_nlink:
                self._index(name, status.st_size, has_keys=False)
                self._rewrite([name])

    def _merge(self) -> None:
        """Merge segments of like size until few are left."""
        while True:
            self._relist(force=True)
            tiers: dict[int, list[str]] = defaultdict(list)
            with self._lock:
                for name, index in self._indexes.items():
                    if files.kind_of(name) == "segment" and index.size < FINAL_BYTES:
                        size = max(index.size, SMALLEST_TIER_BYTES)
                        tiers[int(math.log(size / SMALLEST_TIER_BYTES, FAN_IN))].append(name)
            crowded = [sorted(names) for _, names in sorted(tiers.items()) if len(names) >= FAN_IN]
            if not crowded or not self._rewrite(crowded[0]):
                return

    def _rewrite(self, names: Sequence[str]) -> bool:
        """Make one segment of some files, then remove them; False if another process was faster."""
        with self._lock:
            # Only what is indexed is copied, so only that may be removed.
            sources = {name: self._indexes[name] for name in names if name in self._indexes}
            every = [index.all() for index in sources.values()]
        if not sources:
            return False
        prints, counts = np.unique(np.concatenate(every), return_counts=True)
        if len(prints):
            target = files.new_name("segment")
            try:
                index = self._write_segment(target, sources, prints[counts > 1])
            except FileNotFoundError:
                return False
            with self._lock:
                self._indexes[target] = index
        for name in sources:
            if self._gaps.get(name):
                self._folder.rename(name, _aside(name))
            else:
                self._folder.delete(name)
            if files.kind_of(name) == "segment":
                self._folder.delete(_keys_name(name))
            with self._lock:
                self._indexes.pop(name, None)
        return True

    def _write_segment(
        self, target: str, sources: Mapping[str, files.KeyIndex], repeated: files.Fingerprints
    ) -> files.KeyIndex:
        """Write the answers of some files as one, of each key the newest. Raises FileNotFoundError."""
        with self._folder.writer(target) as out:
            segment = _Segment(out)
            newest: dict[bytes, tuple[float, bytes]] = {}
            for name, index in sources.items():
                with self._lock:
                    spans = {(start, end): prints for start, end, prints in index.frames()}
                for (start, end), raw in self._frames(name, list(spans)):
                    twice = np.isin(spans[start, end], repeated)
                    try:
                        lines = files.unpack(raw)
                    except zlib.error:
                        self._note_lost(name, [(start, end)])
                        continue
                    if end - start >= files.FRAME_BYTES // 8 and not twice.any():
                        segment.copy(raw, spans[start, end])
                        continue
                    for line, again in zip(lines, twice, strict=True):
                        if not again:
                            segment.add(line)
                            continue
                        key, at = files.key_of(line), json.loads(line)["at"]
                        if key not in newest or newest[key][0] < at:
                            newest[key] = at, line
            for _, line in newest.values():
                segment.add(line)
            segment.flush()
            if segment.index.size >= files.INDEXED_FROM:
                # Before the segment appears, so that nobody has to read it whole.
                self._folder.write(_keys_name(target), segment.index.dump())
        return segment.index

    def _set_damaged_aside(self) -> None:
        """Copy what can be read of damaged files; they are kept under a name that nobody reads."""
        with self._lock:
            damaged = [name for name in self._gaps if self._gaps[name] and name in self._indexes]
        for name in damaged:
            if files.kind_of(name) != "journal":  # those are taken over once their writer is gone
                self._rewrite([name])

    def _sweep(self) -> None:
        """Remove what writers killed in the middle of a merge have left."""
        sizes = self._folder.sizes()
        for name in sizes:
            unfinished = name.endswith(files.TEMPORARY)
            orphan = name.endswith(files.KEYS) and _data_name(name) not in sizes
            if (unfinished or orphan) and files.age_s(name) > LEFTOVER_S:
                self._folder.delete(name)
        for name in self._claim_files:
            if self._folder.local is not None and is_of_this_machine(name):
                files.remove_if_unlocked(self._folder.local / name)
            elif is_forgotten(name):
                self._folder.delete(name)


class _Segment:
    """Writes frames of a good size and indexes them."""

    def __init__(self, out: Any) -> None:
        self.index = files.KeyIndex()
        self._out = out
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= files.FRAME_BYTES:
            self.flush()

    def copy(self, frame: bytes, prints: files.Fingerprints) -> None:
        self.flush()
        self._write(frame, prints)

    def flush(self) -> None:
        if self._lines:
            lines, self._lines, self._bytes = self._lines, [], 0
            self._write(files.pack(lines), files.fingerprints(lines))

    def _write(self, frame: bytes, prints: files.Fingerprints) -> None:
        self._out.write(frame)
        self.index.add(self.index.size, self.index.size + len(frame), prints)


class _Journal:
    """The file that this process adds to, locked as long as it may."""

    def __init__(self, folder: files.Folder) -> None:
        new = partial(files.new_name, "journal")
        self._name, self._path, self._descriptor, _ = files.create_locked(folder, new)
        folder.sync()
        self._size = 0
        self._released = False
        self._last = time.monotonic()

    @property
    def names(self) -> Sequence[str]:
        return (self._name,)

    @property
    def stored(self) -> Sequence[str]:
        """Files that are durable."""
        return (self._name,)

    @property
    def full(self) -> bool:
        return self._size >= JOURNAL_BYTES or time.monotonic() - self._last > IDLE_S

    def append(self, frame: bytes) -> tuple[str, int]:
        """Add a frame durably; returns the file and the offset. Raises OSError, the file unharmed."""
        start, rest = self._size, memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            self.check()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
                os.lseek(self._descriptor, start, os.SEEK_SET)
            raise
        self._size += len(frame)
        self._last = time.monotonic()
        return self._name, start

    def check(self) -> None:
        """Raise OSError if the file is not found under its name any more, so that nobody reads it."""
        files.check_place(self._descriptor, self._path)

    def release(self) -> None:
        if not self._released:
            self._released = True
            os.close(self._descriptor)


class _Parts:
    """Objects of one commit each, where a file can't grow."""

    def __init__(self, folder: files.Folder) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._stored: list[str] = []
        self._bytes = 0

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._names)

    @property
    def stored(self) -> Sequence[str]:
        """Files that are durable."""
        return tuple(self._stored)

    def check(self) -> None:
        """Nothing to do: a write that did not reach the store has failed."""

    @property
    def full(self) -> bool:
        return len(self._names) >= PARTS or self._bytes >= JOURNAL_BYTES

    def append(self, frame: bytes) -> tuple[str, int]:
        name = files.new_name("part")
        # Before it is there, so that a listing meanwhile leaves it to us.
        self._names.append(name)
        for pause in (1.0, 4.0, None):
            try:
                self._folder.write(name, frame)
                break
            except Exception:
                if pause is None:
                    self._names.remove(name)
                    raise
                time.sleep(pause)
        self._stored.append(name)
        self._bytes += len(frame)
        return name, 0

    def release(self) -> None:
        """Nothing is held."""


def _gone(root: str, names: Sequence[str]) -> str:
    return (
        f"The answers that this run has stored under {shown(root)} are gone ({', '.join(names[:3])}): the "
        "storage was deleted, renamed or replaced meanwhile. Asking stops, since further answers "
        "would be lost as well. Put the storage back, then run again."
    )


def _aside(name: str) -> str:
    return f"damaged-{name}"


def _keys_name(name: str) -> str:
    return name.removesuffix(files.DATA) + files.KEYS


def _data_name(name: str) -> str:
    return name.removesuffix(files.KEYS) + files.DATA
