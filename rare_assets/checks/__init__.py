"""Asset checks: the properties that the tables promise, judged per shard on what is stored.

A check is a plain function from a stored shard to a judgement, named for the property that holds.
What the tables promise is an ERROR where it does not hold, and those checks that guard money
downstream are blocking: in the same run, nothing after them starts. How good the teacher's answers
are is a matter of degree: those checks only warn, above a rate that is a setting. Each carries its
measured value, its threshold and up to five examples as metadata.
"""

from rare_assets.checks.by_table import CHECKS, asset_checks

__all__ = ["CHECKS", "asset_checks"]
