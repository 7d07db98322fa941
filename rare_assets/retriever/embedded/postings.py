"""Keep postings on disk: for each term, the documents that have it, and how often.

They are a folder of plain little-endian arrays, which never change:

    terms      64-bit hashes of the terms, ascending
    starts     where each term's postings begin, and where the last one's end
    rows       for each posting, its document's row
    impacts    for each posting, its line of `pairs`; 16 bits, or 32 where there are more lines
    pairs      how often a term is in a document << 32 | the document's length as Lucene keeps it
    buckets    the first term of each of 256 equal ranges of hashes, and the number of terms

They hold no statistics of the corpus, no `k1` and no `b`: the query brings these. So postings stay valid
whatever else is indexed, and to merge them is to copy them. Two terms of one hash count as one; at ten
million terms the chance that there is any such pair is three in a million.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_TYPES = {"terms": "<u8", "starts": "<i8", "rows": "<i4", "pairs": "<u8", "buckets": "<i8"}
FILES = (*_TYPES, "impacts")
_BUCKETS = 256
# Postings held in memory at a time while they are read through.
_AT_ONCE = 1 << 19


class Postings(NamedTuple):
    """Postings opened for search, memory-mapped.

    Attributes:
        terms: hashes, ascending; uint64 of shape (terms,).
        starts: where each term's postings begin; int64 of shape (terms + 1,).
        rows: of the documents; int32 of shape (postings,).
        impacts: for each posting its place in `counts` and `lengths`; of shape (postings,).
        counts: how often a term is in a document; of shape (pairs,).
        lengths: of the document, as Lucene keeps it; of shape (pairs,).
    """

    terms: Array
    starts: Array
    rows: Array
    impacts: Array
    counts: Array
    lengths: Array

    @classmethod
    def open(cls, folder: Path) -> Postings:
        """Open stored postings. Raises FileNotFoundError if they are gone."""
        import numpy as np

        def mapped(name: str) -> Array:
            file, kind = folder / name, _type(folder, name)
            if not file.stat().st_size:
                return np.empty(0, kind)
            # A plain view: slices of a memmap cost more than what they feed.
            return np.asarray(np.memmap(file, kind, "r"))

        pairs = _read(folder, "pairs")
        return cls(
            terms=mapped("terms"),
            starts=mapped("starts"),
            rows=mapped("rows"),
            impacts=mapped("impacts"),
            counts=pairs >> 32,
            lengths=pairs & 0xFFFFFFFF,
        )

    def find(self, terms: Array) -> tuple[Array, Array]:
        """Return where the postings of each term start and end; both are equal for a term without any.

        Args:
            terms: hashes, uint64 of shape (n,).

        Returns:
            Two int64 arrays of shape (n,).
        """
        import numpy as np

        if not len(self.terms):
            nowhere = np.zeros(len(terms), np.int64)
            return nowhere, nowhere
        places = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        starts = self.starts[places]
        return starts, np.where(self.terms[places] == terms, self.starts[places + 1], starts)


@functools.lru_cache(1 << 17)
def term_hash(term: str) -> int:
    """Return a term's hash, 64 bits of its BLAKE2, which is the same on every machine.

    >>> term_hash("ice") == term_hash("ice") != term_hash("salt")
    True
    """
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def lucene_length(lengths: Array) -> Array:
    """Return document lengths as Lucene keeps them in one byte (`SmallFloat.intToByte4`).

    They are exact up to 40; above it, what they have over 24 is rounded down to four significant bits.

    Args:
        lengths: in terms, integers of any shape.

    Example:
        >>> import numpy as np
        >>> lucene_length(np.array([40, 41, 1_000])).tolist()
        [40, 40, 984]
    """
    import numpy as np

    above = np.maximum(lengths.astype(np.int64) - 24, 0)
    lost_bits = np.maximum(np.frexp(above)[1].astype(np.int64) - 4, 0)
    return np.where(lengths < 24, lengths, 24 + (above >> lost_bits << lost_bits))


def write_postings(folder: Path, documents: Sequence[Sequence[str]]) -> Array:
    """Write the postings of documents.

    Args:
        folder: to write to; made here.
        documents: terms of each document, row by row.

    Returns:
        Number of terms of each document, int64 of shape (documents,).
    """
    import numpy as np

    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    seen: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    numbers = np.fromiter(
        map(seen.__getitem__, itertools.chain.from_iterable(documents)), np.int64, lengths.sum()
    )
    hashes = np.fromiter(map(term_hash, seen), np.uint64, len(seen))
    terms, place = np.unique(hashes, return_inverse=True)
    row_of_number = np.repeat(np.arange(len(documents)), lengths)
    postings, counts = np.unique(place[numbers] << 32 | row_of_number, return_counts=True)
    rows = postings & 0xFFFFFFFF
    frequencies = np.bincount(postings >> 32, minlength=len(terms))

    kept_lengths, length_of_row = np.unique(lucene_length(lengths), return_inverse=True)
    kept_counts, count_of_posting = _distinct(counts)
    kinds, impacts = _distinct(count_of_posting * len(kept_lengths) + length_of_row[rows])
    pairs = kept_counts[kinds // max(len(kept_lengths), 1)] << 32
    pairs |= kept_lengths[kinds % max(len(kept_lengths), 1)]

    with _Writer(folder, pairs) as writer:
        writer.append(terms, frequencies, rows, impacts)
    return lengths


def merge_postings(folder: Path, sources: Sequence[tuple[Path, Array]]) -> None:
    """Merge postings into one folder, in memory of a fixed size.

    Args:
        folder: to write to; made here.
        sources: folders of postings, each with the new number of each of its rows (int32 of shape
            (rows,)); -1 leaves out a row.
    """
    import numpy as np

    tables = [_read(source, "pairs") for source, _ in sources]
    pairs = np.unique(np.concatenate([np.empty(0, np.uint64), *tables]))
    recode = [np.searchsorted(pairs, table) for table in tables]
    with _Writer(folder, pairs) as writer:
        for parts in _in_step([source for source, _ in sources], "rows", "impacts"):
            found = [
                (terms, *_renumbered(part, new_rows), codes)
                for (terms, *part), (_, new_rows), codes in zip(parts, sources, recode, strict=True)
                if len(terms)
            ]
            terms, term_of = np.unique(np.concatenate([of[0] for of in found]), return_inverse=True)
            counted = np.bincount(
                term_of, np.concatenate([of[1] for of in found]), len(terms)
            ).astype(np.int64)
            # Each part's postings go where their place in each term's list is; no sort is needed.
            next_place = np.cumsum(counted) - counted
            rows = np.empty(counted.sum(), np.int32)
            impacts = np.empty(counted.sum(), writer.impact_type)
            first = 0
            for own_terms, frequencies, own_rows, own_impacts, codes in found:
                mine = term_of[first : first + len(own_terms)]
                first += len(own_terms)
                shift = next_place[mine] - (np.cumsum(frequencies) - frequencies)
                place = np.repeat(shift, frequencies) + np.arange(len(own_rows))
                next_place[mine] += frequencies
                rows[place] = own_rows
                impacts[place] = codes[own_impacts]
            used = counted > 0
            writer.append(terms[used], counted[used], rows, impacts)


def frequencies_among(folder: Path, chosen: Array) -> tuple[Array, Array]:
    """Return the terms of the chosen rows, and how many of these rows have each term.

    Args:
        folder: of the postings.
        chosen: mask of shape (rows,).

    Returns:
        Hashes (uint64, ascending) and counts (int64), both of shape (terms,).
    """
    import numpy as np

    terms, frequencies = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for ((own_terms, starts, rows),) in _in_step([folder], "rows"):
        among = _frequencies(starts, chosen[rows])
        (used,) = np.nonzero(among)
        terms.append(own_terms[used])
        frequencies.append(among[used])
    return np.concatenate(terms), np.concatenate(frequencies)


def fit_together(folder: Path) -> bool:
    """Return whether the sizes of a folder's files agree with each other."""
    import numpy as np

    counts = {
        name: (folder / name).stat().st_size / np.dtype(_type(folder, name)).itemsize
        for name in FILES
    }
    if counts["starts"] != counts["terms"] + 1 or counts["buckets"] != _BUCKETS + 1:
        return False
    n_postings = int(_read(folder, "starts", int(counts["terms"]))[0])
    in_buckets = int(_read(folder, "buckets", _BUCKETS)[0])
    return (counts["rows"], counts["impacts"], counts["terms"]) == (
        n_postings,
        n_postings,
        in_buckets,
    )


