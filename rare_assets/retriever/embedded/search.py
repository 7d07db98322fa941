"""Search an opened state of the embedded index: scores, the best of them, documents."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.retriever.analyzers import ANALYZERS
from rare_assets.retriever.embedded.folder import IndexFolder
from rare_assets.retriever.embedded.manifest import Manifest
from rare_assets.retriever.embedded.postings import Postings, term_hash
from rare_assets.retriever.embedded.segment import read_documents, unpacked
from rare_assets.retriever.tf_idf import best_terms

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Snapshot:
    """A state opened for reading; documents are numbered by segment and row.

    Postings and texts are memory-mapped; ids, hashes and places are in memory.

    Args:
        folder: of the index.
        manifest: the state; its files are whole.

    Attributes:
        state: as the interface shows it.
        documents: `doc_id`, `text_hash`, and where each text lies; a row for each number.
    """

    def __init__(self, folder: IndexFolder, manifest: Manifest) -> None:
        import numpy as np

        self.state = manifest.state
        bm25, state, segments = manifest.bm25, folder.state(manifest.name), manifest.segments
        folders = [folder.segment(segment.name) for segment in segments]
        places = {
            "doc_id": pl.String,
            "text_hash": pl.String,
            "segment": pl.Int32,
            "start": pl.Int64,
            "n_bytes": pl.UInt32,
        }
        self.documents = pl.concat(
            [
                pl.DataFrame(schema=places),
                *(
                    read_documents(of)
                    .with_columns(segment=pl.lit(number, pl.Int32))
                    .select(*places)
                    for number, of in enumerate(folders)
                ),
            ]
        )
        self._texts = [
            np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
            for file in (of / "texts" for of in folders)
        ]
        # Numbers of the documents that can be found, in the order of their ids.
        self._order = np.load(state / "order.npy")
        # What is indexed and can't: documents that are gone, copies of a document.
        self._place = np.full(len(self.documents), -1, np.int32)
        self._place[self._order] = np.arange(len(self._order), dtype=np.int32)
        self._hidden = np.flatnonzero(self._place < 0)

        self._analyze = ANALYZERS[bm25.analyzer]
        self._n_counted = manifest.n_counted
        self._gone_terms, self._gone_frequencies = (
            np.load(state / f"gone_{name}.npy") for name in ("terms", "frequencies")
        )
        self._parts = []
        first = 0
        for segment, of in zip(segments, folders, strict=True):
            postings = Postings.open(of)
            relative = postings.lengths * (manifest.n_counted / max(manifest.n_terms, 1))
            norms = bm25.k1 * (1 - bm25.b + bm25.b * relative)
            weights = (postings.counts / (postings.counts + norms)).astype(np.float32)
            self._parts.append((postings, weights, slice(first, first + segment.n_rows)))
            first += segment.n_rows

    @cached_property
    def numbers(self) -> pl.DataFrame:
        """The documents that can be found, as `doc_id` and `number`, sorted by id."""
        return self.documents[self._order].select("doc_id", number=pl.Series(self._order))

    def texts(self, documents: pl.DataFrame) -> list[tuple[str | None, str]]:
        """Return title (None without) and text of each of these rows of `documents`."""
        places = documents.select("segment", "start", "n_bytes").iter_rows()
        return [
            unpacked(self._texts[segment][start : start + n_bytes].tobytes())
            for segment, start, n_bytes in places
        ]

    def scores(self, query: str) -> Array:
        """Return the BM25 score of every document by its number, float32 of shape (documents,)."""
        return self._scores(self._analyze(query))

    def best_terms(self, text: str) -> list[str]:
        """Return the terms of a text that have the highest tf * idf; see `Retriever.search_like`."""
        import numpy as np

        counts = Counter(self._analyze(text))
        if not counts or not self._parts:
            return []
        terms = np.fromiter(map(term_hash, counts), np.uint64, len(counts))
        frequencies = self._frequencies(terms, self._places(terms))
        idf = np.where(frequencies, self._idf(frequencies), 0.0)
        return best_terms(counts, dict(zip(counts, idf.tolist(), strict=True)))

    def _places(self, terms: Array) -> list[tuple[Array, Array]]:
        return [postings.find(terms) for postings, _, _ in self._parts]

    def _frequencies(self, terms: Array, places: list[tuple[Array, Array]]) -> Array:
        import numpy as np

        frequencies: Array = np.sum([ends - starts for starts, ends in places], axis=0)
        if len(self._gone_terms):
            at = np.minimum(np.searchsorted(self._gone_terms, terms), len(self._gone_terms) - 1)
            frequencies -= np.where(self._gone_terms[at] == terms, self._gone_frequencies[at], 0)
        return frequencies

    def _idf(self, frequencies: Array) -> Array:
        import numpy as np

        idf: Array = np.log1p((self._n_counted - frequencies + 0.5) / (frequencies + 0.5))
        return idf

    def _scores(self, query: list[str]) -> Array:
        import numpy as np

        scores = np.zeros(len(self.documents), np.float32)
        hashes = [term_hash(term) for term in query]
        if not hashes or not self._parts:
            return scores
        # A term counts as often as the query has it.
        times = dict.fromkeys(hashes, 0)
        for term in hashes:
            times[term] += 1
        terms = np.fromiter(times, np.uint64, len(times))
        places = self._places(terms)
        idf = self._idf(self._frequencies(terms, places))
        factors = (idf * list(times.values())).astype(np.float32)
        for (postings, weights, numbers), (starts, ends) in zip(self._parts, places, strict=True):
            part = scores[numbers]
            for start, end, factor in zip(starts.tolist(), ends.tolist(), factors, strict=True):
                if start < end:
                    weight = weights.take(postings.impacts[start:end])
                    weight *= factor
                    np.add.at(part, postings.rows[start:end], weight)
        if len(self._hidden):
            scores[self._hidden] = 0
        return scores

    def best(self, query: str, depth: int) -> tuple[Array, Array]:
        """Return numbers and scores of the best documents for a query, both of shape (at most `depth`,).

        Sorted by score to 5 significant digits, then by id.
        """
        return best(self.scores(query), self._place, depth)

    def best_like(self, text: str, depth: int) -> tuple[Array, Array]:
        """Return the same as `best`, for the best terms of a text."""
        return best(self._scores(self.best_terms(text)), self._place, depth)


def best(scores: Array, places: Array, depth: int) -> tuple[Array, Array]:
    """Return numbers and scores of the best documents, sorted by score to 5 significant digits, then by place.

    Args:
        scores: by number, float32 of shape (documents,); 0 for no hit.
        places: by number, integers of shape (documents,).
        depth: most documents to return.

    Example:
        >>> import numpy as np
        >>> numbers, _ = best(np.array([1, 0, 3, 1], np.float32), np.array([3, 2, 1, 0]), 3)
        >>> numbers.tolist()
        [2, 3, 0]
    """
    import numpy as np

    # The depth-th best of the maxima of groups of documents bounds the depth-th score from below.
    group = 64
    n_groups = len(scores) // group
    bound = np.float32(0)
    if n_groups > depth:
        maxima = scores[: n_groups * group].reshape(group, n_groups).max(axis=0)
        bound = np.partition(maxima, n_groups - depth)[n_groups - depth]
    # Scores equal to 5 digits differ by no more than one in 10,000.
    numbers = np.flatnonzero(scores >= bound * np.float32(0.9998) if bound > 0 else scores > 0)
    found = scores[numbers].astype(np.float64)
    rounded = pl.Series(found).round_sig_figs(5).to_numpy()
    order = np.lexsort((places[numbers], -rounded))[:depth]
    return numbers[order], found[order]
