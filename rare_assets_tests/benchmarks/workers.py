"""How many times as many requests several workers send as one, by one command: `rare-assets run --submit`.

Run by hand: `python -m rare_assets_tests.benchmarks.workers [--workers 1 4] [--shards 8] [--rows 150] [--latency 0.5]
[--in-flight 4]`. A deployment as `rare-assets deploy celery` writes it, with a process in place of each container:
Postgres, Redis, a code server, a daemon, and so many workers of Celery that execute one run at a time. The
rate is of all requests, from the first one's arrival to the last one's answer, so that starting runs and
mining count. Nothing leaves this machine; the processes share its cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rare_assets_tests.support.command import COMMAND
from rare_assets_tests.support.deployment import Deployment, running_redis
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, MODEL
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.postgres_server import new_database, running_postgres

WORKER = ("celery", "-A", "dagster_celery.app", "worker", "--prefetch-multiplier=1")
PRELOADED = "--include=rare_assets.resources.preloaded"
GOAL = 3.2


def measure(
    folder: Path, port: int, redis: str, workers: int, given: argparse.Namespace
) -> tuple[int, float]:
    """Requests, and seconds from the first one to the last answer, of a command on so many workers."""
    deployment, corpus, storage = folder / "deployment", folder / "corpus", folder / "storage"
    for each in (corpus, storage):
        each.mkdir(parents=True)
    for shard in range(given.shards):
        numbers = range(shard * given.rows, (shard + 1) * given.rows)
        write_jsonl(corpus / f"{shard:02}.jsonl", numbers)
    subprocess.run(
        [*COMMAND, "deploy", "celery", "--out", str(deployment)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    urls = {"CELERY_BROKER_URL": f"{redis}/0", "CELERY_RESULT_BACKEND": f"{redis}/1"}
    with FakeEndpoint(latency=given.latency) as endpoint:
        code = {
            "RARE_SOURCE": str(corpus),
            "RARE_STORAGE": str(storage),
            "RARE_MODEL": MODEL,
            "OPENAI_BASE_URL": endpoint.url,
            "OPENAI_API_KEY": API_KEY,
            "RARE_MAX_CONCURRENCY": str(given.in_flight),
        }
        instance = {**new_database(port).environment, **urls}
        with Deployment(deployment, instance, code, storage) as servers:
            for number in range(workers):
                name = f"worker-{number}"
                own = (PRELOADED, "-n", f"{name}@%h", "--concurrency=1", "--max-tasks-per-child=1")
                servers.start(name, *WORKER, *own)
            done = subprocess.run(
                [*COMMAND, "run", "--submit"],
                cwd=deployment,
                env=servers.environment("command"),
                capture_output=True,
                text=True,
            )
        if done.returncode:
            sys.exit(f"The command failed: {done.stdout[-3000:]}{done.stderr[-1000:]}")
        requests = endpoint.requests
        first = min(each.arrived for each in requests)
        last = max(each.answered or each.arrived for each in requests)
    return len(requests), last - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--in-flight", type=int, default=4)
    given = parser.parse_args()
    table = Table("workers", "requests", "seconds", "requests/s", "of one worker's")
    base: float | None = None
    with running_postgres() as port, tempfile.TemporaryDirectory() as folder:
        for number, workers in enumerate(given.workers):
            place = Path(folder, str(number))
            place.mkdir()
            with running_redis(place) as redis:
                requests, seconds = measure(place, port, redis, workers, given)
            rate = requests / seconds
            base = base or rate
            row = (f"{workers}", f"{requests:,}", f"{seconds:.0f}", f"{rate:.1f}")
            table.add_row(*row, f"{rate / base:.2f}")
    Console().print(table)
    print(f"Goal: 4 workers send at least {GOAL} times the requests a second of one.")


if __name__ == "__main__":
    main()
