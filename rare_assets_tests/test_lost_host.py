"""A deployment on Postgres, an object store and Elasticsearch, with workers on two hosts, of which one is lost.

The object store is away for a while, too, and a limit on cost ends the command once; the next one does the rest.
"""

import itertools
import json
import os
import subprocess
import time
from collections import Counter
from urllib.parse import urlsplit

import dagster as dg
import pytest
import sqlalchemy
import yaml

from rare_assets.resources.instance_database import postgres_of
from rare_assets.resources.leases import UNFINISHED, holder_of, lease_values
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.command import COMMAND
from rare_assets_tests.support.deployment import Deployment, running_redis
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.gate import Gate
from rare_assets_tests.support.graph import API_KEY, MODEL
from rare_assets_tests.support.hosts import Host
from rare_assets_tests.support.passages import write_jsonl

SHARDS = [f"{number:02}.jsonl" for number in range(8)]
ROWS = 2
TABLES = ("documents", "questions", "hard_negatives", "reasoning")
PER_MINUTE = 60
# A worker executes so many runs at once, each with so many requests in flight.
RUNS, IN_FLIGHT = 2, 2
# Of a prompt token, and all that one command may spend: enough for the questions, and some of the reasoning.
PRICE_USD, MAX_COST_USD = 0.001, 14.0
REFUSES_SECONDS = 20
CLEAN_AFTER_SECONDS = 180
# An answer is paid for once it is stored, which takes an object store on a busy machine so long.
STORED_AFTER_SECONDS = 5
# From when a request may go to when it arrives: the first one of a process finds a busy machine, too.
ARRIVES_AFTER_SECONDS = 5
# Ends what hangs.
TOO_LONG = 600


@pytest.fixture
def deployment(tmp_path, s3_bucket, postgres_database, elasticsearch_index, elasticsearch_url):
    """Its servers, without workers; with the gate before the object store, and the endpoint."""
    for number, shard in enumerate(SHARDS):
        write_jsonl(tmp_path / "corpus" / shard, range(number * ROWS, (number + 1) * ROWS))
    prices = {
        "models": {
            MODEL: {"prompt_usd_per_million": PRICE_USD * 1e6, "completion_usd_per_million": 0}
        }
    }
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    folder = tmp_path / "deployment"
    assert Forked([*COMMAND, "deploy", "celery", "--out", str(folder)]).wait(TOO_LONG) == 0
    store = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    with (
        running_redis(tmp_path) as redis,
        Gate(store.port) as gate,
        FakeEndpoint(key=API_KEY, latency=3.0) as endpoint,
    ):
        code = {
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}",
            "RARE_SOURCE": str(tmp_path / "corpus"),
            "RARE_STORAGE": f"{s3_bucket}/rare",
            "ELASTICSEARCH_URL": elasticsearch_url,
            "RARE_INDEX": elasticsearch_index,
            "RARE_MODEL": MODEL,
            "OPENAI_BASE_URL": endpoint.url,
            "OPENAI_API_KEY": API_KEY,
            "RARE_MAX_CONCURRENCY": str(IN_FLIGHT),
            "RARE_REQUESTS_PER_MINUTE": str(PER_MINUTE),
            "RARE_PRICES": str(tmp_path / "prices.json"),
            # What the lost host has reserved of the limit is free again when none of its requests can be in flight.
            "RARE_REQUEST_TIMEOUT": "30",
            "RARE_MAX_COST_USD": str(MAX_COST_USD),
        }
        instance = postgres_database.environment | {
            "CELERY_BROKER_URL": f"{redis}/0",
            "CELERY_RESULT_BACKEND": f"{redis}/1",
        }
        with Deployment(folder, instance, code) as servers:
            yield servers, gate, endpoint


def start_worker(deployment, host):
    """Start a worker as `rare-assets deploy celery` has it, but for how often its processes are started anew."""
    services = yaml.safe_load((deployment.folder / "compose.override.yaml").read_text())
    command = services["services"]["worker"]["command"]
    command = [
        part for part in command if "max-tasks-per-child" not in part and "concurrency" not in part
    ]
    log = (deployment.folder / f"{host.name}.log").open("w")
    # Imports take most of a short run: here a process makes many.
    options = [f"--concurrency={RUNS}", "-n", "worker@%h"]
    environment = deployment.environment(host.name)
    host.start([*command, *options], env=environment, cwd=deployment.folder, stdout=log)


