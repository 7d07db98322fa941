"""The run and event tags that rare_assets reads or writes: its own, and Dagster's documented ones."""

import dagster as dg

# Ties together the runs of one `rare-assets run`; limits hold for them together.
COMMAND_TAG = "rare_assets/command"
# The process that works on a run, for people: `<host>:<pid>`.
PROCESS_TAG = "rare_assets/process"
# The lease of the command that works on a run, or the run's own, its id, where a launcher started it.
LEASE_TAG = "rare_assets/lease"
# A run that a command has handed to the instance's queue, and how far its present step is.
SUBMITTED_TAG = "rare_assets/submitted"
PROGRESS_TAG = "rare_assets/progress"
PARTITION_TAG = "dagster/partition"
BACKFILL_TAG = "dagster/backfill"
DATA_VERSION_TAG = "dagster/data_version"
# The code location that a run's job is of: `<repository>@<location>`.
REPOSITORY_TAG = ".dagster/repository"


def input_version_tag(asset: dg.AssetKey) -> str:
    """Return the tag of a materialization that names the data version of one of its inputs."""
    return f"dagster/input_data_version/{asset.to_user_string()}"