class _Writer:
    """Write postings whose terms come in ascending order, a range of terms at a time."""

    def __init__(self, folder: Path, pairs: Array) -> None:
        import numpy as np

        folder.mkdir(parents=True)
        self.impact_type = _impact_type(len(pairs))
        self._folder = folder
        self._files = {name: (folder / name).open("wb") for name in FILES}
        self._end = 0
        self._in_bucket = np.zeros(_BUCKETS, np.int64)
        self._put("pairs", pairs)
        self._put("starts", np.zeros(1))

    def append(self, terms: Array, frequencies: Array, rows: Array, impacts: Array) -> None:
        """Write the postings of the next terms, `frequencies` for each term."""
        import numpy as np

        self._put("terms", terms)
        self._put("starts", self._end + np.cumsum(frequencies))
        self._put("rows", rows)
        # Array.tofile would not say why a write failed.
        self._files["impacts"].write(impacts.astype(self.impact_type).data)
        self._end += len(rows)
        self._in_bucket += np.bincount((terms >> 56).astype(np.int64), minlength=_BUCKETS)

    def _put(self, name: str, values: Array) -> None:
        import numpy as np

        self._files[name].write(np.ascontiguousarray(values, _TYPES[name]).data)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        import numpy as np

        self._put("buckets", np.concatenate([[0], np.cumsum(self._in_bucket)]))
        for file in self._files.values():
            file.close()


