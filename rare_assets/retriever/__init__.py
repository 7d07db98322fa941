"""BM25 over texts, in an index that follows its shards: embedded, or in Elasticsearch. Both rank alike.

Knows nothing of RARE or Dagster. An index holds shards of documents; `sync` makes it hold those that it
is given, at a cost proportional to what changed, and whoever searches sees a whole sync or none of it.

Example:
    >>> import polars as pl
    >>> from rare_assets.retriever import Bm25, EmbeddedRetriever, ShardContent
    >>> texts = ["Salt lowers the freezing point of water.", "Rust needs water and air."]
    >>> documents = pl.DataFrame(
    ...     {"doc_id": ["salt", "rust"], "text": texts, "text_hash": ["1", "2"]}
    ... )
    >>> index = EmbeddedRetriever("index")
    >>> report = index.sync({"a": ShardContent("v1", 2)}, lambda shard: documents.lazy(), Bm25())
    >>> queries = pl.DataFrame({"question_id": ["q"], "query": ["At what point is water freezing?"]})
    >>> index.search(queries, depth=2)["doc_id"].to_list()
    ['salt', 'rust']

`ElasticsearchRetriever("http://localhost:9200", "an-index")` takes the place of `EmbeddedRetriever`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rare_assets.retriever.analyzers import ANALYZERS, OF_LANGUAGE, Analyzer, refusal
    from rare_assets.retriever.elasticsearch.connection import ElasticsearchError
    from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
    from rare_assets.retriever.embedded.engine import EmbeddedRetriever
    from rare_assets.retriever.interface import (
        PAIRS,
        QUERIES,
        REJECTS,
        Bm25,
        IndexConflict,
        IndexDamaged,
        IndexMissing,
        IndexState,
        NoAnalyzer,
        Retriever,
        ShardContent,
        SyncReport,
    )

# What others may use, by the module that has it; loaded at first use, since the client of
# Elasticsearch alone takes longer to import than the rest of a `rare-assets status`.
_DOORS = {
    "analyzers": ("ANALYZERS", "OF_LANGUAGE", "Analyzer", "refusal"),
    "elasticsearch.connection": ("ElasticsearchError",),
    "elasticsearch.engine": ("ElasticsearchRetriever",),
    "embedded.engine": ("EmbeddedRetriever",),
    "interface": (
        *("PAIRS", "QUERIES", "REJECTS", "Bm25", "IndexConflict", "IndexDamaged", "IndexMissing"),
        *("IndexState", "NoAnalyzer", "Retriever", "ShardContent", "SyncReport"),
    ),
}
_MODULE_OF = {name: module for module, names in _DOORS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [  # noqa: RUF022, by what a reader looks for
    "EmbeddedRetriever",
    "ElasticsearchRetriever",
    "Retriever",
    "Bm25",
    "ShardContent",
    "IndexState",
    "SyncReport",
    "QUERIES",
    "PAIRS",
    "REJECTS",
    "ANALYZERS",
    "OF_LANGUAGE",
    "Analyzer",
    "refusal",
    "IndexMissing",
    "IndexDamaged",
    "IndexConflict",
    "NoAnalyzer",
    "ElasticsearchError",
]
