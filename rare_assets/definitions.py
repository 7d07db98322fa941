"""The code location that `dagster dev` and `dg dev` load."""

from rare_assets.resources.processes import imports_uncollected

with imports_uncollected():
    from rare_assets.build import build_defs
    from rare_assets.resources.dagster_internals import fork_runs, keep_migrations

    fork_runs()
    # Each tick of a sensor opens the instance anew.
    keep_migrations()
    defs = build_defs(alone=True)
