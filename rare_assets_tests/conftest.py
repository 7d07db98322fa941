"""Fixtures that tests of several modules share, each from the module of the thing it starts."""

import gc
import os
from pathlib import Path

import pytest

from rare_assets.resources.dagster_internals import keep_migrations
from rare_assets_tests.support.browser import browser, page, tab
from rare_assets_tests.support.elasticsearch_node import (
    elasticsearch_index,
    elasticsearch_node,
    elasticsearch_url,
)
from rare_assets_tests.support.environment import nothing_set, only_key_set
from rare_assets_tests.support.memory import MEMORY
from rare_assets_tests.support.postgres_server import postgres_database, postgres_port
from rare_assets_tests.support.s3_server import s3_bucket, s3_endpoint

# The modules that take minutes, longest first, and those that wait for most of their time: beside them others
# compute, and none of them ends alone.
LONGEST = (
    "test_lost_host.py",
    "test_command_line.py",
    "test_browser.py",
    "retriever/elasticsearch/test_engine.py",
    "test_deployment.py",
    "retriever/embedded/test_engine.py",
    "test_resume.py",
    "benchmarks/test_benchmarks.py",
    "test_bad_day.py",
    "retriever/elasticsearch/test_servers.py",
    "teacher/test_online.py",
    "test_damage.py",
    "command/test_hosts.py",
    "teacher/store/test_claims.py",
    "assets/test_asking.py",
    "command/test_workers.py",
)
# What tests single parts; those tests that start no process and need no server are `pytest -m fast`.
PARTS = (
    *("automation", "catalog", "checks", "operators", "resources", "storage", "text"),
    *("test_definitions.py", "test_imports.py", "test_settings.py"),
)
MARKS = ("fast", "processes", "fast or processes")
ROOT = Path(__file__).parent
# It names authorities for object stores; each that can't be reached has them read anew.
os.environ.pop("AWS_CA_BUNDLE", None)
if MEMORY:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
keep_migrations()
# Every worker imports and collects all tests, and keeps them: half of that is garbage collection.
gc.disable()


def pytest_ignore_collect(collection_path, config):
    """Read no other tests where those of single parts are asked for."""
    whole = collection_path.parent == ROOT and collection_path.name not in PARTS
    return True if whole and config.option.markexpr in MARKS else None


def pytest_collection_modifyitems(config, items):
    """Mark the tests of single parts; begin with the longest modules where modules run side by side, lest one of
    them ends alone."""
    for item in items:
        if item.path.relative_to(ROOT).parts[0] in PARTS:
            if "postgres_database" in item.fixturenames:
                item.add_marker(pytest.mark.processes)
            if not item.get_closest_marker("processes"):
                item.add_marker(pytest.mark.fast)
    if not hasattr(config, "workerinput"):
        return
    place = {ROOT / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


def pytest_collection_finish():
    """Collect garbage of tests alone, and seldom: by default it takes a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    gc.enable()


__all__ = [
    "browser",
    "elasticsearch_index",
    "elasticsearch_node",
    "elasticsearch_url",
    "nothing_set",
    "only_key_set",
    "page",
    "postgres_database",
    "postgres_port",
    "s3_bucket",
    "s3_endpoint",
    "tab",
]
