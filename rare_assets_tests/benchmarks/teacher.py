"""How busy the teacher's client keeps an endpoint, beside a thread pool that retries at the end.

Run by hand: `python -m rare_assets_tests.benchmarks.teacher [pipeline|run|backfill|memory ...]`. The endpoint is
a local server with a fixed latency in a process of its own; nothing leaves this machine.

- `pipeline`: wall time over the ideal `asks x latency / in flight`, without faults and with 5 %
  unusable answers and 5 % 429, at 64 and 256 in flight. Beside it a plain thread pool that waits for
  its first pass before it retries unusable answers one by one, as DataFlow's RARE operators do.
- `run`: the whole of `rare-assets run`, 20 shards of 35 rows, 48 in flight (4 shards at once, 12 each),
  latencies between half and one and a half of 4 s, over the ideal of both LLM stages.
- `backfill`: a backfill of 15 shards of 30 rows by Dagster's daemon, each run a fresh process, from documents and
  an index that are there; over the ideal likewise.
- `memory`: peak resident memory of both stages over 100,000 short documents, asked and from stored answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rare_assets.teacher.interface import Ask
from rare_assets_tests.support.teachers import online

UNUSABLE = "broken_json"
FAULTS = {UNUSABLE: 0.05, "throttled": 0.05}
ATTEMPTS = 3
# Of `run` and `backfill`: shards side by side, and requests of all of them together.
AT_ONCE, IN_FLIGHT = 4, 48
# Of the latencies of `run` and `backfill`.
SPREAD = 0.5
RUN = [sys.executable, "-m", "rare_assets.command.cli", "run"]


@contextmanager
def endpoint(latency: float, faults: dict[str, float], spread: float = 0.0) -> Iterator[str]:
    """A fake endpoint in its own process, its latencies apart by `spread` of their mean; its URL."""
    command = [
        sys.executable,
        "-m",
        "rare_assets_tests.support.fake_endpoint",
        "--latency",
        str(latency),
        "--spread",
        str(spread),
    ]
    for name, share in faults.items():
        command += ["--fault", f"{name}={share}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            # An empty URL would mean OpenAI's own endpoint.
            raise RuntimeError("the local endpoint did not start")
        yield url
    finally:
        server.terminate()
        server.wait()


def asks(count: int) -> Iterator[Ask]:
    """Distinct short asks for a structured answer."""
    from rare_assets.operators.question_reply import HardQuestion

    for number in range(count):
        text = f"Write a question and a scenario on fact {number}: rivers carry gravel in spring."
        yield Ask(f"ask-{number}", ({"role": "user", "content": text},), HardQuestion)


def with_our_client(url: str, count: int, in_flight: int) -> tuple[float, int]:
    """Seconds and usable answers of the teacher's client with its durable store."""
    from rare_assets.operators.question_reply import HardQuestion
    from rare_assets.teacher.store.answers import AnswerStore
    from rare_assets.teacher.structured import structured_value

    async def work() -> int:
        usable = 0
        async with (
            AnswerStore(folder) as store,
            online(model="fake", base_url=url, store=store, max_concurrency=in_flight) as teacher,
        ):
            outcomes = teacher.ask_all(
                asks(count),
                lambda _, answer: structured_value(answer, HardQuestion),
                max_attempts=ATTEMPTS,
            )
            async for outcome in outcomes:
                usable += outcome.value is not None
        return usable

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        usable = asyncio.run(work())
        return time.perf_counter() - started, usable


def with_thread_pool(url: str, count: int, in_flight: int) -> tuple[float, int]:
    """Seconds and usable answers of a thread pool that retries what is unusable at the end."""
    from openai import OpenAI

    from rare_assets.operators.question_reply import HardQuestion

    # The SDK's own retries take care of 429, as they do for most users.
    client = OpenAI(base_url=url, api_key="none", max_retries=5)

    def once(ask: Ask) -> bool:
        response = client.chat.completions.create(
            model="fake",
            messages=[dict(message) for message in ask.messages],  # type: ignore[misc]
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "q", "schema": HardQuestion.model_json_schema()},
            },
        )
        try:
            HardQuestion.model_validate_json(response.choices[0].message.content or "")
        except ValueError:
            return False
        return True

    started = time.perf_counter()
    asked = list(asks(count))
    with ThreadPoolExecutor(in_flight) as pool:
        good = list(pool.map(once, asked))
    for index, ask in enumerate(asked):
        for _ in range(ATTEMPTS - 1):
            if not good[index]:
                good[index] = once(ask)
    client.close()
    return time.perf_counter() - started, sum(good)


