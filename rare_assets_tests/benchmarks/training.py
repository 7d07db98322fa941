"""Whether exported triplets train a retriever: nDCG@10 before and after, on held-out questions and judged queries.

Run by hand, with the extra `proof`:

    python -m rare_assets_tests.benchmarks.training EXPORTS [--judged FOLDER ...] [--seeds 3]
    python -m rare_assets_tests.benchmarks.training --docstrings 4000 [--judged FOLDER ...]
    python -m rare_assets_tests.benchmarks.training --titles FOLDER [--judged FOLDER ...]

EXPORTS is a folder of `rare-assets export` with the formats sentence-transformers and beir. Without one, a corpus with
questions of its own goes through the graph's operators and its exports, no teacher asked: docstrings of this
Python (a first paragraph asks for the rest), or the titles of a judged collection (a title asks for its text). FOLDER is
corpus.jsonl, queries.jsonl, qrels.tsv (or qrels/test.tsv).

The retriever is static: the mean of a text's rows in wordllama's table of 32,000 x 256, trained with numpy and scipy by InfoNCE
(van den Oord et al., 2018) and Adam. It takes seconds on two cores. It can't show gains in reasoning, and its absolute figures
say nothing of a real encoder: what counts is the difference, beside that of a control which learnt from shuffled pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.resources
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

from rare_assets.corpus.source import CorpusSource
from rare_assets.exports.card import Cost, write_card
from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.options import ExportOptions
from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.read_documents import read_documents
from rare_assets.operators.templates import load_templates
from rare_assets.retriever import Bm25, EmbeddedRetriever, ShardContent
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.benchmarks.corpora import Judged, docstrings, read_judged
from rare_assets_tests.support.doubles import ScriptedTeacher

Matrix = Any
TEMPERATURE = 0.05
RATE = 2e-3
BATCH = 64
EPOCHS = 6
DEPTH = 10
RESAMPLES = 2_000
WAYS = BEFORE, CONTROL, IN_BATCH, MINED = (
    "nothing (before)",
    "shuffled pairs (control)",
    "in-batch negatives alone",
    "in-batch and mined negatives",
)
FORMATS = ["sentence-transformers", "beir"]


class Encoder(NamedTuple):
    """Texts as a bag of rows of an embedding table."""

    table: np.ndarray
    tokens: Callable[[Sequence[str]], list[list[int]]]

    def bags(self, texts: Sequence[str]) -> Matrix:
        """A sparse matrix that makes the mean of a text's rows; zero for a text without tokens."""
        found = self.tokens(texts)
        lengths = np.array([len(ids) for ids in found])
        rows = np.repeat(np.arange(len(found)), lengths)
        columns = np.array([one for ids in found for one in ids], dtype=np.int64)
        weights = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
        shape = (len(found), len(self.table))
        return sp.csr_matrix((weights, (rows, columns)), shape=shape)


