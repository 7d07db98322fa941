"""All that rare_assets uses of Dagster's private modules, each use with what there is without it.

- `one_process_executor`: without it, `dg.in_process_executor`, whose steps wait for their place in a
  pool with a core at full load and up to 15 seconds too long.
- `execute_created_run`: without it, `job.execute_in_process`, whose runs get their tags, their id and
  their asset selection only after they have begun.
- `job_origin`: without it, a run of the command can't be launched again from its page.
- `definitions_in`: without it, the command works on no project whose definitions are a function.
- `code_origin`, `queue_size`: without them, no run can be handed to the queue of an instance (`--submit`).
- `latest_target`: without it, the page of a check can't tell that a newer materialization is unjudged.
- `keep_output_in_logs`: without it, each run of a command starts two interpreters that show what it prints.
- `keep_connections`: without it, or where Dagster has moved what it replaces, small shards take half as long again.
- `fork_runs`: without it, each run that a code server launches imports everything anew, for seconds of a core.
- `import_sqlite_storage`: without it, each worker of a command imports the same for half a second.
- `keep_migrations`, `read_migrations`: without them, each database that is opened takes a quarter of a second
  longer.
- `run_daemon`, `run_dev`: without them, Dagster's own daemon and its 30 seconds between two looks at a
  backfill. Both fall back to that where Dagster has moved what they change.
"""

from rare_assets.resources.dagster_internals.connections import (
    import_sqlite_storage,
    keep_connections,
    keep_migrations,
    read_migrations,
)
from rare_assets.resources.dagster_internals.daemon import (
    run_daemon,
    run_dev,
)
from rare_assets.resources.dagster_internals.executor import (
    OneProcessExecutorDefinition,
    PoolPlaces,
    one_process_executor,
)
from rare_assets.resources.dagster_internals.runs import (
    code_origin,
    definitions_in,
    execute_created_run,
    fork_runs,
    job_origin,
    keep_output_in_logs,
    latest_target,
    queue_size,
    repository_label,
    submit,
)

__all__ = [
    "OneProcessExecutorDefinition",
    "PoolPlaces",
    "code_origin",
    "definitions_in",
    "execute_created_run",
    "fork_runs",
    "import_sqlite_storage",
    "job_origin",
    "keep_connections",
    "keep_migrations",
    "keep_output_in_logs",
    "latest_target",
    "one_process_executor",
    "queue_size",
    "read_migrations",
    "repository_label",
    "run_daemon",
    "run_dev",
    "submit",
]
