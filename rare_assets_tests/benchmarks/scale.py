"""How the graph feels with thousands of shards: what a user waits for where nothing has to be made.

Run by hand: `python -m rare_assets_tests.benchmarks.scale [--shards 2000] [--files 100000] [--postgres]`. Every
table of every shard is stored and current. Commands are timed as whole processes, which read the bytecode that the
first has written (so unset PYTHONDONTWRITEBYTECODE); nothing leaves this machine.
With `--postgres` the instance is on a server of this machine, and so are, before that, a few real runs.

- definitions: a process that loads the code location, as `dagster dev` does.
- first tick, tick: the sensor, on a source that it has never seen and on one without any news; both
  for the shards and for a source of many more files, none of which is stored.
- status, shards, run: the commands, the last with nothing to make.
- event log: what a run takes of the database, tables and indexes, and as text; of RUNS shards made whole.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table

from rare_assets.automation.instance import prepare_home
from rare_assets.build import build_defs
from rare_assets.corpus.scan import scan_source
from rare_assets.operators.read_documents import read_documents
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets.retriever.interface import Bm25
from rare_assets.stages import documents as stage_of_documents
from rare_assets.stages import hard_negatives, reasoning
from rare_assets.stages import questions as stage_of_questions
from rare_assets.stages.corpus_index import CorpusIndexConfig, shards_to_index
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig
from rare_assets_tests.support.command import Command
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import MODEL, OWN_VARIABLES
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.postgres_server import (
    USER,
    Database,
    new_database,
    running_postgres,
)
from rare_assets_tests.support.rows import rows

RUNS = 4
LOAD = "from rare_assets.definitions import defs; defs.get_repository_def()"


def write_source(folder: Path, count: int) -> None:
    """So many files of one passage, a thousand in a folder."""
    for number in range(count):
        write_jsonl(folder / f"{number // 1000:03}" / f"{number:06}.jsonl", [number])


def store_all(storage: Storage, corpus: Corpus, instance: dg.DagsterInstance) -> None:
    """Register every shard and store all of its tables as a run with default options would."""
    tables, source, templates = storage.tables(), corpus.source(), load_templates(None)
    scan = scan_source(source, tables, registered_shards(instance, UNNAMED))
    instance.add_dynamic_partitions(UNNAMED.partitions_name, scan.new)
    documents, questions = {}, {}
    for shard in scan.shards:
        read = read_documents(source.read(shard), file=shard.file)
        documents[shard.key] = tables.write(
            "documents", shard.key, *read, stage_of_documents.made_from(shard)
        )
        doc_id = read.rows["doc_id"].item()
        made_from = stage_of_questions.made_from(
            documents[shard.key].content_hash,
            QuestionsConfig(),
            templates,
            MODEL,
        )
        change = {"question_id": f"{doc_id}-q0", "doc_id": doc_id, "model": MODEL}
        asked = rows("questions", change)
        questions[shard.key] = tables.write("questions", shard.key, asked, made_from=made_from)
    contents = shards_to_index(tables, list(documents), {}).contents
    options = CorpusIndexConfig()
    with Bm25Retriever(storage=storage).open() as engine:
        engine.sync(
            contents,
            lambda shard: tables.scan("documents", shard),
            Bm25(options.k1, options.b, options.analyzer),
        )
        state = engine.state()
    for key in documents:
        made_from = hard_negatives.made_from(
            questions[key].content_hash, HardNegativesConfig(), state, templates, MODEL
        )
        mined = tables.write("hard_negatives", key, rows("hard_negatives", {}), made_from=made_from)
        made_from = reasoning.made_from(
            {
                "documents": documents[key].content_hash,
                "questions": questions[key].content_hash,
                "hard_negatives": mined.content_hash,
            },
            ReasoningConfig(),
            templates,
            MODEL,
        )
        reasoned = rows("reasoning", {"model": MODEL})
        tables.write("reasoning", key, reasoned, made_from=made_from)


def ticks(storage: Storage, corpus: Corpus, instance: dg.DagsterInstance) -> Iterator[float]:
    """Seconds of one tick of the sensor after the other; what it asks to register is registered."""
    defs, cursor = build_defs(), None
    new_shards = next(sensor for sensor in defs.sensors or () if sensor.name == "new_shards")
    while True:
        context = dg.build_sensor_context(instance=instance, definitions=defs, cursor=cursor)
        began = time.perf_counter()
        result = new_shards(context, corpus=corpus, storage=storage)
        yield time.perf_counter() - began
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        for request in result.dynamic_partitions_requests or ():
            assert isinstance(request, dg.AddDynamicPartitionsRequest)
            instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )


def timed(what: str, *command: str) -> Iterator[tuple[str, float]]:
    """Seconds that a process takes, and those that cores are at work for it, each the best of three."""
    seconds, at_work = [], []
    for _ in range(3):
        began, before = time.perf_counter(), os.times()
        done = subprocess.run([sys.executable, *command], check=True, capture_output=True)
        assert b"to make" not in done.stdout, done.stdout
        after = os.times()
        seconds.append(time.perf_counter() - began)
        user = after.children_user - before.children_user
        at_work.append(user + after.children_system - before.children_system)
    yield what, min(seconds)
    yield f"{what}: a core at work", min(at_work)


def measure_event_log(folder: Path, database: Database) -> Iterator[tuple[str, str]]:
    """Kilobytes that a run takes of the event log, all tables of a few shards being made by the command."""
    import psycopg2

    with FakeEndpoint() as endpoint:
        command = Command(folder, endpoint.url)
        command.home.mkdir(parents=True)
        (command.home / "dagster.yaml").write_text(database.dagster_yaml())
        for shard in range(RUNS):
            write_jsonl(command.corpus / f"{shard}.jsonl", range(shard * 20, shard * 20 + 20))
        assert command.run("run").returncode == 0, command.printed
    where = {"host": "127.0.0.1", "port": database.port, "user": USER, "dbname": database.name}
    connection = psycopg2.connect(**where)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL event_logs")
        cursor.execute(
            "SELECT pg_total_relation_size('event_logs'), sum(length(event)), count(DISTINCT run_id) "
            "FROM event_logs"
        )
        size, characters, runs = cursor.fetchone()
    connection.close()
    yield "event log, KB a run", f"{size / runs / 1000:.1f}"
    yield "the same as text", f"{characters / runs / 1000:.1f}"


def measure_shards(
    folder: Path, count: int, database: Database | None = None
) -> Iterator[tuple[str, float]]:
    """Figures with so many shards, everything stored; in a database, or else in SQLite."""
    # So many small files would share a few shards by default.
    os.environ["RARE_FILES_PER_SHARD"] = "1"
    storage, corpus = Storage(root=str(folder / "storage")), Corpus(url=str(folder / "corpus"))
    write_source(folder / "corpus", count)
    os.environ |= {
        "RARE_SOURCE": str(folder / "corpus"),
        "RARE_STORAGE": str(folder / "storage"),
        "RARE_MODEL": MODEL,
        "DAGSTER_HOME": str(folder / "home"),
    }
    if database is not None:
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text(database.dagster_yaml())
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        store_all(storage, corpus, instance)
        yield from timed("definitions", "-c", LOAD)
        each = ticks(storage, corpus, instance)
        yield "first tick", next(each)
        # All of them have to be looked at once, some at each tick.
        for _ in range(count // 1000 + 1):
            last = next(each)
        yield "tick", last
    for command in ("status", "shards", "run"):
        yield from timed(command, "-m", "rare_assets.command.cli", command)


def measure_files(folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Figures of the sensor on so many files, none of them read yet."""
    # So many small files would share a few shards by default.
    os.environ["RARE_FILES_PER_SHARD"] = "1"
    storage, corpus = Storage(root=str(folder / "storage")), Corpus(url=str(folder / "corpus"))
    write_source(folder / "corpus", count)
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        each = ticks(storage, corpus, instance)
        yield "first tick", next(each)
        next(each)
        yield "tick", next(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=2_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(OWN_VARIABLES)]:
        del os.environ[name]
    table = Table("with", "", "seconds", title="Nothing to make", title_justify="left")
    with contextlib.ExitStack() as stack:
        on_shards = measure_shards
        if given.postgres:
            port = stack.enter_context(running_postgres())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, kilobytes in measure_event_log(folder, new_database(port)):
                table.add_row(f"{RUNS} shards, being made", name, kilobytes)
            on_shards = partial(measure_shards, database=new_database(port))
        parts: list[tuple[str, int, Callable[[Path, int], Iterator[tuple[str, float]]]]] = [
            ("shards, all stored", given.shards, on_shards),
            ("files, none stored", given.files, measure_files),
        ]
        for what, count, measure in parts:
            if not count:
                continue
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, seconds in measure(place, count):
                table.add_row(f"{count:,} {what}", name, f"{seconds:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