def wordllama() -> Encoder:
    """The table and the tokenizer that the package wordllama carries."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    package = importlib.resources.files("wordllama")
    with importlib.resources.as_file(package / "weights/l2_supercat_256.safetensors") as path:
        (table,) = load_file(str(path)).values()
    with importlib.resources.as_file(
        package / "tokenizers/l2_supercat_tokenizer_config.json"
    ) as path:
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def tokens(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return Encoder(table.astype(np.float32), tokens)


class Triplets(NamedTuple):
    """Bags of anchors, of their positives, and of their first negatives; None without them."""

    anchors: Matrix
    positives: Matrix
    negatives: Matrix | None

    def shuffled(self, seed: int) -> Triplets:
        """The same with positives of other anchors."""
        order = np.random.default_rng(seed).permutation(self.positives.shape[0])
        return self._replace(positives=self.positives[order])


def loss_and_gradient(
    table: np.ndarray, anchors: Matrix, passages: Matrix
) -> tuple[float, Matrix, np.ndarray]:
    """InfoNCE of a batch: the first passages belong to the anchors in their order, all others are negatives.

    Returns the mean loss, the rows of the table that have a gradient, and their gradients.
    """
    both = sp.vstack([anchors, passages]).tocsr()
    rows = np.unique(both.indices)
    inside = both[:, rows]
    raw = inside @ table[rows]
    norms = np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)
    unit = raw / norms
    n = anchors.shape[0]
    asked, given = unit[:n], unit[n:]
    logits = asked @ given.T / TEMPERATURE
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    weights /= weights.sum(axis=1, keepdims=True)
    diagonal = np.arange(n)
    loss = float(-np.log(weights[diagonal, diagonal] + 1e-12).mean())
    weights[diagonal, diagonal] -= 1
    weights /= n * TEMPERATURE
    back = np.vstack([weights @ given, weights.T @ asked])
    back = (back - unit * (back * unit).sum(axis=1, keepdims=True)) / norms
    return loss, rows, inside.T @ back


def train(table: np.ndarray, triplets: Triplets, seed: int, epochs: int = EPOCHS) -> np.ndarray:
    """A table trained on the triplets, by Adam on the rows that a batch touches."""
    table = table.copy()
    first, second = np.zeros_like(table), np.zeros_like(table)
    steps = np.zeros(len(table), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(triplets.anchors.shape[0])
        for start in range(0, len(order) - 1, BATCH):
            chosen = order[start : start + BATCH]
            passages = triplets.positives[chosen]
            if triplets.negatives is not None:
                passages = sp.vstack([passages, triplets.negatives[chosen]])
            _, rows, gradient = loss_and_gradient(table, triplets.anchors[chosen], passages)
            steps[rows] += 1
            first[rows] = 0.9 * first[rows] + 0.1 * gradient
            second[rows] = 0.999 * second[rows] + 0.001 * gradient**2
            count = steps[rows, None]
            mean, square = first[rows] / (1 - 0.9**count), second[rows] / (1 - 0.999**count)
            table[rows] -= RATE * mean / (np.sqrt(square) + 1e-8)
    return table


class Questions(NamedTuple):
    """Queries with what is relevant to them, over an index of documents, as bags."""

    name: str
    queries: Matrix
    documents: Matrix
    relevant: list[np.ndarray]

    @classmethod
    def of(cls, name: str, judged: Judged, encoder: Encoder) -> Questions:
        """The queries of a collection that have a relevant document."""
        place = {doc_id: row for row, doc_id in enumerate(judged.documents["doc_id"])}
        by_query = judged.relevant.group_by("query_id", maintain_order=True).agg("doc_id")
        texts = dict(judged.queries.iter_rows())
        queries = [texts[query_id] for query_id in by_query["query_id"]]
        relevant = [np.array([place[one] for one in ids]) for ids in by_query["doc_id"]]
        documents = encoder.bags(judged.documents["text"].to_list())
        return cls(name, encoder.bags(queries), documents, relevant)

    def ndcg(self, table: np.ndarray) -> np.ndarray:
        """nDCG@10 of each query, a relevant document counting one."""
        documents = _unit(self.documents @ table)
        discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
        found = []
        for start in range(0, len(self.relevant), 256):
            scores = _unit(self.queries[start : start + 256] @ table) @ documents.T
            for row, relevant in zip(scores, self.relevant[start : start + 256], strict=True):
                best = np.argsort(-row, kind="stable")[:DEPTH]
                gain = discounts[: len(best)] @ np.isin(best, relevant)
                found.append(gain / discounts[: min(DEPTH, len(relevant))].sum())
        return np.array(found)


def _unit(raw: np.ndarray) -> np.ndarray:
    return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and where it lies in 95 of 100 resamples of the queries (bootstrap)."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def read_triplets(exports: Path, encoder: Encoder) -> Triplets:
    """The training rows of the format sentence-transformers, each with its first negative."""
    files = sorted((exports / "sentence-transformers" / "train").glob("*.parquet"))
    rows = pl.concat(pl.read_parquet(f) for f in files if not f.name.endswith(".ids.parquet"))
    columns = [encoder.bags(rows.to_series(number).to_list()) for number in range(3)]
    return Triplets(*columns)


class Result(NamedTuple):
    """nDCG@10 of each query of a set, the mean of the seeds, with one way to train."""

    questions: str
    way: str
    ndcg: np.ndarray


def measure(
    triplets: Triplets, sets: Sequence[Questions], table: np.ndarray, seeds: int
) -> Iterator[Result]:
    """Train in each way and judge by each set."""
    in_batch = triplets._replace(negatives=None)
    ways: dict[str, Callable[[int], np.ndarray]] = {
        BEFORE: lambda _: table,
        CONTROL: lambda seed: train(table, triplets.shuffled(seed), seed),
        IN_BATCH: lambda seed: train(table, in_batch, seed),
        MINED: lambda seed: train(table, triplets, seed),
    }
    for way, make in ways.items():
        tables = [make(seed) for seed in range(1 if way == BEFORE else seeds)]
        for questions in sets:
            found = np.mean([questions.ndcg(one) for one in tables], axis=0)
            yield Result(questions.name, way, found)


def shown(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row a result: its nDCG@10 and the difference to before, each with its interval; last, for each set, what
    mined negatives bring beside those of the batch."""
    rows = []
    by_way = {(each.questions, each.way): each.ndcg for each in results}
    for name in dict.fromkeys(each.questions for each in results):
        before = by_way[name, BEFORE]
        for way in WAYS:
            its = by_way[name, way]
            gain = "" if way == BEFORE else _said(its - before, "+.3f")
            rows.append((name, f"{len(its):,}", way, _said(its, ".3f"), gain))
        mined = by_way[name, MINED] - by_way[name, IN_BATCH]
        rows.append(
            (name, f"{len(mined):,}", "mined beside in-batch alone", "", _said(mined, "+.3f"))
        )
    return rows


