"""Tidy stored answers: merge many small files into few, and remove what killed processes have left.

Every answer is durable already, so no failure here is fatal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store import locks
from rare_assets.teacher.store.claim_files import is_forgotten, is_of_this_machine
from rare_assets.teacher.store.key_index import Fingerprints, KeyIndex
from rare_assets.teacher.store.stored import StoredAnswers
from rare_assets.teacher.store.writers import IDLE_S, Journal, Parts, Segment

logger = logging.getLogger(__name__)

# Segments below FINAL_BYTES are merged once there are FAN_IN within the same factor FAN_IN of size.
FAN_IN = 8
SMALLEST_TIER_BYTES = 64 * 1024
FINAL_BYTES = 32 * 1024 * 1024
LEFTOVER_S = 86400.0


class Upkeep:
    """Tidy the files of stored answers; other processes may do so at the same time."""

    def __init__(self, stored: StoredAnswers) -> None:
        self._stored = stored
        self._folder = stored.folder

    def tidy(self, writer: Journal | Parts) -> None:
        """Make a segment of what a writer has written, and merge files. A failure is logged."""
        try:
            self.rewrite(writer.names)
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
        """Make segments of the files that dead writers have left."""
        self._stored.relist(force=True)
        with self._stored.lock:
            own = set(self._stored.writer.names if self._stored.writer is not None else ())
            others = [name for name in self._stored.indexes if name not in own]
        old = [
            name
            for name in others
            if files.kind_of(name) == "part" and files.age_s(name) > 2 * IDLE_S
        ]
        if old:
            self.rewrite(old)
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
            locked = locks.lock(journal.fileno())
            status = os.fstat(journal.fileno())
            if locked is None:
                locked = time.time() - status.st_mtime > 2 * IDLE_S
            if locked and status.st_nlink:
                self._stored.index(name, status.st_size, has_keys=False)
                self.rewrite([name])

    def _merge(self) -> None:
        """Merge segments of about one size until few are left."""
        while True:
            self._stored.relist(force=True)
            tiers: dict[int, list[str]] = defaultdict(list)
            with self._stored.lock:
                for name, index in self._stored.indexes.items():
                    if files.kind_of(name) == "segment" and index.size < FINAL_BYTES:
                        size = max(index.size, SMALLEST_TIER_BYTES)
                        tiers[int(math.log(size / SMALLEST_TIER_BYTES, FAN_IN))].append(name)
            crowded = [sorted(names) for _, names in sorted(tiers.items()) if len(names) >= FAN_IN]
            if not crowded or not self.rewrite(crowded[0]):
                return

    def rewrite(self, names: Sequence[str]) -> bool:
        """Make one segment of some files, and remove them; returns False if another process was faster."""
        with self._stored.lock:
            # Only what is indexed is copied, so only that may be removed.
            sources = {
                name: self._stored.indexes[name] for name in names if name in self._stored.indexes
            }
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
            with self._stored.lock:
                self._stored.indexes[target] = index
        for name in sources:
            if self._stored.gaps.get(name):
                self._folder.rename(name, files.aside_name(name))
            else:
                self._folder.delete(name)
            if files.kind_of(name) == "segment":
                self._folder.delete(files.keys_name(name))
            with self._stored.lock:
                self._stored.indexes.pop(name, None)
        return True

    def _write_segment(
        self, target: str, sources: Mapping[str, KeyIndex], repeated: Fingerprints
    ) -> KeyIndex:
        """Write the answers of some files as one file, of each key the newest. Raises FileNotFoundError."""
        with self._folder.writer(target) as out:
            segment = Segment(out)
            newest: dict[bytes, tuple[float, bytes]] = {}
            for name, index in sources.items():
                with self._stored.lock:
                    spans = {(start, end): prints for start, end, prints in index.frames()}
                for (start, end), raw in self._stored.frames(name, list(spans)):
                    twice = np.isin(spans[start, end], repeated)
                    try:
                        lines = files.unpack(raw)
                    except zlib.error:
                        self._stored.note_lost(name, [(start, end)])
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
                self._folder.write(files.keys_name(target), segment.index.dump())
        return segment.index

    def _set_damaged_aside(self) -> None:
        """Copy what can be read of damaged files, and rename them, so that nobody reads them any more."""
        with self._stored.lock:
            damaged = [
                name
                for name in self._stored.gaps
                if self._stored.gaps[name] and name in self._stored.indexes
            ]
        for name in damaged:
            if files.kind_of(name) != "journal":  # those are taken over once their writer is gone
                self.rewrite([name])

    def _sweep(self) -> None:
        """Remove what writers that were killed in a merge have left."""
        sizes = self._folder.sizes()
        for name in sizes:
            unfinished = name.endswith(files.TEMPORARY)
            orphan = name.endswith(files.KEYS) and files.data_name(name) not in sizes
            if (unfinished or orphan) and files.age_s(name) > LEFTOVER_S:
                self._folder.delete(name)
        for name in self._stored.claim_files:
            if self._folder.local is not None and is_of_this_machine(name):
                locks.remove_if_unlocked(self._folder.local / name)
            elif is_forgotten(name):
                self._folder.delete(name)
