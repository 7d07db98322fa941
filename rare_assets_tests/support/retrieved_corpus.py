"""Shards of documents as Parquet files, the way that the documents table gives them to a retriever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from rare_assets.retriever.interface import ShardContent


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def passages(prefix: str, n: int) -> dict[str, str]:
    """n documents that share a word with all others and have one of their own."""
    return {f"{prefix}{i:03}": f"common passage {prefix}{i:03} of many" for i in range(n)}


class Corpus:
    """Shards as given, `{shard: {doc_id: text}}`; put and drop change them."""

    def __init__(self, folder: Path, shards: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.documents: dict[str, Mapping[str, str]] = {}
        self.shards: dict[str, ShardContent] = {}
        for shard, documents in (shards or {}).items():
            self.put(shard, documents)

    def put(
        self, shard: str, documents: Mapping[str, str], titles: Mapping[str, str] | None = None
    ) -> None:
        titles = titles or {}
        held = [*documents.items(), *titles.items()]
        content = hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]
        pl.DataFrame(
            {
                "doc_id": list(documents),
                "text": list(documents.values()),
                "title": pl.Series([titles.get(doc_id) for doc_id in documents], dtype=pl.String),
                "text_hash": [text_hash(text) for text in documents.values()],
                "source": [f"{shard}.jsonl:{row}" for row in range(1, len(documents) + 1)],
            }
        ).write_parquet(self.folder / f"{shard}.parquet")
        self.documents[shard] = documents
        self.shards[shard] = ShardContent(content, len(documents))

    def drop(self, shard: str) -> None:
        (self.folder / f"{shard}.parquet").unlink()
        del self.documents[shard], self.shards[shard]

    def read(self, shard: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.folder / f"{shard}.parquet")

    @property
    def hashes(self) -> dict[str, str]:
        """What an index that holds this says it holds."""
        return {shard: content.content_hash for shard, content in self.shards.items()}


def queries(*texts: str) -> pl.DataFrame:
    """Queries of the questions q1, q2, ..."""
    names = [f"q{number}" for number in range(1, len(texts) + 1)]
    return pl.DataFrame(
        {"question_id": names, "query": texts},
        schema={"question_id": pl.String, "query": pl.String},
    )


def found(hits: pl.DataFrame) -> dict[str, list[str]]:
    """Doc ids found for each question, best first."""
    grouped = hits.group_by("question_id", maintain_order=True).agg("doc_id")
    return dict(grouped.iter_rows())