def _in_step(folders: Sequence[Path], *names: str) -> Iterator[list[tuple[Array, ...]]]:
    """Read postings of several folders by the same ranges of terms, about `_AT_ONCE` postings at a time.

    Yields for each folder its terms in the range, where the postings of each start within what is read (and
    where those of the last one end), and the arrays of these names.
    """
    import numpy as np

    buckets = [_read(folder, "buckets") for folder in folders]
    # Only the pages asked for are read.
    ends = [
        np.memmap(folder / "starts", _TYPES["starts"], "r")[of].astype(np.int64)
        for folder, of in zip(folders, buckets, strict=True)
    ]
    through: Array = np.sum([np.zeros(_BUCKETS + 1, np.int64), *ends], axis=0)
    first = 0
    while first < _BUCKETS:
        last = max(int(np.searchsorted(through, through[first] + _AT_ONCE, "right")) - 1, first + 1)
        if through[last] > through[first]:
            parts = []
            for folder, of, end in zip(folders, buckets, ends, strict=True):
                terms = _read(folder, "terms", of[first], of[last])
                starts = _read(folder, "starts", of[first], of[last] + 1) - end[first]
                arrays = (_read(folder, name, end[first], end[last]) for name in names)
                parts.append((terms, starts, *arrays))
            yield parts
        first = last


def _renumbered(part: Sequence[Array], new_rows: Array) -> tuple[Array, Array, Array]:
    """Return frequencies, rows and impacts of what `_in_step` has read, without rows that have no new number."""
    import numpy as np

    starts, rows, impacts = part
    rows = new_rows[rows]
    kept = rows >= 0
    if kept.all():
        return np.diff(starts), rows, impacts
    return _frequencies(starts, kept), rows[kept], impacts[kept]


def _frequencies(starts: Array, chosen: Array) -> Array:
    """Return how many of each term's postings are chosen, by a mask over the postings."""
    import numpy as np

    through: Array = np.concatenate([[0], np.cumsum(chosen, dtype=np.int32)])
    return np.diff(through[starts])


def _distinct(values: Array) -> tuple[Array, Array]:
    """Return the distinct values, ascending, and which of them each value is; for small whole numbers."""
    import numpy as np

    distinct = np.flatnonzero(np.bincount(values))
    number = np.zeros(values.max(initial=0) + 1, np.int64)
    number[distinct] = np.arange(len(distinct))
    return distinct, number[values]


def _impact_type(n_pairs: int) -> str:
    return "<u2" if n_pairs <= 1 << 16 else "<u4"


def _type(folder: Path, name: str) -> str:
    return _TYPES[name] if name in _TYPES else _impact_type((folder / "pairs").stat().st_size // 8)


def _read(folder: Path, name: str, first: int = 0, last: int | None = None) -> Array:
    import numpy as np

    kind = np.dtype(_type(folder, name))
    count = -1 if last is None else last - first
    return np.fromfile(folder / name, kind, count, offset=first * kind.itemsize)
