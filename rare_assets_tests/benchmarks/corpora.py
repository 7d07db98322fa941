"""What the benchmarks run on: judged collections read from a folder, passages made from a seed, and
the English prose that comes with Python and its packages."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rare_assets.retriever.interface import ShardContent


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


def passages(count: int, seed: int = 0, part: int = 0) -> pl.DataFrame:
    """Made-up passages: doc_id, text, text_hash; other parts of a corpus have others of the same words.

    Words are drawn from 200,000 made-up ones and English stop words with frequencies after Zipf and
    Mandelbrot; lengths are log-normal, 88 words on average, as passages of English prose have them.
    """
    rng = np.random.default_rng([seed, count, part] if part else [seed, count])
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
    doc_ids = pl.Series([f"p{part * count + number:08}" for number in range(count)])
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


def english(count: int) -> pl.DataFrame:
    """At most `count` passages of English prose: doc_id, text, text_hash.

    They are what any Python installation has: docstrings of the standard library and of the
    installed packages, and the packages' long descriptions, a paragraph after the other in passages
    of about 90 words. So they differ from machine to machine.
    """
    passages: dict[str, None] = {}
    for source in _sources():
        if len(passages) >= count:
            break
        words: list[str] = []
        for paragraph in re.split(r"\n\s*\n", source):
            if _is_prose(paragraph):
                words += paragraph.split()
            while len(words) >= 90:
                passages[" ".join(words[:90])] = None
                words = words[90:]
        if len(words) >= 30:
            passages[" ".join(words)] = None
    texts = pl.Series(list(passages)[:count], dtype=pl.String)
    doc_ids = pl.Series([f"e{number:06}" for number in range(len(texts))], dtype=pl.String)
    return pl.DataFrame({"doc_id": doc_ids, "text": texts, "text_hash": text_hashes(texts)})


def docstrings(count: int) -> list[dict[str, str]]:
    """Docstrings of this Python and its packages as rows with a question: the first paragraph asks for the rest.

    Drawn by a seed from all of two paragraphs or more; they differ from machine to machine.
    """
    found: dict[str, str] = {}
    for nodes in _documented():
        for whole in filter(None, map(ast.get_docstring, nodes)):
            first, _, rest = whole.partition("\n\n")
            question, text = " ".join(first.split()), " ".join(rest.split())
            if 4 <= len(question.split()) <= 40 and len(text.split()) >= 20:
                found.setdefault(text, question)
    rows = [{"text": text, "question": question} for text, question in found.items()]
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[number] for number in order]


def sentences_of(documents: pl.DataFrame, count: int, seed: int = 0) -> pl.DataFrame:
    """Questions: a sentence of 8 to 40 words each, from passages drawn by the seed."""
    rng = np.random.default_rng([seed, count, len(documents)])
    questions = []
    for number in rng.permutation(len(documents)):
        doc_id, text, text_hash = documents.row(int(number))
        sentences = [s for s in re.split(r"(?<=[.?!])\s+", text) if 8 <= len(s.split()) <= 40]
        if sentences:
            questions.append((doc_id, text_hash, f"q{len(questions):06}", rng.choice(sentences)))
        if len(questions) == count:
            break
    fields = ["doc_id", "text_hash", "question_id", "question"]
    return pl.DataFrame(questions, schema=dict.fromkeys(fields, pl.String), orient="row")


def _sources() -> Iterator[str]:
    """Long descriptions of what is installed, then a module's docstrings at a time."""
    for distribution in sorted(importlib.metadata.distributions(), key=lambda d: d.name):
        message = distribution.metadata
        yield message.get("Description") or str(message.get_payload() or "")
    for nodes in _documented():
        yield "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def _documented() -> Iterator[list[Any]]:
    """The nodes that may have a docstring, a module at a time."""
    folders = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    files = {path for folder in folders for path in Path(folder).rglob("*.py")}
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(files):
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_text())
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
        yield [node for node in ast.walk(tree) if isinstance(node, documented)]


def _is_prose(paragraph: str) -> bool:
    """Whether it reads like sentences rather than like code, a table or a list of parameters."""
    words = paragraph.split()
    plain = sum(bool(re.fullmatch(r"[(\"'`]?[A-Za-z'-]+[)\"'`]?[.,;:?!]?", word)) for word in words)
    return len(words) >= 8 and plain >= 0.8 * len(words)


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
