"""The code location that `dagster dev` and `dg dev` load."""

from rare_assets.build import build_defs

defs = build_defs(alone=True)
