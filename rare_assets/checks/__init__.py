"""Asset checks: the properties that the tables promise, judged per shard on what is stored.

A rule is a plain function from a stored shard to a judgement, named for the property that holds; a
check is what the UI shows of a table: a few, each of several rules. What the tables promise is an
ERROR where it does not hold, and guards money downstream: nothing that follows starts, in the same run
or in a later one. How good the teacher's answers are is a matter of degree: those rules only warn,
above a rate that is a setting. A check's result names the rules that fail, each with what to do, its
measured value and up to five examples.

`by_table` has the rules of each table, `asset_checks` how Dagster runs them, `gate` how a step looks at
those of the tables that it is made from.
"""
