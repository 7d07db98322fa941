"""Dagster's daemon, looking after backfills every 2 seconds: `python -m rare_assets.automation.daemon run`.

Dagster's own looks every 30 seconds, for which it has no setting: a backfill of the whole graph takes
several looks, and so sleeps most of its time.
"""

import sys

from rare_assets.resources.dagster_internals import run_daemon

if __name__ == "__main__":
    run_daemon(sys.argv[1:])
