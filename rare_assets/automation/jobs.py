"""Jobs, split so that the index is built once and never per shard.

A job that held both would sync the index again for every shard's run. In the asset graph, a
backfill over all shards needs no job: it makes documents per shard, the index once, then the rest.
"""

import json
from typing import Any

import dagster as dg

from rare_assets.settings import Settings


def job_tags(job: str) -> dict[str, Any]:
    """Return what RARE_JOB_TAGS says of a job.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        tags: dict[str, Any] = json.loads(Settings().job_tags or "{}").get(job, {})
    except ValueError:
        return {}
    return tags


documents_job = dg.define_asset_job(
    "documents_job",
    tags=job_tags("documents_job"),
    selection=dg.AssetSelection.assets("documents"),
    description="Read one shard of the source files. Costs nothing.",
)
corpus_index_job = dg.define_asset_job(
    "corpus_index_job",
    tags=job_tags("corpus_index_job"),
    selection=dg.AssetSelection.assets("corpus_index"),
    description="Sync the BM25 index with the documents of all shards. Costs nothing.",
)
questions_job = dg.define_asset_job(
    "questions_job",
    tags=job_tags("questions_job"),
    selection=dg.AssetSelection.assets("documents", "questions"),
    description="Read one shard and write its questions. Costs one request a document that was "
    "never asked about.",
)
rare_job = dg.define_asset_job(
    "rare_job",
    tags=job_tags("rare_job"),
    selection=dg.AssetSelection.assets("questions", "hard_negatives", "reasoning"),
    description="Questions, hard negatives and reasoning of one shard; needs its documents and the "
    "index. Costs two requests a document that was never asked about.",
)

jobs = [documents_job, corpus_index_job, questions_job, rare_job]
