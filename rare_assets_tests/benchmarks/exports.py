"""How fast a corpus is exported, and what memory that takes, by format.

Run by hand: `python -m rare_assets_tests.benchmarks.exports [--rows 50000 200000] [--format F ...]`. A corpus is made up in
shards of 10,000 rows: documents of 90 words, three negatives and a reasoning of 150 words each. Putting the
documents into splits, each format, and what completes the folder (its card, and the proof that no document is on
two sides) have a process of their own each; megabytes are those of the files written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from rare_assets.exports.formats import FORMATS
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables

SHARD_ROWS = 10_000
NEGATIVES = 3
WORDS = 200_000
SPLITS, COMPLETE = "(splits)", "(card and proof)"
EXPORT = """
import re, sys, time
from rare_assets.exports.card import Cost, write_card
from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.options import ExportOptions
from rare_assets.exports.proof import prove
from rare_assets.storage.tables import ParquetTables

root, part = sys.argv[1:]
started = time.perf_counter()
formats = [] if part.startswith("(") else [part]
size = rows = 0
with Export(ParquetTables(root), None, ExportOptions(), formats) as export:
    export.prepare()
    if formats:
        for shard in export.shards:
            for each in export.write(shard, export.formats).values():
                rows += each.rows
                size += sum(split["bytes"] for split in each.splits.values())
    elif part == "(card and proof)":
        write_card(export, complete(export), Cost(1, 1, None))
        assert prove(export).holds
took = time.perf_counter() - started
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
print(rows, size, took, peak)
"""


class Writer:
    """Texts from a seeded vocabulary, as often used as words are (Zipf), and the tables of a corpus of them."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        letters = np.array(list("aabcdeeeefghiiklmnnoooprrsstttuuvw"))
        sizes = self._rng.integers(3, 11, WORDS)
        spelled = self._rng.choice(letters, (WORDS, 10))
        words = ("".join(row[:size]) for row, size in zip(spelled, sizes, strict=True))
        self._words = np.array(list(dict.fromkeys(words)), dtype=object)
        self._often = np.cumsum(1 / (np.arange(len(self._words)) + 2.7))

    def texts(self, n: int, words: int) -> list[str]:
        """So many texts of so many words."""
        drawn = self._rng.random((n, words)) * self._often[-1]
        return [" ".join(row) for row in self._words[np.searchsorted(self._often, drawn)]]

    def shards(self, rows: int) -> Iterator[dict[str, pl.DataFrame]]:
        """The tables of each shard; negatives are documents of the same one."""
        for first in range(0, rows, SHARD_ROWS):
            yield self._shard(first, min(SHARD_ROWS, rows - first))

    def _shard(self, first: int, n: int) -> dict[str, pl.DataFrame]:
        ids = [f"d{number}" for number in range(first, first + n)]
        texts, questions, scenarios = self.texts(n, 90), self.texts(n, 25), self.texts(n, 30)
        others = [[(row + step) % n for step in range(1, NEGATIVES + 1)] for row in range(n)]
        key = {"question_id": [f"{doc_id}-q0" for doc_id in ids], "doc_id": ids}
        asked = {**key, "question": questions, "scenario": scenarios}
        negatives = [[texts[other] for other in row] for row in others]
        tokens = {"model": "m", "prompt_tokens": 900, "completion_tokens": 300, "attempts": 1}
        scores = [20.0 - place for place in range(NEGATIVES)]
        return {
            "documents": pl.DataFrame(
                {
                    "doc_id": ids,
                    "text": texts,
                    "title": [f"Title {doc_id}" for doc_id in ids],
                    "text_hash": ids,
                    "source": "a.jsonl:1",
                    "n_words": 90,
                }
            ),
            "questions": pl.DataFrame(
                {
                    **asked,
                    "text_hash": ids,
                    "origin": "written",
                    "reference_answer": self.texts(n, 4),
                    **tokens,
                }
            ),
            "hard_negatives": pl.DataFrame(
                {
                    **key,
                    "query": questions,
                    "hard_negatives": negatives,
                    "negatives": [
                        [
                            {
                                "doc_id": ids[other],
                                "score": score,
                                "rank": rank,
                                "origin": "question",
                            }
                            for rank, (other, score) in enumerate(zip(row, scores, strict=True), 2)
                        ]
                        for row in others
                    ],
                    "gold_score": 30.0,
                    "gold_rank": 1,
                    "judged_relevant": [[]] * n,
                }
            ),
            "reasoning": pl.DataFrame(
                {
                    **asked,
                    "sample_index": 0,
                    "text": texts,
                    "hard_negatives": negatives,
                    "reasoning": self.texts(n, 150),
                    "answer": self.texts(n, 4),
                    "raw_answer": "...",
                    "context_doc_ids": [
                        [doc_id, *(ids[other] for other in row)]
                        for doc_id, row in zip(ids, others, strict=True)
                    ],
                    "gold_position": 0,
                    "finish_reason": "stop",
                    **tokens,
                }
            ),
        }


def write(root: str, rows: int) -> None:
    """Store a corpus of so many rows."""
    tables = ParquetTables(root)
    made_from = {"options": '{"num_neg": 3}', "teacher": "m", "prompt": "p", "index": "i"}
    for number, shard in enumerate(Writer().shards(rows)):
        for table, frame in shard.items():
            schema = TABLES[table].schema.create_empty().schema
            cast = frame.cast({name: schema[name] for name in frame.columns})
            tables.write(table, f"{number:05}.jsonl", cast, made_from=made_from)


def export(root: str, part: str) -> tuple[int, int, float, int]:
    """Export a part in a process of its own: rows, bytes, seconds, and its peak memory in MB."""
    found = subprocess.run(
        [sys.executable, "-c", EXPORT, root, part], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(found[0]), int(found[1]), float(found[2]), int(found[3])


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--format", nargs="*", choices=FORMATS, default=list(FORMATS))
    options = parser.parse_args()
    console = Console()
    for rows in options.rows:
        table = Table("part", "rows", "MB", "seconds", "MB/s", "peak memory, MB")
        with tempfile.TemporaryDirectory(prefix="rare-exports-") as place:
            root = str(Path(place) / "storage")
            write(root, rows)
            for part in (SPLITS, *options.format, COMPLETE):
                n, size, took, peak = export(root, part)
                speed = f"{size / 1e6 / took:.1f}" if size else ""
                table.add_row(part, f"{n:,}", f"{size / 1e6:.0f}", f"{took:.1f}", speed, str(peak))
        console.print(f"{rows:,} rows")
        console.print(table)


if __name__ == "__main__":
    main()
