"""Rank texts by BM25, in an index that follows its shards: embedded, or in Elasticsearch. Both rank alike.

Knows nothing of RARE or Dagster. An index holds shards of documents. `sync` makes it hold the shards that it
is given, at a cost proportional to what changed; a search sees a whole sync or none of it.

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

Use `ElasticsearchRetriever("http://localhost:9200", "an-index")` instead for more than 500,000 passages.
"""

from rare_assets.retriever.analyzers import ANALYZERS, OF_LANGUAGE, Analyzer, refusal
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
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
