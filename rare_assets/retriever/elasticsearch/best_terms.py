"""The best terms of texts, by how often the whole index has each of them.

The terms are made here where the server's analyzer makes the same ones, and counted by the server
once each: texts share most of theirs, and what a server tells of a text's terms is ten times as long
as the text.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from threading import Event, Lock
from typing import Any

from rare_assets.retriever.analyzers import ANALYZERS, OTHER_RULES
from rare_assets.retriever.elasticsearch.connection import Connection, batched
from rare_assets.retriever.elasticsearch.errors import Passing, error_reason
from rare_assets.retriever.elasticsearch.index import ConcreteIndex
from rare_assets.retriever.tf_idf import best_terms

KNOWN_TERMS = 1 << 17  # whose idf is kept, some 20 MB
COUNTED_IN_ONE = 5_000  # terms that one primary shard counts in one request
COUNTED_IN_ALL = 1_000  # terms that several count in one request
# Whoever analyzes it otherwise than we do has other rules for some language.
PROBE = (
    "The fox's dens weren't generalized, 3.14 e.g. naïve_words; die größeren Häuser, l'eau qu’on, "
    "las luces rápidas, dell'università, as canções, электрические батареи, الكِتاب والمدرسة ١٢, "
    "İstanbul'un ISIRGAN, an tAthair, kind en fietsen, systemet och husets, 东京大学 ﾊﾝｶｸ 한국어"
)

Counts = Mapping[str, int]


class BestTerms:
    """Finds the best terms of texts in one state of an index; see `Retriever.search_like`.

    Attributes:
        index: the index as it was seen; another state of it needs another object.
    """

    def __init__(self, connection: Connection, index: ConcreteIndex) -> None:
        self._connection = connection
        self.index = index
        self._lock = Lock()
        self._idf: dict[str, float] = {}
        name = index.bm25.analyzer
        self._analyze = None if name in OTHER_RULES else ANALYZERS.get(name)
        if self._analyze is not None and self._analyze(PROBE) != self._probed():
            self._analyze = None

    def of(self, texts: Sequence[str], stop: Event) -> list[list[str]]:
        """Return each text's best terms, the best first."""
        if self._analyze is None:
            counts = self._counted_by_server(texts, stop)
            idf = self._idf_of(_terms_of(counts), stop)
        else:
            counts = [Counter(self._analyze(text)) for text in texts]
            idf = self._idf_of(_terms_of(counts), stop)
            # An indexed text has no term that the index lacks, unless the server makes others of it.
            odd = [n for n, terms in enumerate(counts) if not all(map(idf.__getitem__, terms))]
            if odd:
                theirs = self._counted_by_server([texts[n] for n in odd], stop)
                for n, terms in zip(odd, theirs, strict=True):
                    counts[n] = terms
                idf = self._idf_of(_terms_of(counts), stop)
        return [best_terms(terms, idf) for terms in counts]

    def _probed(self) -> list[str]:
        answer = self._connection.ask(
            "analyze a text",
            lambda: self._connection.client.indices.analyze(
                index=self.index.name, field="text", text=PROBE
            ),
        )
        return [token["token"] for token in answer["tokens"]]

    def _counted_by_server(self, texts: Sequence[str], stop: Event) -> list[Counts]:
        """Return the terms of each text and how often it has them."""
        bare = dict.fromkeys(("positions", "offsets", "payloads", "field_statistics"), False)
        asked = [{"doc": {"text": text}, "fields": ["text"], **bare} for text in texts]

        def once() -> list[Any]:
            found: list[Any] = self._connection.client.mtermvectors(
                index=self.index.name, docs=asked
            )["docs"]
            for each in found:
                if "error" in each:
                    raise Passing(": ".join(error_reason(each)))
            return found

        answers = self._connection.ask("find the terms of texts", once, stop)
        vectors = (answer["term_vectors"].get("text", {"terms": {}}) for answer in answers)
        return [
            {term: counts["term_freq"] for term, counts in vector["terms"].items()}
            for vector in vectors
        ]

    def _idf_of(self, terms: set[str], stop: Event) -> Mapping[str, float]:
        """Return BM25's idf of terms, 0 of those that the index lacks; of others, too."""
        several = self.index.global_statistics
        count, at_once = (
            (self._count_in_all, COUNTED_IN_ALL)
            if several
            else (self._count_in_one, COUNTED_IN_ONE)
        )
        with self._lock:  # so that no two threads count the same ones
            new = terms.difference(self._idf)
            if len(self._idf) + len(new) > KNOWN_TERMS:
                # What other threads were given stays as it is.
                self._idf, new = {}, terms
            for part in batched(new, at_once):
                n_documents, frequencies = count(part, stop)
                for term, n in zip(part, frequencies, strict=True):
                    self._idf[term] = math.log1p((n_documents - n + 0.5) / (n + 0.5)) if n else 0.0
            return self._idf

    def _count_in_one(self, terms: Sequence[str], stop: Event) -> tuple[int, list[int]]:
        """Return how many documents there are, and how many have each term, in the only primary shard."""
        answer = self._connection.ask(
            "count terms",
            lambda: self._connection.client.termvectors(
                index=self.index.name,
                # As many values as terms, each a term as it is.
                doc={"text": terms},
                fields=["text"],
                per_field_analyzer={"text": "keyword"},
                term_statistics=True,
                field_statistics=True,
                positions=False,
                offsets=False,
                payloads=False,
            ),
            stop,
        )
        found = answer["term_vectors"]["text"]
        counts = [found["terms"].get(term, {}).get("doc_freq", 0) for term in terms]
        return found["field_statistics"]["doc_count"], counts

    def _count_in_all(self, terms: Sequence[str], stop: Event) -> tuple[int, list[int]]:
        """Return the same, over several primary shards; term vectors know of one of them.

        A document of stop words alone counts among the documents here, which hardly changes an idf.
        """
        filters = [{"exists": {"field": "text"}}, *({"term": {"text": term}} for term in terms)]
        answer = self._connection.ask(
            "count terms",
            lambda: self._connection.client.search(
                index=self.index.name,
                size=0,
                track_total_hits=False,
                aggs={"terms": {"filters": {"filters": filters}}},
                allow_partial_search_results=False,
            ),
            stop,
        )
        buckets = answer["aggregations"]["terms"]["buckets"]
        n_documents, *counts = (bucket["doc_count"] for bucket in buckets)
        return n_documents, counts


def _terms_of(counts: Iterable[Counts]) -> set[str]:
    return set(chain.from_iterable(counts))
