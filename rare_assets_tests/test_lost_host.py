"""Two hosts on one Postgres and one object store, of which one is lost in the middle of its work."""

import time
from collections import Counter

import dagster as dg
import pytest

from rare_assets.automation.instance import SHIPPED_YAML
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.command import COMMAND
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, MODEL, clean_environment
from rare_assets_tests.support.hosts import Host
from rare_assets_tests.support.passages import write_jsonl

SHARDS = [f"{name}.jsonl" for name in "abcd"]
ROWS = 6
PER_MINUTE = 120
# A lease is dead after two minutes of silence; what follows takes a part of one.
TOO_LONG = 420


@pytest.fixture
def environment(tmp_path, s3_bucket, postgres_database):
    """What both hosts find set; each has a home of its own on the same Postgres."""
    pytest.importorskip("dagster_postgres", reason="pip install -e '.[test]' brings it")
    for number, shard in enumerate(SHARDS):
        first = number * ROWS
        write_jsonl(tmp_path / "corpus" / shard, range(first, first + ROWS))
    homes = []
    for name in ("w1", "w2"):
        home = tmp_path / name
        home.mkdir()
        (home / "dagster.yaml").write_text(
            SHIPPED_YAML.read_text() + postgres_database.dagster_yaml()
        )
        homes.append(home)
    common = {
        **clean_environment(),
        "RARE_SOURCE": str(tmp_path / "corpus"),
        "RARE_STORAGE": f"{s3_bucket}/rare",
        "RARE_MODEL": MODEL,
        "OPENAI_API_KEY": API_KEY,
        "RARE_MAX_CONCURRENCY": "2",
        # With as many shards at work as the pool has places, the first host holds all of them.
        "RARE_SHARDS_AT_ONCE": "2",
        "RARE_REQUESTS_PER_MINUTE": str(PER_MINUTE),
    }
    return [{**common, "DAGSTER_HOME": str(home)} for home in homes]


def until(condition, process):
    deadline = time.monotonic() + TOO_LONG
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(1500)
def test_another_host_does_what_a_lost_one_has_left_and_asks_little_twice(
    environment, tmp_path, s3_bucket
):
    with FakeEndpoint(key=API_KEY) as endpoint, Host("w1") as w1, Host("w2") as w2:
        one, two = ({**each, "OPENAI_BASE_URL": endpoint.url} for each in environment)
        endpoint.latency = 0.5
        first = w1.start([*COMMAND, "run"], env=one)
        with dg.DagsterInstance.from_config(one["DAGSTER_HOME"]) as instance:
            places = instance.event_log_storage.get_concurrency_info

            def all_ask():
                return len(places("teacher").claimed_slots) == len(SHARDS)

            until(lambda: all_ask() and len(endpoint.requests) >= 6, first)
            # What is in flight from now on is never answered.
            endpoint.latency = 3600.0
            second = w2.start([*COMMAND, "run"], env=two)
            until(lambda: len(places("teacher").pending_steps) > len(SHARDS), second)
            until(lambda: endpoint.in_flight == 4, second)
            lost = endpoint.in_flight
            w1.kill()
            endpoint.latency = 0.1
            printed = second.communicate(timeout=TOO_LONG)[0]
            assert second.returncode == 0, printed
            runs = instance.get_runs()
            assert places("teacher").claimed_slots == []
    assert {run.status for run in runs if run.tags["rare_assets/process"].startswith("w1:")} <= {
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
    }
    assert all(run.is_finished for run in runs)
    assert "on w1, at work since " in printed
    tables = ParquetTables(f"{s3_bucket}/rare")
    for table in ("documents", "questions", "hard_negatives", "reasoning"):
        assert [tables.provenance(table, shard).n_rows for shard in SHARDS] == [ROWS] * 4, table
    asked = Counter(sent.raw for sent in endpoint.requests)
    assert len(asked) == 2 * ROWS * len(SHARDS)
    assert sum(asked.values()) - len(asked) <= lost
    arrived = [sent.arrived for sent in endpoint.requests]
    # What both hosts have sent: the rate, and one more for each of them.
    assert len(arrived) <= PER_MINUTE / 60 * (arrived[-1] - arrived[0]) + 1 + 2