def _said(values: np.ndarray, form: str) -> str:
    mean, low, high = (format(value, form) for value in interval(values))
    return f"{mean} ({low} to {high})"


def make(rows: Sequence[dict[str, str]], folder: Path, test_share: float = 0.2) -> Path:
    """Send rows with questions of their own through the operators and the exports. Returns the folder."""
    source = folder / "source"
    source.mkdir()
    with (source / "corpus.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    corpus = CorpusSource(str(source), 5_000)
    tables = ParquetTables(str(folder / "storage"))
    for shard in corpus.shards():
        read = read_documents(corpus.read(shard), file=shard.file)
        tables.write("documents", shard.key, read.rows)
    contents = {}
    for shard in corpus.shards():
        stored = tables.provenance("documents", shard.key)
        assert stored is not None
        contents[shard.key] = ShardContent(stored.content_hash, stored.n_rows)
    index = EmbeddedRetriever(str(folder / "index"))
    index.sync(contents, lambda key: tables.load("documents", key), Bm25())

    def nobody(*_: object) -> str:
        raise AssertionError("every row has a question")

    for key in contents:
        documents = tables.load("documents", key).collect()
        asked = doc2query(
            documents, ScriptedTeacher(nobody), templates=load_templates(), min_words=0
        )
        questions = asyncio.run(asked)
        tables.write("questions", key, questions.rows)
        mined = bm25_hard_neg(questions.rows, index)
        tables.write("hard_negatives", key, mined.produced.rows)
    options = ExportOptions(test_share=test_share, validation_share=0.0)
    with Export(tables, None, options, FORMATS) as export:
        export.prepare()
        for key in export.shards:
            export.write(key, export.formats)
        write_card(export, complete(export), Cost(0, 0, None))
    return folder / "storage" / "exports"


def titles(folder: Path) -> list[dict[str, str]]:
    """The documents of a collection, each asked for by its title; the text no longer has it."""
    rows = []
    for line in (folder / "corpus.jsonl").read_text().splitlines():
        document = json.loads(line)
        title = (document.get("title") or "").strip()
        text = document["text"].strip()
        text = re.sub(rf"^{re.escape(title)}\W*", "", text) if title else text
        if title and len(text.split()) >= 20:
            rows.append({"id": document["_id"], "text": text, "question": title})
    return rows


def run(exports: Path, judged: Sequence[Path], seeds: int, encoder: Encoder) -> list[Result]:
    """Train on an exports folder and judge by its own held-out questions, and by collections."""
    held_out = read_judged(exports / "beir" / "test")
    sets = [Questions.of("held-out questions", held_out, encoder)]
    sets += [Questions.of(folder.name, read_judged(folder), encoder) for folder in judged]
    return list(measure(read_triplets(exports, encoder), sets, encoder.table, seeds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", type=Path, nargs="?")
    parser.add_argument("--docstrings", type=int)
    parser.add_argument("--titles", type=Path)
    parser.add_argument("--judged", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rare-training-") as folder:
        exports = options.exports
        if options.titles:
            exports = make(titles(options.titles), Path(folder))
        elif exports is None:
            exports = make(docstrings(options.docstrings or 4_000), Path(folder))
        results = run(exports, options.judged, options.seeds, wordllama())
    table = Table("queries", "n", "trained on", "nDCG@10", "difference to before")
    for row in shown(results):
        table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
