"""How long the command takes for many small files, beside the same texts as rows of one file.

Run by hand: `python -m rare_assets_tests.benchmarks.many_files [--files 2000] [--latency S]`. Both commands are
timed as they are typed, in turn, each from an empty storage; the endpoint is a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rare_assets_tests.benchmarks.backfill import time_command
from rare_assets_tests.benchmarks.teacher import endpoint
from rare_assets_tests.support.command import Command
from rare_assets_tests.support.passages import passage, write_jsonl


def prepare(folder: Path, url: str, files: int, *, packed: bool) -> Command:
    """Write the texts as Markdown files, or as rows of one file."""
    command = Command(folder, url)
    for name in ("RARE_MAX_CONCURRENCY", "RARE_SHARDS_AT_ONCE"):
        del command.environment[name]
    if not packed:
        write_jsonl(command.corpus / "rows.jsonl", range(files))
        return command
    for number in range(files):
        (command.corpus / f"page {number:05}.md").write_text(passage(number))
    return command


def measure(files: int, latency: float) -> tuple[float, float, int]:
    """Seconds for many files and for one, and the shards of the many."""
    with tempfile.TemporaryDirectory() as place, endpoint(latency, {}) as url:
        many = prepare(Path(place, "many"), url, files, packed=True)
        one = prepare(Path(place, "one"), url, files, packed=False)
        seconds = time_command(many), time_command(one)
        rows = many.n_rows("reasoning")
        assert sum(rows.values()) == sum(one.n_rows("reasoning").values()) == files
        return *seconds, len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rounds = [measure(given.files, given.latency) for _ in range(given.rounds)]
    table = Table("", "seconds", title=f"{given.files:,} texts, latency {given.latency:g} s")
    table.add_row(f"Markdown files, {rounds[0][2]} shards", f"{min(r[0] for r in rounds):.1f}")
    table.add_row("one JSON Lines file", f"{min(r[1] for r in rounds):.1f}")
    table.add_row("ratio, median", f"{statistics.median(r[0] / r[1] for r in rounds):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
