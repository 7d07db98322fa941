"""The one partitioning: a shard of the corpus is a partition of every table.

Keys are added by the `new_shards` sensor, by `rare-assets run`, or by hand in the UI; they come from
`CorpusSource.shards` and sort as their files do. The name is global in a Dagster instance.
"""

import dagster as dg

document_shards = dg.DynamicPartitionsDefinition(name="rare_document_shards")
