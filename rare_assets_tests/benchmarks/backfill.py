"""How long a backfill of the whole graph takes in the UI, beside the command on the same corpus.

Run by hand: `python -m rare_assets_tests.benchmarks.backfill [--shards N] [--rows N] [--latency S]`. Both start
from an empty storage. The command is timed as it is typed; the backfill from *Launch backfill* in a server
of `rare-assets dev` that is up, until it is complete. The endpoint is a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rare_assets_tests.benchmarks.teacher import RUN, endpoint
from rare_assets_tests.support.browser import DevServer
from rare_assets_tests.support.command import Command
from rare_assets_tests.support.passages import write_jsonl

ASSETS = ("documents", "corpus_index", "questions", "hard_negatives", "reasoning")


def prepare(folder: Path, url: str, shards: int, rows: int) -> Command:
    """Write the corpus; what the command and the server share are their settings, not their storage."""
    command = Command(folder, url)
    for name in ("RARE_MAX_CONCURRENCY", "RARE_SHARDS_AT_ONCE"):
        del command.environment[name]
    for shard in range(shards):
        write_jsonl(command.corpus / f"{shard:02}.jsonl", range(shard * rows, (shard + 1) * rows))
    return command


def time_command(command: Command) -> float:
    """Seconds of `rare-assets run`, process start included."""
    started = time.monotonic()
    subprocess.run(
        RUN, cwd=command.folder, env=command.environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - started


def time_backfill(command: Command) -> float:
    """Seconds of a backfill of all shards over all tables, launched as the page launches it."""
    with DevServer(command.folder, command.environment) as server:
        shards = sorted(path.name for path in command.corpus.iterdir())
        started = time.monotonic()
        status = server.wait_for_backfill(server.launch_backfill(ASSETS, shards))
        seconds = time.monotonic() - started
    if status != "COMPLETED_SUCCESS":
        sys.exit(f"The backfill ended as {status}: {server.log.read_text()[-2000:]}")
    return seconds


def measure(shards: int, rows: int, latency: float) -> tuple[float, float]:
    """Seconds of the command and of the backfill, each on a storage of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        endpoint(latency, {}) as url,
    ):
        by_command = prepare(Path(folder, "command"), url, shards, rows)
        by_backfill = prepare(Path(folder, "backfill"), url, shards, rows)
        seconds = time_command(by_command), time_backfill(by_backfill)
        for table in ("questions", "reasoning"):
            if by_command.n_rows(table) != by_backfill.n_rows(table):
                sys.exit(f"{table}: the command and the backfill made other rows")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--latency", type=float, default=0.2)
    given = parser.parse_args()
    command, backfill = measure(given.shards, given.rows, given.latency)
    table = Table("", "seconds", "times the command")
    table.add_row("rare-assets run", f"{command:.1f}", "1.0")
    table.add_row("backfill in the UI", f"{backfill:.1f}", f"{backfill / command:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
