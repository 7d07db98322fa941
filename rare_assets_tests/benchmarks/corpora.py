"""What the benchmarks run on: judged collections read from a folder, passages made from a seed."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rare_assets.resources.retriever.interface import ShardContent


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


class Shards(NamedTuple):
    """Documents as Parquet files, in the form that an index sync takes them."""

    folder: Path
    contents: dict[str, ShardContent]

    @classmethod
    def write(cls, folder: Path, documents: pl.DataFrame, rows_per_shard: int) -> Shards:
        folder.mkdir(parents=True)
        contents = {}
        for number, part in enumerate(documents.iter_slices(rows_per_shard)):
            key = f"shard-{number:05}"
            part.write_parquet(folder / f"{key}.parquet")
            content = hashlib.sha256("".join(part["text_hash"]).encode()).hexdigest()[:16]
            contents[key] = ShardContent(content, len(part))
        return cls(folder, contents)

    def read(self, key: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.folder / f"{key}.parquet")


def passages(count: int, seed: int = 0) -> pl.DataFrame:
    """Made-up passages: doc_id, text, text_hash.

    Words are drawn from 200,000 made-up ones and English stop words with frequencies after Zipf and
    Mandelbrot; lengths are log-normal, 88 words on average, as passages of English prose have them.
    """
    rng = np.random.default_rng([seed, count])
    words, weights = _vocabulary(seed)
    lengths = np.maximum(rng.lognormal(np.log(88) - 0.125, 0.5, count).astype(int), 5)
    drawn = np.searchsorted(np.cumsum(weights), rng.random(lengths.sum()))
    ends = np.cumsum(lengths)
    texts = pl.Series(
        [
            " ".join(words[drawn[end - length : end]])
            for end, length in zip(ends, lengths, strict=True)
        ]
    )
    doc_ids = pl.Series([f"p{number:08}" for number in range(count)])
    return pl.DataFrame({"doc_id": doc_ids, "text": texts, "text_hash": text_hashes(texts)})


def with_changes(documents: pl.DataFrame, share: float) -> pl.DataFrame:
    """The documents, the first of them with another last word."""
    changed = pl.int_range(pl.len()) < round(share * len(documents))
    texts = documents.select(pl.when(changed).then(pl.col("text") + " changed").otherwise("text"))
    return documents.with_columns(text=texts.to_series(), text_hash=text_hashes(texts.to_series()))


def questions_about(documents: pl.DataFrame, count: int, seed: int = 0) -> pl.DataFrame:
    """Questions of 25 words, 15 from their gold document and 10 drawn from the vocabulary."""
    rng = np.random.default_rng([seed, count, len(documents)])
    words, weights = _vocabulary(seed)
    golds = documents[rng.integers(0, len(documents), count)]
    drawn = words[np.searchsorted(np.cumsum(weights), rng.random((count, 10)))]
    asked = [
        " ".join(rng.permutation([*rng.choice(text.split(), 15), *others]))
        for text, others in zip(golds["text"], drawn, strict=True)
    ]
    return golds.select("doc_id", "text_hash").with_columns(
        question_id=pl.Series([f"q{number:06}" for number in range(count)]),
        question=pl.Series(asked),
    )


@cache
def _vocabulary(seed: int) -> tuple[Any, Any]:
    """Words by falling frequency, and their probabilities."""
    rng = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"])
    made = {
        "".join(of[: 2 + length])
        for of, length in zip(
            rng.choice(syllables, (220_000, 5)), rng.integers(0, 4, 220_000), strict=True
        )
    }
    words = [*_FREQUENT.split(), *rng.permutation(sorted(made))[:200_000]]
    weights = 1 / (np.arange(len(words)) + 3.7) ** 1.2
    return np.array(words, dtype=object), weights / weights.sum()


_FREQUENT = (
    "the of and to a in is it that for was as on with be by at this are or not but have from they "
    "which will there their if no into such then these"
)
