"""What `rare-assets deploy` writes is started, but for the containers, and `rare-assets run --submit` uses it.

Servers are shared by the tests; each has an instance of its own.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from rare_assets.automation.instance import SHIPPED_YAML
from rare_assets.resources.tags import SUBMITTED_TAG
from rare_assets_tests.support.command import COMMAND
from rare_assets_tests.support.deployment import Deployment, bare_python, can_mount, running_redis
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.graph import MODEL
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.postgres_server import new_database

SECRETS = {"OPENAI_API_KEY": "sk-5up3r-53cr3t", "AWS_SECRET_ACCESS_KEY": "53cr3t-2"}
TABLES = ("documents", "questions", "hard_negatives", "reasoning")
ROWS = 8
# Ends what hangs.
SECONDS = 120


class World:
    """A corpus, a storage and an endpoint, and a deployment of a kind that works on them."""

    def __init__(self, folder, kind, shards, **instance):
        self.folder = folder / "deployment"
        self.storage, self.corpus = folder / "storage", folder / "corpus"
        for each in (self.storage, self.corpus):
            each.mkdir()
        for shard in range(shards):
            write_jsonl(self.corpus / f"{shard}.jsonl", range(shard * ROWS, (shard + 1) * ROWS))
        assert Forked([*COMMAND, "deploy", kind, "--out", str(self.folder)]).wait(SECONDS) == 0
        self.endpoint = FakeEndpoint(latency=0.2)
        self.instance = instance
        self.writable = [self.storage]

    def __enter__(self):
        self.endpoint.__enter__()
        code = {
            "RARE_SOURCE": str(self.corpus),
            "RARE_STORAGE": str(self.storage),
            "RARE_MODEL": MODEL,
            "OPENAI_BASE_URL": self.endpoint.url,
            "RARE_MAX_CONCURRENCY": "2",
            **SECRETS,
        }
        self.deployment = Deployment(self.folder, self.instance, code, *self.writable)
        try:
            self.deployment.__enter__()
        except BaseException:
            self.endpoint.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error):
        self.deployment.__exit__(*error)
        self.endpoint.__exit__(*error)

    def start(self, *arguments):
        return Forked(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.deployment.environment("command"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments):
        return self.end(self.start(*arguments))

    def end(self, process):
        """Wait for a command's good end. Returns what it has printed since it was read last."""
        try:
            printed, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert process.returncode == 0, printed + self.deployment.log("daemon")[-3000:]
        return printed

    def rows(self):
        return {
            table: sum(
                pl.read_parquet(path).height for path in (self.storage / table).glob("*.parquet")
            )
            for table in TABLES
        }

    def asked(self):
        """How often each request arrived, as counts of counts."""
        return Counter(Counter(request.raw for request in self.endpoint.requests).values())

    def runs(self):
        """Every run of the instance, by its assets and shard."""
        program = (
            "import json, dagster as dg\n"
            "with dg.DagsterInstance.get() as instance:\n"
            "    runs = instance.get_runs()\n"
            "print(json.dumps([[sorted(k.path[-1] for k in r.asset_selection or ()), dict(r.tags), "
            "r.status.value] for r in runs]))"
        )
        command = Forked(
            [sys.executable, "-c", program],
            env=self.deployment.environment("command"),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        return json.loads(self.end(command))


def whole(shards):
    return dict.fromkeys(TABLES, shards * ROWS)


@pytest.fixture
def compose(tmp_path, postgres_port):
    with World(tmp_path, "docker-compose", 2, **new_database(postgres_port).environment) as world:
        yield world


def environment_of(process):
    parts = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    return b"\n".join(parts).decode()


def killed_and_followed(world, *options):
    """Submit with these options, kill the command while its runs ask, and follow them to their end with
    another one. Returns what that one has said since it began to follow."""
    command = world.start("run", "--submit", *options)
    deadline = time.monotonic() + SECONDS
    while len(world.endpoint.requests) < 4:
        assert time.monotonic() < deadline, world.deployment.log("daemon")
        time.sleep(0.1)
    # No run ends before the next command has looked at it.
    world.endpoint.held = True
    command.kill()
    command.wait()
    following = world.start("run", "--submit")
    said = ""
    while "runs of an earlier command go on" not in said:
        line = following.stdout.readline()
        assert line, said
        said += line
    world.endpoint.held = False
    return world.end(following)


def test_a_deployment_makes_everything_once_though_its_command_is_killed(compose):
    killed_and_followed(compose)
    assert compose.rows() == whole(2)
    assert compose.asked() == {1: 2 * 2 * ROWS}

    runs = compose.runs()
    assert {status for _, _, status in runs} == {"SUCCESS"}
    assert all(tags[SUBMITTED_TAG] == "true" for _, tags, _ in runs)
    made = Counter(
        (asset, tags.get("dagster/partition")) for assets, tags, _ in runs for asset in assets
    )
    assert made == {
        **{(table, f"{shard}.jsonl"): 1 for table in TABLES for shard in range(2)},
        ("corpus_index", None): 1,
    }

    again = compose.run("run", "--submit")
    assert "go on" not in again
    assert len(compose.runs()) == len(runs)
    assert compose.asked() == {1: 2 * 2 * ROWS}
    check_webserver_and_daemon(compose)
    check_where_it_wrote(compose)


def test_limits_of_a_killed_command_do_not_hold_for_the_one_that_follows_its_runs(compose):
    limit = {"resources": {"teacher": {"config": {"max_requests": ROWS}}}}
    (compose.folder / "limit.yaml").write_text(yaml.safe_dump(limit))
    said = killed_and_followed(compose, "--config", "limit.yaml")
    assert "a run of an earlier command has stopped (The limit of 8 requests (max_requests)" in said
    assert "failed" not in said
    assert compose.rows() == whole(2)
    assert compose.asked() == {1: 2 * 2 * ROWS}


def check_webserver_and_daemon(world):
    """They show the location and its runs, without the package and without a secret."""
    url = world.deployment.start_webserver()
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } "
    query += "runsOrError { ... on Runs { count } } }"
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        found = json.load(response)["data"]
    assert found["workspaceOrError"]["locationEntries"] == [
        {"name": "rare_assets", "loadStatus": "LOADED"}
    ]
    assert found["runsOrError"]["count"] == len(world.runs())
    for name in ("webserver", "daemon"):
        told = environment_of(world.deployment.process(name))
        assert "DAGSTER_POSTGRES_PASSWORD" in told
        assert not any(secret in told for secret in SECRETS.values())
    assert SECRETS["OPENAI_API_KEY"] in environment_of(world.deployment.process("code"))