def pipeline(console: Console, latency: float, rounds: int) -> None:
    """The client and the thread pool, over the ideal."""
    table = Table(title=f"{latency:g} s latency, {rounds} full rounds of requests")
    for column in (
        "in flight",
        "asks",
        "faults",
        "client",
        "over ideal",
        "thread pool",
        "over ideal",
    ):
        table.add_column(column, justify="right")
    ideal = rounds * latency
    cases = [
        (in_flight, name, faults)
        for in_flight in (64, 256)
        for name, faults in (("none", {}), ("5 % unusable, 5 % 429", FAULTS))
    ]

    def seconds(ask: Callable[[str, int, int], tuple[float, int]]) -> Iterator[float]:
        for in_flight, _, faults in cases:
            count = in_flight * rounds
            with endpoint(latency, faults) as url:
                wall, usable = ask(url, count, in_flight)
            assert usable >= count * 0.99, f"only {usable} of {count} usable"
            yield wall

    ours, theirs = list(seconds(with_our_client)), list(seconds(with_thread_pool))
    for (in_flight, name, _), own, other in zip(cases, ours, theirs, strict=True):
        walls = [cell for wall in (own, other) for cell in (f"{wall:.1f} s", f"{wall / ideal:.2f}")]
        table.add_row(str(in_flight), f"{in_flight * rounds:,}", name, *walls)
    console.print(table)


def write_corpus(folder: Path, documents: int, files: int, words: int = 60) -> None:
    """A corpus of distinct documents from a seeded vocabulary, spread over JSONL files."""
    rng = random.Random(0)
    vocabulary = [
        "".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(4, 9))) for _ in range(3000)
    ]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    folder.mkdir(parents=True)
    for file in range(files):
        with (folder / f"part-{file:03d}.jsonl").open("w") as out:
            for number in range(file, documents, files):
                text = " ".join(rng.choices(vocabulary, weights, k=words))
                out.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")


