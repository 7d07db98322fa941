"""What the benchmarks run on: judged collections read from a folder, passages made from a seed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import polars as pl


class Judged(NamedTuple):
    """A test collection.

    `documents`: doc_id, text (title and text where there is a title), text_hash. `queries`:
    query_id, query. `relevant`: query_id, doc_id, one row for each document judged relevant.
    """

    name: str
    documents: pl.DataFrame
    queries: pl.DataFrame
    relevant: pl.DataFrame


def read_judged(folder: Path) -> Judged:
    """Read corpus.jsonl (`_id`, `title`, `text`), queries.jsonl (`_id`, `text`) and qrels.tsv or
    qrels/test.tsv (query-id, corpus-id, score, below a header).

    A score above 0 means relevant. Judgments of documents or queries that are not there are left out.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: no judgment is left.
    """
    judgments = [folder / "qrels.tsv", folder / "qrels" / "test.tsv"]
    files = [folder / "corpus.jsonl", folder / "queries.jsonl"]
    files.append(next(filter(Path.exists, judgments), judgments[0]))
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing: a judged collection needs it")
    corpus, queries, qrels = files
    columns = {"_id": pl.String, "title": pl.String, "text": pl.String}
    title = pl.col("title").fill_null("").str.strip_chars()
    documents = (
        pl.read_ndjson(corpus, schema=columns)
        .select(
            doc_id="_id",
            text=pl.concat_str(title, "text", separator="\n", ignore_nulls=True).str.strip_chars(),
        )
        .filter(pl.col("text") != "")
    )
    asked = pl.read_ndjson(queries, schema={"_id": pl.String, "text": pl.String})
    judged = pl.read_csv(
        qrels, separator="\t", quote_char=None, new_columns=["query_id", "doc_id", "score"],
        schema_overrides=[pl.String, pl.String, pl.Float64],
    )  # fmt: skip
    relevant = (
        judged.filter(pl.col("score") > 0)
        .select("query_id", "doc_id")
        .unique(maintain_order=True)
        .filter(pl.col("doc_id").is_in(documents["doc_id"].implode()))
        .filter(pl.col("query_id").is_in(asked["_id"].implode()))
    )
    if relevant.is_empty():
        raise ValueError(
            f"{qrels} judges no document of {corpus} relevant for a query of {queries}"
        )
    return Judged(
        folder.resolve().name,
        documents.with_columns(text_hash=text_hashes(documents["text"])),
        asked.select(query_id="_id", query="text"),
        relevant,
    )


def text_hashes(texts: pl.Series) -> pl.Series:
    return pl.Series([hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts])
