"""The instance of the command: its folder and settings, its pools, the tags of its runs."""

import contextlib
import os
import socket
import sqlite3
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy

from rare_assets.automation.instance import (
    SHIPPED_YAML,
    HomeError,
    home_error,
    open_pools,
    pool_limit,
    prepare_home,
    run_tags,
)
from rare_assets.definitions import defs
from rare_assets.resources.pools import POOLS
from rare_assets.resources.tags import LEASE_TAG, PROCESS_TAG


@pytest.fixture
def home(nothing_set, tmp_path):
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return prepare_home()


@pytest.fixture
def instance(home):
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_the_home_is_made_with_the_shipped_settings(nothing_set, tmp_path):
    nothing_set.chdir(tmp_path)
    # prepare_home sets it for the processes that are started from this one.
    nothing_set.setenv("DAGSTER_HOME", "")
    home = prepare_home()
    assert home == tmp_path / ".rare" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)
    assert (home / "dagster.yaml").read_text() == SHIPPED_YAML.read_text()


@pytest.mark.parametrize("name", ["why?", "100%41"])
def test_a_path_that_dagsters_databases_can_not_have_is_named_and_nothing_is_made(
    nothing_set, tmp_path, name
):
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / name / "home"))
    with pytest.raises(HomeError, match="Set DAGSTER_HOME to another folder"):
        prepare_home()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "100%", "#1 [x] {y} & ü's"])
def test_any_other_path_holds_an_instance(nothing_set, tmp_path, name):
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / name / "home"))
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []


def test_settings_of_the_users_own_stay(home):
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home()
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_dagster_takes_the_shipped_settings(instance):
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled
    assert instance.get_concurrency_config().pool_config.default_pool_limit == 4


def pool_limits(instance):
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_pools_have_room_for_the_shards_at_once_and_follow_the_setting(instance):
    assert open_pools(instance, 4, POOLS.values()) == []
    # Nothing was set: the default limit holds for what comes.
    assert pool_limits(instance) == {}
    assert open_pools(instance, 16, POOLS.values()) == []
    assert pool_limits(instance) == {"teacher": 16, POOLS["index"]: 16}
    storage = instance.event_log_storage
    claims = [storage.claim_concurrency_slot("teacher", str(n), "questions") for n in range(17)]
    assert [claim.is_claimed for claim in claims].count(True) == 16
    open_pools(instance, 6, POOLS.values())
    assert pool_limits(instance) == {"teacher": 6, POOLS["index"]: 6}
    open_pools(instance, 2, POOLS.values())
    assert pool_limits(instance) == {"teacher": 4, POOLS["index"]: 4}
    open_pools(instance, 8, POOLS.values())
    assert pool_limits(instance) == {"teacher": 8, POOLS["index"]: 8}


def test_a_pool_limit_that_was_set_by_hand_stays_and_is_told(instance):
    instance.event_log_storage.set_concurrency_slots("teacher", 2)
    assert open_pools(instance, 8, POOLS.values()) == ["teacher (2)"]
    assert open_pools(instance, 2, POOLS.values()) == []
    assert pool_limits(instance) == {"teacher": 2, POOLS["index"]: 4}


def test_the_limit_of_a_pool_is_its_own_or_the_default(instance):
    assert pool_limit(instance, "teacher") == 4
    open_pools(instance, 16, POOLS.values())
    assert pool_limit(instance, "teacher") == 16
    instance.event_log_storage.set_concurrency_slots("teacher", 3)
    assert pool_limit(instance, "teacher") == 3


def test_without_a_default_limit_a_pool_has_room_for_any_number():
    with dg.DagsterInstance.ephemeral() as bare:
        assert pool_limit(bare, "teacher") is None


def test_these_are_the_pools_of_the_assets():
    pools = {op.pool for asset in defs.assets if (op := getattr(asset, "op", None)) and op.pool}
    assert pools == set(POOLS.values())


def test_a_run_is_tagged_with_its_process_lease_and_code_location():
    tags = run_tags("one", "a-lease")
    assert tags[LEASE_TAG] == "a-lease"
    assert tags[PROCESS_TAG] == f"{socket.gethostname()}:{os.getpid()}"
    assert "__repository__@rare_assets" in tags.values()
    workspace = Path(SHIPPED_YAML).with_name("workspace.yaml").read_text()
    assert "location_name: rare_assets" in workspace


def test_an_error_of_the_database_is_told_without_its_statement(home):
    file = home / "runs.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE runs (body TEXT)")
    engine = sqlalchemy.create_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    insert = sqlalchemy.text("INSERT INTO runs VALUES ('all that was to be stored')")
    with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        connection.execute(insert)
    said = home_error(raised.value)
    assert f"DAGSTER_HOME {home} can't be used (attempt to write a readonly database)" in said
    assert "INSERT" not in said
    assert "\n" not in said
    assert home_error(ValueError("another")) is None
    assert home_error(FileNotFoundError(2, "No such file", "/elsewhere/dagster.yaml")) is None


def test_a_home_that_is_a_file_or_lies_below_one_is_refused(nothing_set, tmp_path):
    (tmp_path / "file").touch()
    for home in ("file", "file/below"):
        nothing_set.setenv("DAGSTER_HOME", str(tmp_path / home))
        with pytest.raises(HomeError, match=f"{home} can't be used"):
            prepare_home()