def environment(folder: str, url: str) -> dict[str, str]:
    """What a command finds set: the local endpoint, and all its files below `folder`."""
    return {
        **os.environ,
        "RARE_MODEL": "fake",
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none",
        "RARE_SOURCE": f"{folder}/corpus",
        "RARE_STORAGE": f"{folder}/storage",
        "DAGSTER_HOME": f"{folder}/dagster",
        "RARE_SHARDS_AT_ONCE": str(AT_ONCE),
        "RARE_MAX_CONCURRENCY": str(IN_FLIGHT // AT_ONCE),
    }


def timed(command: list[str], settings: dict[str, str]) -> float:
    """Seconds that a command takes; raises SystemExit with what it printed if it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - started


def say_wall(
    console: Console, what: str, wall: float, documents: int, shards: int, latency: float
) -> None:
    """Print a wall time over the ideal of both LLM stages."""
    ideal = 2 * documents * latency / IN_FLIGHT
    console.print(
        f"{what}, {documents} documents in {shards} shards, {latency:g} s latency, {AT_ONCE} shards "
        f"at once of {IN_FLIGHT // AT_ONCE} in flight: {wall:.0f} s, ideal {ideal:.0f} s, "
        f"[bold]{wall / ideal:.2f}[/] of it"
    )


def whole_run(console: Console, latency: float) -> None:
    """`rare-assets run` from nothing, over the ideal of both LLM stages."""
    documents, shards = 700, 20
    with tempfile.TemporaryDirectory() as folder, endpoint(latency, {}, SPREAD) as url:
        write_corpus(Path(folder) / "corpus", documents, shards)
        wall = timed(RUN, environment(folder, url))
    say_wall(console, "rare-assets run", wall, documents, shards, latency)


def backfill(console: Console, latency: float) -> None:
    """A backfill of `rare_job`, over the ideal of both LLM stages."""
    # Here alone: the processes whose memory is measured have no Dagster.
    import dagster as dg
    from dagster._core.storage.dagster_run import FINISHED_STATUSES
    from dagster._core.storage.tags import BACKFILL_ID_TAG
    from dagster._daemon.controller import all_daemons_live

    from rare_assets.automation.instance import WORKSPACE

    documents, shards = 480, 16
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder, endpoint(latency, {}, SPREAD) as url:
        write_corpus(Path(folder) / "corpus", documents, shards)
        settings = environment(folder, url)
        first, *others = [f"part-{number:03d}.jsonl" for number in range(shards)]
        # Documents and index of all, and what comes after of one shard.
        timed([*RUN, "--shard", first], settings)
        daemon = subprocess.Popen(
            [str(scripts / "dagster-daemon"), "run", "-w", str(WORKSPACE)],
            env=settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with dg.DagsterInstance.from_config(f"{folder}/dagster") as instance:
                while not all_daemons_live(instance):
                    time.sleep(0.5)
                command = [str(scripts / "dagster"), "job", "backfill", "-w", str(WORKSPACE)]
                command += ["-j", "rare_job", "--partitions", ",".join(others), "--noprompt"]
                wall = timed(command, settings)
                started = time.perf_counter()
                finished = dg.RunsFilter(statuses=FINISHED_STATUSES)
                ended: list[dg.DagsterRun] = []
                while len(ended) < len(others):
                    time.sleep(0.5)
                    ended = [r for r in instance.get_runs(finished) if BACKFILL_ID_TAG in r.tags]
                wall += time.perf_counter() - started
                assert all(run.is_success for run in ended)
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
            daemon.wait()
    asked = documents - documents // shards
    say_wall(console, "backfill", wall, asked, len(others), latency)


def memory(console: Console, documents: int) -> None:
    """Peak memory of both stages over one shard of many short documents, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder, endpoint(0.0, {}) as url:
        for stage in ("questions", "reasoning"):
            for label in ("asked", "from stored answers"):
                command = [sys.executable, "-m", "rare_assets_tests.benchmarks.teacher", "--child"]
                started = time.perf_counter()
                done = subprocess.run(
                    [*command, stage, url, folder, str(documents)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                wall = time.perf_counter() - started
                rows, peak = done.stdout.split()
                console.print(
                    f"{int(rows):,} {stage} {label}: {wall:.0f} s, peak {int(peak) / 1024:.0f} MB"
                )


def memory_child(stage: str, url: str, folder: str, count: int) -> None:
    """Make one table of many short documents and print its rows and the peak memory in KiB."""
    import polars as pl

    from rare_assets.corpus.formats import SourceRow
    from rare_assets.operators.doc2query import doc2query
    from rare_assets.operators.read_documents import read_documents
    from rare_assets.operators.reason_distill import reason_distill
    from rare_assets.operators.templates import load_templates
    from rare_assets.schemas import Produced
    from rare_assets.teacher.store.answers import AnswerStore

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghilmnoprstu", k=7)) for _ in range(500)]
    rows = (
        SourceRow(n, {"text": f"{n} " + " ".join(rng.choices(words, k=30))})
        for n in range(1, count + 1)
    )
    documents: pl.DataFrame = read_documents(rows, file="generated").rows
    templates = load_templates()
    written = Path(folder) / "questions.parquet"

    async def work() -> Produced:
        async with (
            AnswerStore(f"{folder}/answers") as store,
            online(model="fake", base_url=url, store=store) as teacher,
        ):
            if stage == "questions":
                produced = await doc2query(documents, teacher, templates=templates)
                produced.rows.write_parquet(written)
                return produced
            questions = pl.read_parquet(written)
            # Which negatives a question has does not matter here: it has the next three documents.
            following = documents.select(
                "doc_id",
                hard_negatives=pl.concat_list(
                    pl.col("text").shift(-n, fill_value="end") for n in (1, 2, 3)
                ),
                negatives=pl.concat_list(
                    pl.struct(doc_id=pl.col("doc_id").shift(-n, fill_value="end"))
                    for n in (1, 2, 3)
                ),
            )
            mined = questions.select("question_id", "doc_id").join(following, on="doc_id")
            return await reason_distill(questions, documents, mined, teacher, templates=templates)

    produced = asyncio.run(work())
    assert produced.rows.height > 0.99 * count, produced.rejects["reason"].value_counts()
    print(produced.rows.height, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", default=[], help="pipeline, run, backfill, memory; default all"
    )
    parser.add_argument("--latency", type=float, default=4.0, help="seconds until an answer")
    parser.add_argument("--rounds", type=int, default=20, help="full rounds of requests")
    parser.add_argument("--documents", type=int, default=100_000, help="of the memory part")
    parser.add_argument("--child", nargs=4, metavar=("STAGE", "URL", "FOLDER", "DOCUMENTS"))
    given = parser.parse_args()
    if given.child:
        *where, count = given.child
        memory_child(*where, int(count))
        return
    console = Console(width=120)
    parts = given.parts or ["pipeline", "run", "backfill", "memory"]
    if "pipeline" in parts:
        pipeline(console, given.latency, given.rounds)
    if "run" in parts:
        whole_run(console, given.latency)
    if "backfill" in parts:
        backfill(console, given.latency)
    if "memory" in parts:
        memory(console, given.documents)


if __name__ == "__main__":
    main()
