"""The code location in this process: an instance, a source, a storage and an endpoint of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.build import build_defs
from rare_assets.corpus.scan import Scan, scan_source
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.ephemeral import ephemeral_instance

OWN_VARIABLES = ("RARE_", "OPENAI_", "ELASTICSEARCH_", "DAGSTER_")
API_KEY = "sk-test-5up3r53cr3t"
MODEL = "fake-teacher"


def clean_environment() -> dict[str, str]:
    """This process' environment without anything that rare_assets reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}


class Graph:
    """Materializes parts of the graph as the UI would, on an ephemeral instance.

    Args:
        folder: where the instance, the storage and the source lie.
        endpoint: base URL of the teacher.
        elasticsearch: URL and index name; None for the embedded engine.
        storage: where the tables lie, if that is not to be in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: str = "http://127.0.0.1:9/v1",
        elasticsearch: tuple[str, str] | None = None,
        storage: str | None = None,
        **teacher: Any,
    ) -> None:
        self.source = folder / "source"
        self.source.mkdir(parents=True, exist_ok=True)
        (folder / "instance").mkdir()
        self.instance = ephemeral_instance(folder / "instance")
        self.storage = Storage(root=storage or str(folder / "storage"))
        self.corpus = Corpus(url=str(self.source))
        url, index = elasticsearch or (None, None)
        self.retriever = Bm25Retriever(storage=self.storage, elasticsearch_url=url, index=index)
        self.teacher = TeacherModel(
            storage=self.storage,
            **{"model": MODEL, "base_url": endpoint, "max_concurrency": 8, **teacher},
        )
        self.rebuild()

    def rebuild(self) -> None:
        """Load the definitions with the resources as they are now."""
        self.defs = build_defs(
            resource_overrides={
                "storage": self.storage,
                "corpus": self.corpus,
                "retriever": self.retriever,
                "teacher": self.teacher,
            }
        )

    @property
    def tables(self) -> ParquetTables:
        return self.storage.tables()

    def register(self) -> Scan:
        """Scan the source and register its shards."""
        scan = scan_source(
            self.corpus.source(), self.tables, registered_shards(self.instance, UNNAMED)
        )
        self.instance.add_dynamic_partitions(UNNAMED.partitions_name, scan.new)
        return scan

    @property
    def shards(self) -> list[str]:
        return registered_shards(self.instance, UNNAMED)

    def make(
        self,
        job: str,
        shard: str | None = None,
        *assets: str,
        **options: Mapping[str, Any],
    ) -> dg.ExecuteInProcessResult:
        """Run a job, or only some of its assets; `options` are the config of an asset by its name."""
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=shard,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            run_config={
                "ops": {asset: {"config": dict(config)} for asset, config in options.items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )

    def make_all(self, **options: Mapping[str, Any]) -> list[dg.ExecuteInProcessResult]:
        """Register and materialize everything, in the order of the main job."""
        self.register()
        results = [self.make("documents_job", shard) for shard in self.shards]
        results.append(self.make("corpus_index_job"))
        return results + [self.make("rare_job", shard, **options) for shard in self.shards]

    def rows(self, table: str) -> pl.DataFrame:
        """A table's rows, all shards together, each row with its shard."""
        return pl.concat(
            self.tables.scan(table, shard).collect().with_columns(shard=pl.lit(shard))
            for shard in self.shards
            if self.tables.exists(table, shard)
        )

    def rejects(self, table: str) -> pl.DataFrame:
        """A table's rejects, all shards together."""
        frames = [
            self.tables.scan_rejects(table, shard).collect()
            for shard in self.shards
            if self.tables.exists(table, shard)
        ]
        return pl.concat([TABLES[table].rejects.create_empty(), *frames])


def failed_checks(*results: dg.ExecuteInProcessResult) -> list[str]:
    """Names of the checks that did not pass in these runs, as `asset/check`."""
    return [
        f"{evaluation.asset_key.to_user_string()}/{evaluation.check_name}"
        for result in results
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed
    ]


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata values of an asset's materialization in that run."""
    (event,) = result.asset_materializations_for_node(asset)
    return metadata_values(event.metadata)


def metadata_values(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    """Metadata by name, those that the table `details` has among them."""
    shown = {name: value.value for name, value in metadata.items() if name != "details"}
    details = {
        record.data["figure"]: record.data["value"] for record in metadata["details"].records
    }
    assert not shown.keys() & details.keys()
    return shown | details


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """What the first failed step of that run says."""
    failures = result.get_failed_step_keys()
    assert failures, "the run has no failed step"
    data = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    user = data.user_failure_data
    if user is not None and user.description:
        return user.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    assert error is not None
    return error.message
