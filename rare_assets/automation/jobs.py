"""Jobs, split so that the index is built once and never per shard.

A job that held both would sync the index again for every shard's run. In the asset graph, a
backfill over all shards needs no job: it makes documents per shard, the index once, then the rest.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import dagster as dg

from rare_assets.resources.dataset import Dataset
from rare_assets.settings import Settings


class _Job(NamedTuple):
    assets: tuple[str, ...]
    description: str


JOBS = {
    "documents_job": _Job(("documents",), "Read one shard of the source files. Costs nothing."),
    "corpus_index_job": _Job(
        ("corpus_index",),
        "Sync the BM25 index with the documents of all shards. Costs nothing.",
    ),
    "questions_job": _Job(
        ("documents", "questions"),
        "Read one shard and write its questions. Costs one request a document that was never asked "
        "about.",
    ),
    "rare_job": _Job(
        ("questions", "hard_negatives", "reasoning"),
        "Questions, hard negatives and reasoning of one shard; needs its documents and the index. "
        "Costs two requests a document that was never asked about.",
    ),
}
Jobs = Mapping[str, Any]


def job_tags(job: str) -> dict[str, Any]:
    """Return what RARE_JOB_TAGS says of a job.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        tags: dict[str, Any] = json.loads(Settings().job_tags or "{}").get(job, {})
    except ValueError:
        return {}
    return tags


def jobs_of(dataset: Dataset, executor: dg.ExecutorDefinition) -> Jobs:
    """Return a dataset's jobs by what they are called where there is one dataset alone."""
    return {
        name: dg.define_asset_job(
            dataset.named(name),
            selection=dg.AssetSelection.assets(*(dataset.key(asset) for asset in job.assets)),
            description=job.description,
            tags=job_tags(dataset.named(name)),
            executor_def=executor,
        )
        for name, job in JOBS.items()
    }
