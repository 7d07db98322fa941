"""A state of the embedded index, opened for reading: scores, the best of them, documents."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.retriever.analyzers import ANALYZERS
from rare_assets.retriever.embedded.folder import IndexFolder, Manifest
from rare_assets.retriever.embedded.postings import Postings, term_hash
from rare_assets.retriever.embedded.segment import read_documents

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Snapshot:
    """A state opened for reading. Documents are numbered by segment and row.

    Postings and texts are memory-mapped; ids, hashes and places are in memory.
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
        """`doc_id` -> `number`."""
        return self.documents[self._order].select("doc_id", number=pl.Series(self._order))

    def texts(self, documents: pl.DataFrame) -> list[str]:
        """Texts of rows of `documents`."""
        places = documents.select("segment", "start", "n_bytes").iter_rows()
        return [
            self._texts[segment][start : start + n_bytes].tobytes().decode()
            for segment, start, n_bytes in places
        ]

    def scores(self, query: str) -> Array:
        """Score of every document by number, float32 of shape (documents,)."""
        import numpy as np

        scores = np.zeros(len(self.documents), np.float32)
        hashes = [term_hash(term) for term in self._analyze(query)]
        if not hashes or not self._parts:
            return scores
        # A term counts as often as the query has it.
        times = dict.fromkeys(hashes, 0)
        for term in hashes:
            times[term] += 1
        terms = np.fromiter(times, np.uint64, len(times))
        places = [postings.find(terms) for postings, _, _ in self._parts]
        frequencies = np.sum([ends - starts for starts, ends in places], axis=0)
        if len(self._gone_terms):
            at = np.minimum(np.searchsorted(self._gone_terms, terms), len(self._gone_terms) - 1)
            frequencies -= np.where(self._gone_terms[at] == terms, self._gone_frequencies[at], 0)
        idf = np.log1p((self._n_counted - frequencies + 0.5) / (frequencies + 0.5))
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
        """Numbers and scores of the best documents: by score to 5 significant digits, then id."""
        return best(self.scores(query), self._place, depth)


def best(scores: Array, places: Array, depth: int) -> tuple[Array, Array]:
    """Numbers and scores of the best: by score to 5 significant digits, then by place."""
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
