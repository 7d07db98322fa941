"""A large corpus on Elasticsearch: load, mining, a sync after 1 % changed, and the memory of each process.

    python -m rare_assets_tests.benchmarks.large_corpus --passages 1000000 --shards 200

makes its passages in some two minutes of a core and needs 2 GB of disk; `--passages 50000 --shards 10`, with shards of the
same size, is a short run. Passages are made from a seed, a shard at a time. Without `--elasticsearch` a node of 1 GB is started as for the tests. What syncs and
what mines has a process of its own each, whose peak memory is told; that of the server where it runs here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.retriever.interface import ShardContent
from rare_assets_tests.benchmarks.corpora import Shards, passages, questions_about, with_changes
from rare_assets_tests.benchmarks.retrieval import (
    PLAIN,
    Row,
    delete,
    elasticsearch,
    node,
    peak_mb,
    sync_apart,
    table,
    timed,
)

# Of the shards, each of them changed whole.
CHANGED = 0.01


class Mined(NamedTuple):
    """How fast questions were mined, and the peak memory of the process that did."""

    questions_per_second: float
    peak_mb: float


def write_corpus(
    folder: Path, n_shards: int, rows: int, asked: int
) -> tuple[Shards, Shards, pl.DataFrame]:
    """The corpus, the same with its first shards changed, and questions on documents of all shards."""
    before, after = Shards(folder / "before", {}), Shards(folder / "after", {})
    for shards in (before, after):
        shards.folder.mkdir(parents=True)
    questions = []
    for number in range(n_shards):
        key, documents = f"shard-{number:05}", passages(rows, part=number)
        before.contents[key] = after.contents[key] = write_shard(before.folder, key, documents)
        if number < max(1, round(CHANGED * n_shards)):
            changed = with_changes(documents, 1.0)
            after.contents[key] = write_shard(after.folder, key, changed)
        else:
            os.link(before.folder / f"{key}.parquet", after.folder / f"{key}.parquet")
        some = questions_about(documents, -(-asked // n_shards))
        own_id = pl.concat_str(pl.lit(f"{number}-"), "question_id")
        questions.append(some.with_columns(question_id=own_id))
    return before, after, pl.concat(questions).head(asked)


def write_shard(folder: Path, key: str, documents: pl.DataFrame) -> ShardContent:
    documents.write_parquet(folder / f"{key}.parquet")
    content = hashlib.sha256("".join(documents["text_hash"]).encode()).hexdigest()[:16]
    return ShardContent(content, len(documents))


def mine_apart(url: str, index: str, questions: Path, **options: Any) -> Mined:
    """Mine in a fresh process, so that its peak memory is the mining's own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_mine, url, index, questions, options).result()


def _mine(url: str, index: str, file: Path, options: dict[str, Any]) -> Mined:
    questions = pl.read_parquet(file)
    with contextlib.closing(elasticsearch(url, index)) as retriever:
        seconds = timed(lambda: bm25_hard_neg(questions, retriever, **options))
    return Mined(len(questions) / seconds, peak_mb())


def server_rows(url: str, index: str) -> Iterator[Row]:
    """What the index takes on disk, and the peak memory of the servers that run on this machine."""
    from elasticsearch import Elasticsearch

    with Elasticsearch(url.split(","), request_timeout=120) as client:
        size = client.indices.stats(index=f"{index}*", metric="store")["_all"]["primaries"]
        yield Row("index on disk", f"{size['store']['size_in_bytes'] / 1e9:,.2f} GB")
        nodes = client.nodes.info(metric="process")["nodes"].values()
        heaps = client.nodes.stats(metric="jvm")["nodes"].values()
    for node_info, heap in zip(nodes, heaps, strict=True):
        most = heap["jvm"]["mem"]["heap_max_in_bytes"] / 2**20
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{node_info['process']['id']}/status").read_text()
            [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            of = f"{int(peak) / 1024:,.0f} MB (heap of {most:,.0f} MB)"
            yield Row("server: peak memory", of)


def measure(url: str, n_shards: int, rows: int, asked: int) -> Iterator[Row]:
    """The figures of a corpus of so many shards."""
    index = f"rare-benchmark-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(delete, url, index)
        before, after, questions = write_corpus(folder, n_shards, rows, asked)
        questions.write_parquet(folder / "questions.parquet")
        engine = partial(elasticsearch, url, index)
        load = sync_apart(engine, before)
        yield Row("load", f"{load.n_indexed / load.seconds:,.0f} documents/s")
        yield Row("load: seconds", f"{load.seconds:,.0f}")
        yield Row("load: peak memory", f"{load.peak_mb:,.0f} MB")
        for what, options in {"plain top 3": PLAIN, "defaults": {}}.items():
            mined = mine_apart(url, index, folder / "questions.parquet", **options)
            yield Row(f"mining, {what}", f"{mined.questions_per_second:,.0f} questions/s")
            yield Row(f"mining, {what}: peak memory", f"{mined.peak_mb:,.0f} MB")
        change = sync_apart(engine, after)
        yield Row(
            f"sync after {change.n_indexed:,} changed",
            f"{change.seconds:.2f} s, all removed in {change.settled_seconds:.2f} s",
            f"{change.seconds / load.seconds:.1%} of the load",
        )
        yield Row("sync: peak memory", f"{change.peak_mb:,.0f} MB")
        yield from server_rows(url, index)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--questions", type=int, default=5_000)
    parser.add_argument("--elasticsearch", metavar="URL", help="instead of a node of its own")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows = given.passages // given.shards
    with node(given.elasticsearch) as url:
        if url is None:
            sys.exit("Elasticsearch is what is measured: give --elasticsearch URL.")
        figures = measure(url, given.shards, rows, given.questions)
        console.print(table(f"{rows * given.shards:,} passages, {given.shards} shards", figures))


if __name__ == "__main__":
    main()