def check_where_it_wrote(world):
    """The code server had no other folder to write to; its log names none that it missed."""
    if not can_mount():
        pytest.skip("no file system can be mounted read-only here")
    assert "Read-only file system" not in world.deployment.log("code")


def test_the_environment_of_webserver_and_daemon_lacks_this_package(tmp_path):
    command = [bare_python(tmp_path / "bare"), "-c", "import dagster, rare_assets"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'rare_assets'" in done.stderr


def test_workers_of_celery_execute_what_is_submitted(tmp_path, postgres_port):
    with running_redis(tmp_path) as redis:
        urls = {
            "CELERY_BROKER_URL": f"{redis}/0",
            "CELERY_RESULT_BACKEND": f"{redis}/1",
        }
        instance = new_database(postgres_port).environment | urls
        with World(tmp_path, "celery", 1, **instance) as world:
            services = yaml.safe_load((world.folder / "compose.override.yaml").read_text())
            world.deployment.start("worker", *services["services"]["worker"]["command"])
            world.run("run", "--submit")
            assert world.rows() == whole(1)
            assert world.asked() == {1: 2 * ROWS}
            assert all("dagster-celery/task_id" in tags for _, tags, _ in world.runs())


def test_the_shipped_instance_executes_what_is_submitted(tmp_path):
    """On SQLite, as `rare-assets dev` has it."""
    world = World(tmp_path, "docker-compose", 1)
    (world.folder / "dagster.yaml").write_text(SHIPPED_YAML.read_text())
    world.writable.append(world.folder)
    with world:
        assert "1 shards (" in world.run("register")
        assert world.runs() == []
        assert world.endpoint.requests == []
        world.run("run", "--submit")
        assert world.rows() == whole(1)
        assert world.asked() == {1: 2 * ROWS}


def test_an_instance_without_a_queue_is_told_before_anything_is_made(tmp_path):
    (tmp_path / "dagster.yaml").write_text(
        "run_coordinator:\n  module: dagster._core.run_coordinator.sync_in_memory_run_coordinator\n"
        "  class: SyncInMemoryRunCoordinator\n"
    )
    done = subprocess.run(
        [*COMMAND, "run", "--submit"],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "this one has none (SyncInMemoryRunCoordinator)" in done.stderr
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_runs() == []