def submit(deployment):
    """Start the main job, beside the code server."""
    return Forked(
        [*COMMAND, "run", "--submit"],
        cwd=deployment.folder,
        env=deployment.environment("command"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(condition, deployment, seconds=TOO_LONG):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, deployment.log("daemon")[-3000:]
        time.sleep(1)


def finish(command):
    """What a command printed, and how it ended."""
    printed = command.communicate(timeout=TOO_LONG)[0]
    return printed, command.returncode


def runs_on(host, instance):
    """Runs that a process of the host works on, by their leases."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    holders = {name: holder_of(value) for name, value in lease_values(instance, runs).items()}
    return {run for run, holder in holders.items() if holder and holder.host == host}


@pytest.mark.timeout(1500)
def test_a_lost_host_an_absent_store_and_a_limit_cost_nothing_twice(
    deployment, s3_bucket, monkeypatch
):
    servers, gate, endpoint = deployment
    for name, value in servers.environment("test").items():
        monkeypatch.setenv(name, value)
    home = str(servers.folder)
    with Host("w1") as w1, Host("w2") as w2, dg.DagsterInstance.from_config(home) as instance:
        # It is asked every second: a connection anew for each query costs more than what is tested.
        instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=10)
        for host in (w1, w2):
            start_worker(servers, host)
        first = submit(servers)

        def asking():
            return [sent for sent in endpoint.requests if sent.answered is None]

        def in_the_middle():
            return len(endpoint.requests) >= 8 and len(asking()) >= 3 and runs_on("w1", instance)

        until(in_the_middle, servers)
        killed = time.monotonic()
        w1.kill()
        left = runs_on("w1", instance)
        unanswered = [
            sent.raw
            for sent in endpoint.requests
            if sent.answered is None or sent.answered > killed - STORED_AFTER_SECONDS
        ]
        with gate.shut():
            time.sleep(REFUSES_SECONDS)
        assert gate.refused
        places = instance.event_log_storage.get_concurrency_info

        def cleaned():
            ended = all(instance.get_run_by_id(run).is_finished for run in left)
            return ended and not left & places("teacher").active_run_ids

        until(cleaned, servers)
        assert time.monotonic() - killed <= CLEAN_AFTER_SECONDS
        printed, code = finish(first)
        assert code == 1, printed
        check_limit(printed, instance, endpoint)

        until(lambda: not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)), servers)
        printed, code = finish(submit(servers))
        assert code == 0, printed
        assert places("teacher").claimed_slots == []
        assert instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)) == []
    tables = ParquetTables(f"{s3_bucket}/rare")
    for table in TABLES:
        found = [tables.provenance(table, shard).n_rows for shard in SHARDS]
        assert found == [ROWS] * len(SHARDS), table
    asked = Counter(sent.raw for sent in endpoint.requests)
    assert len(asked) == 2 * ROWS * len(SHARDS)
    twice = asked - Counter(asked.keys()) - Counter(unanswered)
    assert not twice, [
        (sent.arrived - killed, sent.answered and sent.answered - killed)
        for sent in endpoint.requests
        if sent.raw in twice
    ]
    check_rate([sent.arrived for sent in endpoint.requests])


def check_limit(printed, instance, endpoint):
    """One limit on the cost of what both hosts have sent for the command."""
    assert f"The limit of ${MAX_COST_USD:g} (max_cost_usd)" in printed
    with postgres_of(instance)() as database:
        query = "SELECT requests, cost_usd FROM rare_assets_spent"
        [(requests, cost)] = database.execute(sqlalchemy.text(query))
    assert requests == len(endpoint.requests)
    # The last request may cost more than is left, one prompt at most.
    dearest = max(len(sent.raw) for sent in endpoint.requests) / 4 * PRICE_USD
    assert MAX_COST_USD / 2 < cost < MAX_COST_USD + dearest


def check_rate(arrived):
    """One rate over both hosts, in any stretch of time: and one more for each of them."""
    for first, last in itertools.combinations(range(len(arrived)), 2):
        seconds = arrived[last] - arrived[first] + ARRIVES_AFTER_SECONDS
        assert last - first + 1 <= PER_MINUTE / 60 * seconds + 1 + 2
