"""The Dagster instance of `rare-assets`' own commands: its folder, its dagster.yaml, its pools."""

import os
import re
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import yaml
from filelock import FileLock

from rare_assets.resources import dagster_internals
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets.resources.tags import (
    COMMAND_TAG,
    LEASE_TAG,
    PROCESS_TAG,
    REPOSITORY_TAG,
    SUBMITTED_TAG,
)
from rare_assets.settings import Settings

SHIPPED_YAML = Path(__file__).with_name("dagster.yaml")
# Gives the code location the same name wherever the UI is started: runs and sensors are kept by it.
WORKSPACE = Path(__file__).with_name("workspace.yaml")
LOCATION, SHIPPED_MODULE = "rare_assets", "rare_assets.definitions"
# Dagster writes the path of its databases into URLs, in which these mean something else.
_NOT_IN_A_URL = re.compile(r"\?|%[0-9A-Fa-f]{2}")


def graph_page(location: str, group: str) -> str:
    """Return the page of the UI on which all assets of the main job are seen at once."""
    return f"/locations/{quote(location)}/asset-groups/{group}"


class HomeError(Exception):
    """DAGSTER_HOME, or the database in it, can't be used."""


def prepare_home() -> Path:
    """Create DAGSTER_HOME (default `.rare/dagster`) with the shipped dagster.yaml where it has none.

    Sets DAGSTER_HOME in this process' environment, so that runs started from it find the instance.

    Raises:
        HomeError: it is no folder, can't be written, or has a path that Dagster's databases can't have.
    """
    home = Path(Settings().dagster_home).expanduser().resolve()
    os.environ["DAGSTER_HOME"] = str(home)
    config = home / "dagster.yaml"
    if not config.exists() and (found := _NOT_IN_A_URL.search(str(home))):
        raise HomeError(
            f"DAGSTER_HOME {home} can't be used: Dagster's databases bear no {found[0]!r} in their "
            "path. Set DAGSTER_HOME to another folder; the storage may stay where it is."
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            # Half of it would be taken for settings of the user's own.
            unready = home / f".dagster.yaml.{os.getpid()}"
            try:
                unready.write_text(SHIPPED_YAML.read_text())
                unready.replace(config)
            finally:
                unready.unlink(missing_ok=True)
        _make_databases(home)
    except OSError as error:
        raise HomeError(_cannot_be_used(home, error)) from error
    return home


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, as a traceback tells it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def home_error(error: BaseException) -> str | None:
    """Return what to tell a user of an error of Dagster's database, or of a file in DAGSTER_HOME; None
    for any other error."""
    from sqlalchemy.exc import SQLAlchemyError

    home = Path(os.environ.get("DAGSTER_HOME") or Settings().dagster_home)
    for cause in causes(error):
        if isinstance(cause, HomeError):
            return str(cause)
        if isinstance(cause, SQLAlchemyError):
            # Its own text holds the statement, and all that was to be stored.
            return _cannot_be_used(home, getattr(cause, "orig", None) or type(cause).__name__)
        if isinstance(cause, OSError) and _is_below(cause.filename, home):
            return _cannot_be_used(home, cause)
    return None


def _is_below(path: object, home: Path) -> bool:
    return isinstance(path, str) and Path(path).is_relative_to(home)


def _cannot_be_used(home: Path, why: object) -> str:
    why = why.strerror if isinstance(why, OSError) and why.strerror else why
    return (
        f"DAGSTER_HOME {home} can't be used ({why}): it must be a folder that can be written, with "
        "room left on its disk. Mend it, or set DAGSTER_HOME to another folder: tables and answers "
        "lie in RARE_STORAGE and stay."
    )


def workspace_of(module: str, location: str) -> Path:
    """Return the workspace file of a code location; that of somebody's own module lies in DAGSTER_HOME."""
    if module == SHIPPED_MODULE:
        return WORKSPACE
    path = Path(os.environ["DAGSTER_HOME"]) / f"workspace-{location}.yaml"
    python = {
        "module_name": module,
        "location_name": location,
        "working_directory": str(Path.cwd()),
    }
    path.write_text(yaml.safe_dump({"load_from": [{"python_module": python}]}))
    return path


def _make_databases(home: Path) -> None:
    """Have Dagster make its databases on first use: two commands that did so at once would both fail."""
    made = home / ".databases_made"
    if made.exists() or not os.access(home, os.W_OK):
        # A folder that is only read holds a dagster.yaml whose databases are elsewhere.
        return
    with FileLock(home / ".databases_made.lock"):
        if not made.exists():
            with dg.DagsterInstance.get() as instance:
                instance.get_runs(limit=1)
                registered_shards(instance, UNNAMED)
                instance.all_instigator_state()
            made.touch()


def run_tags(command: str, lease: str, location: str = LOCATION) -> dict[str, str]:
    """Mark a run with the `rare-assets run` that it is part of, the process that works on it, the lease
    by which others know that it lives, and the code location that its job is of.

    Without the location the UI shows the run, but not on its job's pages.
    """
    return {
        COMMAND_TAG: command,
        PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}",
        LEASE_TAG: lease,
        REPOSITORY_TAG: dagster_internals.repository_label(location),
    }


def submitted_tags(command: str, location: str) -> dict[str, str]:
    """Mark a run that a `rare-assets run --submit` hands to the queue, whichever process works on it."""
    return {
        COMMAND_TAG: command,
        SUBMITTED_TAG: "true",
        REPOSITORY_TAG: dagster_internals.repository_label(location),
    }


def open_pools(
    instance: dg.DagsterInstance,
    at_once: int,
    pools: Collection[str],
    *,
    needed: int | None = None,
) -> list[str]:
    """Give each of these pools room for so many steps at once, as RARE_SHARDS_AT_ONCE asks for.

    A limit that somebody has set, in the UI or by `dagster instance concurrency`, stays; one that
    this function has set follows the setting, down to the default limit of dagster.yaml.

    Return the pools that stay below `needed` (default `at_once`), with their limit, as `teacher (2)`.
    """
    from sqlalchemy.exc import DBAPIError

    needed = at_once if needed is None else needed
    storage = instance.event_log_storage
    limits = {pool.name: pool for pool in storage.get_pool_limits()}
    default = instance.global_op_concurrency_default_limit
    ours = instance.run_storage.get_cursor_values(set(map(_pool_cursor, pools)))
    too_low = []
    for name in pools:
        pool = limits.get(name)
        set_by_us = pool is not None and ours.get(_pool_cursor(name)) == str(pool.limit)
        if pool is not None and not pool.from_default and not set_by_us:
            if pool.limit < needed:
                too_low.append(f"{name} ({pool.limit})")
        elif default is not None and (set_by_us or at_once > default):
            limit = max(default, at_once)
            try:
                storage.set_concurrency_slots(name, limit)
            except DBAPIError:  # another command was the first to set it
                storage.set_concurrency_slots(name, limit)
            instance.run_storage.set_cursor_values({_pool_cursor(name): str(limit)})
    return too_low


def pool_limit(instance: dg.DagsterInstance, pool: str) -> int | None:
    """Return how many steps of a pool may run at once; None if any number."""
    limits = {each.name: each.limit for each in instance.event_log_storage.get_pool_limits()}
    return limits.get(pool, instance.global_op_concurrency_default_limit)


def _pool_cursor(pool: str) -> str:
    return f"rare_assets/pool/{pool}"
