"""Find stored answers: keep an index of every file in the folder, and follow what the folder holds."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store.claim_files import is_claims
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.store.key_index import Fingerprints, KeyIndex, Place
from rare_assets.teacher.store.writers import Journal, Parts
from rare_assets.text.shown_url import shown

logger = logging.getLogger(__name__)

# Of an answer, compressed; only to guess how many are lost with a file.
TYPICAL_BYTES = 500


class AnswersNotStored(TeacherStopped):
    """Answers can't be written any more, so no more may be paid for."""


class AnswersNotRead(TeacherStopped):
    """The storage can't tell whether answers are stored, so none may be asked for."""


class AnswerStats(NamedTuple):
    """What a store holds: answers (a duplicate counts twice), compressed bytes, files."""

    answers: int
    bytes: int
    files: int


class StoredAnswers:
    """Find answers in the files of a folder.

    Args:
        folder: where the files lie.
        relist_s: seconds between two listings, at least, unless a listing is forced.
        say: called with a line for people if answers are lost.

    Attributes:
        lock: for the other attributes; nobody who holds it waits for a disk.
        indexes: index of each file, by the file's name.
        gaps: for each damaged file, the starts of the parts that can't be read, each with the number of
            answers lost there.
        writer: what this process adds to at present; whoever adds indexes its files.
        claim_files: names of the files of claims in the last listing.
    """

    def __init__(self, folder: Folder, *, relist_s: float, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.indexes: dict[str, KeyIndex] = {}
        self.gaps: dict[str, dict[int, int]] = defaultdict(dict)
        self.writer: Journal | Parts | None = None
        self.claim_files: list[str] = []
        self._relist_lock = threading.Lock()
        self._relist_s = relist_s
        self._listed_at = -math.inf
        self._say = say

    @property
    def unreadable(self) -> int:
        """Number of answers that were found to be lost in damaged files so far."""
        with self.lock:
            return sum(sum(lost.values()) for lost in self.gaps.values())

    def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return the answers under these keys; of several under one key, the one put last.

        Raises:
            OSError: or another error of the file system, which can't tell.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        self.relist(force=False)
        for _ in range(20):
            newest: dict[bytes, tuple[float, dict[str, Any]]] = {}
            try:
                for name, places in self._locate(wanted).items():
                    for key, at, answer in self._read(name, places):
                        if key not in newest or newest[key][0] < at:
                            newest[key] = at, answer
            except FileNotFoundError:  # merged into another file since it was listed
                self.relist(force=True)
                continue
            return {key: answer for key, (_, answer) in newest.items()}
        raise OSError(f"{shown(self.folder.root)}: files keep vanishing while they are read.")

    def _locate(self, wanted: list[bytes]) -> dict[str, list[tuple[bytes, Place]]]:
        """Return for each file the keys that may be in it, each with its place."""
        prints = np.fromiter((files.fingerprint(key) for key in wanted), np.uint64, len(wanted))
        with self.lock:
            return {
                name: found
                for name, index in self.indexes.items()
                if (found := [(wanted[number], place) for number, place in index.find(prints)])
            }

    def _read(
        self, name: str, places: list[tuple[bytes, Place]]
    ) -> Iterator[tuple[bytes, float, dict[str, Any]]]:
        by_frame: dict[tuple[int, int], list[tuple[bytes, int]]] = defaultdict(list)
        for key, place in places:
            by_frame[place.start, place.end].append((key, place.line))
        lost: list[tuple[int, int]] = []
        for (start, end), raw in self.frames(name, sorted(by_frame)):
            try:
                lines = files.unpack(raw)
            except zlib.error:
                lost.append((start, end))
                continue
            for key, number in by_frame[start, end]:
                if number < len(lines) and files.key_of(lines[number]) == key:
                    found = json.loads(lines[number])
                    yield key, found["at"], found["answer"]
        self.note_lost(name, lost)

    def note_lost(
        self, name: str, spans: Sequence[tuple[int, int]], more: int | None = None
    ) -> None:
        """Say once what is lost with parts of a file that can't be read.

        Args:
            name: of the file.
            spans: start and end of each part, in bytes.
            more: number of answers lost. Default: those that the index has there.
        """
        with self.lock:
            index, known = self.indexes.get(name), self.gaps[name]
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
            f"{shown(self.folder.root)}/{name} is damaged: {answers:,} stored answers can't be read "
            f"(bytes {places}{', ...' if len(new) > 3 else ''}). Those that are needed are asked and "
            "paid for again; to prevent that, stop now and restore this file from a backup. It is "
            f"kept, later as {files.aside_name(name)}."
        )

    def frames(
        self, name: str, spans: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Yield frames with their bytes, in the file's order; neighbours are read together.

        Args:
            name: of the file.
            spans: start and end of each frame, sorted.
        """
        runs: list[list[tuple[int, int]]] = []
        for span in spans:
            if runs and runs[-1][-1][1] == span[0] and span[1] - runs[-1][0][0] <= files.READ_BYTES:
                runs[-1].append(span)
            else:
                runs.append([span])
        for first in range(0, len(runs), 64):
            batch = runs[first : first + 64]
            read = self.folder.read(name, [(run[0][0], run[-1][1]) for run in batch])
            for run, content in zip(batch, read, strict=True):
                for start, end in run:
                    yield (start, end), content[start - run[0][0] : end - run[0][0]]

    def look(self) -> list[str]:
        """List the folder again, and return the names of the files of claims."""
        self.relist(force=True)
        return self.claim_files

    def relist(self, *, force: bool) -> None:
        """Bring the indexes up to date with the folder.

        Args:
            force: list it even if the last listing is younger than `relist_s`.

        Raises:
            AnswersNotStored: files that this process has written are gone.
        """
        with self._relist_lock:
            if not force and time.monotonic() - self._listed_at < self._relist_s:
                return
            with self.lock:
                known, writer = list(self.indexes), self.writer
                written = writer.stored if writer is not None else ()
            sizes = self.folder.sizes(lambda name: files.kind_of(name) or is_claims(name))
            self.claim_files = [name for name in sizes if is_claims(name)]
            if lost := [name for name in written if name not in sizes]:
                with self.lock:
                    if self.writer is writer:  # else it has made a segment of them
                        raise AnswersNotStored(described_gone(self.folder.root, lost))
            for name, size in sizes.items():
                if name.endswith(files.DATA):
                    with contextlib.suppress(FileNotFoundError):
                        self.index(name, size, has_keys=files.keys_name(name) in sizes)
            with self.lock:
                for name in known:  # not those written since, which the listing can't show
                    if name not in sizes:
                        self.indexes.pop(name, None)
            self._listed_at = time.monotonic()

    def index(self, name: str, size: int, *, has_keys: bool) -> None:
        """Index a file that is new or has grown.

        Args:
            name: of the file.
            size: in bytes, as it was listed.
            has_keys: its index lies beside it.

        Raises:
            FileNotFoundError: it is gone.
        """
        with self.lock:
            known = self.indexes.get(name)
            if known is not None and known.size >= size:
                return
            if self.writer is not None and name in self.writer.names:
                return
        indexed = self._load_keys(name) if known is None and has_keys else None
        if indexed is not None and indexed.size == size and self._is_index_of(indexed, name):
            with self.lock:
                self.indexes[name] = indexed
            return
        start = known.size if known is not None else 0
        gaps: list[tuple[int, int]] = []
        grown = [
            (frame.start, frame.end, files.fingerprints(frame.lines))
            for frame in files.scan(self._reader(name), start, size, gaps)
        ]
        with self.lock:
            index = self.indexes.setdefault(name, KeyIndex())
            for frame_start, end, prints in grown:
                if frame_start >= index.size:
                    index.add(frame_start, end, prints)
        whole = files.kind_of(name) != "journal"
        if gaps and not whole and gaps[-1][1] == size:
            gaps.pop()  # its writer was killed, or is still writing: nobody has this answer yet
        if whole and not size:
            gaps.append((0, 0))  # files that appear whole are never empty
        if gaps:
            self.note_lost(name, gaps, self._number_lost(grown, gaps, indexed))

    @staticmethod
    def _number_lost(
        grown: Sequence[tuple[int, int, Fingerprints]],
        gaps: Sequence[tuple[int, int]],
        indexed: KeyIndex | None,
    ) -> int:
        """Return how many answers lay in the gaps of a file: by its index, else by the size of the others."""
        found = sum(len(prints) for _, _, prints in grown)
        if indexed is not None and len(indexed) > found:
            return len(indexed) - found
        lost = sum(end - start for start, end in gaps)
        read = sum(end - start for start, end, _ in grown)
        return max(1, round(found * lost / read)) if read else max(1, lost // TYPICAL_BYTES)

    def _load_keys(self, name: str) -> KeyIndex | None:
        """Return the index beside a file; None if it is missing or damaged, so that the file must be read."""
        try:
            dumped = self.folder.read_whole(files.keys_name(name))
        except FileNotFoundError:
            return None
        try:
            return KeyIndex.load(dumped)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s/%s: %s", self.folder.root, files.keys_name(name), error)
            return None

    def _is_index_of(self, index: KeyIndex, name: str) -> bool:
        """Return whether an index belongs to a file, judged by the first frame that can be read."""
        for start, end, prints in index.frames():
            try:
                lines = files.unpack(self._reader(name)(start, end))
            except zlib.error:
                continue
            return np.array_equal(files.fingerprints(lines), prints)
        return False

    def _reader(self, name: str) -> Any:
        return lambda start, end: self.folder.read(name, [(start, end)])[0]

    def stats(self) -> AnswerStats:
        """Return how many answers, bytes and files the folder holds now."""
        self.relist(force=True)
        sizes = self.folder.sizes()
        with self.lock:
            return AnswerStats(
                sum(len(index) for index in self.indexes.values()),
                sum(sizes.values()),
                len(sizes),
            )


def described_gone(root: str, names: Sequence[str]) -> str:
    """Return a sentence about files which this process has written and which are not there any more."""
    return (
        f"The answers that this run has stored under {shown(root)} are gone ({', '.join(names[:3])}): the "
        "storage was deleted, renamed or replaced meanwhile. Asking stops, since further answers "
        "would be lost as well. Put the storage back, then run again."
    )
