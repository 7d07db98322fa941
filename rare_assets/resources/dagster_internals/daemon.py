"""Dagster's daemon, and `dagster dev` with it, looking after backfills every two seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import dagster as dg

from rare_assets.resources.dagster_internals.connections import keep_connections, keep_migrations

BACKFILL_SECONDS = 2
# What starts a daemon: the module that `dagster dev` runs, and the one to run in its place.
DAGSTERS_DAEMON, OUR_DAEMON = "dagster._daemon", "rare_assets.automation.daemon"

_log = logging.getLogger(__name__)


def run_daemon(arguments: Sequence[str]) -> None:
    """Run a command of `dagster-daemon`, with backfills looked after every `BACKFILL_SECONDS`."""
    from dagster._daemon import cli, controller

    _be_patient()
    # It opens the instance anew for each run that it launches.
    keep_migrations()
    name = "daemon_controller_from_instance"
    if control := getattr(cli, name, None):

        def control_over_kept_connections(
            instance: dg.DagsterInstance, *rest: Any, **more: Any
        ) -> Any:
            # Its loops ask the instance several times a second.
            keep_connections(instance)
            return control(instance, *rest, **more)

        setattr(cli, name, control_over_kept_connections)
    if hasattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS"):
        # The backfill daemon reads it anew before each sleep.
        controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_SECONDS
    else:
        _log.warning("This Dagster has no interval to set: backfills are looked after as it does.")
    cli.create_dagster_daemon_cli()(args=list(arguments), obj={})


def run_dev(arguments: Sequence[str]) -> None:
    """Run `dagster dev`, with `run_daemon` in place of Dagster's daemon, until it is interrupted."""
    from dagster._cli import dev

    _be_patient()
    name = "open_ipc_subprocess"
    if start := getattr(dev, name, None):

        def start_with_our_daemon(command: Sequence[str], **options: Any) -> Any:
            ours = [OUR_DAEMON if part == DAGSTERS_DAEMON else part for part in command]
            return start(ours, **options)

        setattr(dev, name, start_with_our_daemon)
    else:
        _log.warning("This Dagster starts its daemon in another way: backfills take longer.")
    dev.dev_command(args=list(arguments), standalone_mode=False)


def _be_patient() -> None:
    """Wait longer than Dagster's minute, after which it takes runs for failed: several that start
    at once on a busy machine may take more."""
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", "300")
