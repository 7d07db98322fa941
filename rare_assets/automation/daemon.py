"""Dagster's daemon, looking after backfills every 2 seconds: `python -m rare_assets.automation.daemon run`.

Dagster's own looks every 30 seconds, for which it has no setting: a backfill of the whole graph takes
several looks, and so sleeps most of its time. Uses what Dagster keeps private: its daemon's command and
interval, and how `dagster dev` starts its processes.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from dagster._cli import dev
from dagster._daemon import controller
from dagster._daemon.cli import create_dagster_daemon_cli

BACKFILL_SECONDS = 2
DAGSTERS_DAEMON, OURS = "dagster._daemon", "rare_assets.automation.daemon"


def main(arguments: Sequence[str]) -> None:
    """Run a command of `dagster-daemon`: `run`, with its options."""
    _be_patient()
    # The backfill daemon reads it anew before each sleep.
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_SECONDS
    create_dagster_daemon_cli()(args=list(arguments), obj={})


def _be_patient() -> None:
    """On a busy machine several runs that start at once may take longer than Dagster's minute, after
    which it takes them for failed."""
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", "300")


def dagster_dev(arguments: Sequence[str]) -> None:
    """Run `dagster dev`, with this daemon in place of Dagster's, until it is interrupted."""
    _be_patient()
    start = dev.open_ipc_subprocess

    def start_with_our_daemon(command: Sequence[str], **options: Any) -> Any:
        return start([OURS if part == DAGSTERS_DAEMON else part for part in command], **options)

    setattr(dev, "open_ipc_subprocess", start_with_our_daemon)  # noqa: B010
    dev.dev_command(args=list(arguments), standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1:])
