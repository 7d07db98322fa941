"""Index the keys of a file of answers: 12 bytes an answer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# The first 64 bits of keys.
Fingerprints = npt.NDArray[np.uint64]


class Place(NamedTuple):
    """Where an answer may lie in a file: the frame's byte range, and the line in it."""

    start: int
    end: int
    line: int


class KeyIndex:
    """The keys of one file and where their answers lie: 12 bytes an answer, without a Python object for each.

    Example:
        >>> index = KeyIndex()
        >>> index.add(0, 100, np.array([7, 3], np.uint64))
        >>> list(index.find(np.array([3], np.uint64)))
        [(0, Place(start=0, end=100, line=1))]
    """

    def __init__(self) -> None:
        self.size = 0
        self._starts = np.empty(0, np.uint64)
        self._ends = np.empty(0, np.uint64)
        self._firsts = np.zeros(1, np.uint64)
        self._sorted: Fingerprints = np.empty(0, np.uint64)
        self._order = np.empty(0, np.uint32)
        self._new: list[tuple[int, int, Fingerprints]] = []

    def __len__(self) -> int:
        return len(self._sorted) + sum(len(added) for _, _, added in self._new)

    def add(self, start: int, end: int, added: Fingerprints) -> None:
        """Take in the next frame of the file.

        Args:
            start, end: its first byte, and the byte behind it.
            added: fingerprints of its keys, uint64 of shape (answers,).
        """
        self._new.append((start, end, added))
        self.size = end

    def find(self, wanted: Fingerprints) -> Iterator[tuple[int, Place]]:
        """Yield each answer that may be wanted: its position in `wanted`, and its place in the file."""
        self._settle()
        left = np.searchsorted(self._sorted, wanted, "left")
        right = np.searchsorted(self._sorted, wanted, "right")
        for position in np.flatnonzero(right > left):
            for record in self._order[left[position] : right[position]]:
                frame = int(np.searchsorted(self._firsts, record, "right")) - 1
                yield (
                    int(position),
                    Place(
                        int(self._starts[frame]),
                        int(self._ends[frame]),
                        int(record - self._firsts[frame]),
                    ),
                )

    def in_frame(self, start: int) -> int:
        """Return the number of answers in the frame that begins at this byte."""
        self._settle()
        frame = int(np.searchsorted(self._starts, np.uint64(start)))
        return int(self._firsts[frame + 1] - self._firsts[frame])

    def frames(self) -> Iterator[tuple[int, int, Fingerprints]]:
        """Yield start, end (bytes) and fingerprints of every frame, in the file's order."""
        everything = self.all()
        for number, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            first, stop = int(self._firsts[number]), int(self._firsts[number + 1])
            yield int(start), int(end), everything[first:stop]

    def all(self) -> Fingerprints:
        """Return all fingerprints in the file's order, uint64 of shape (answers,)."""
        self._settle()
        everything = np.empty_like(self._sorted)
        everything[self._order] = self._sorted
        return everything

    def dump(self) -> bytes:
        """Return the index as a NumPy archive (.npz)."""
        everything = self.all()
        out = io.BytesIO()
        np.savez(
            out,
            size=np.uint64(self.size),
            keys=everything,
            starts=self._starts,
            ends=self._ends,
            firsts=self._firsts,
        )
        return out.getvalue()

    @classmethod
    def load(cls, dumped: bytes) -> KeyIndex:
        """Read what `dump` returned.

        Raises:
            ValueError, zipfile.BadZipFile, KeyError, OSError: it is no index, or damaged.
        """
        index = cls()
        with np.load(io.BytesIO(dumped), allow_pickle=False) as archive:
            index.size = int(archive["size"])
            index._starts, index._ends = archive["starts"], archive["ends"]
            index._firsts = archive["firsts"]
            index._sort(archive["keys"])
        frames = len(index._starts)
        if not len(index._ends) == frames == len(index._firsts) - 1:
            raise ValueError("it does not agree with itself")
        if frames and (index._ends[-1] != index.size or index._firsts[-1] != len(index._order)):
            raise ValueError("it does not agree with itself")
        return index

    def _settle(self) -> None:
        if not self._new:
            return
        new, self._new = self._new, []
        counts = np.cumsum([len(added) for _, _, added in new], dtype=np.uint64)
        known = self.all()
        self._starts = np.append(self._starts, np.array([s for s, _, _ in new], np.uint64))
        self._ends = np.append(self._ends, np.array([e for _, e, _ in new], np.uint64))
        self._firsts = np.append(self._firsts, counts + np.uint64(len(known)))
        self._sort(np.concatenate([known, *(added for _, _, added in new)]))

    def _sort(self, in_file_order: Fingerprints) -> None:
        self._order = np.argsort(in_file_order, kind="stable").astype(np.uint32)
        self._sorted = in_file_order[self._order]
