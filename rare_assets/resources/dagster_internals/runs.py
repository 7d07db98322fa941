"""Runs: how they are executed, queued and forked, and what their pages show."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage import local_compute_log_manager
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils import ensure_file
from dagster.components.definitions import LazyDefinitions

from rare_assets.resources.processes import process_context

# Where a code server is told what its runs get; Dagster's chart uses the second name.
CONTEXTS = ("DAGSTER_CONTAINER_CONTEXT", "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT")
# Runs at once where an instance sets no limit.
UNLIMITED = 100


def execute_created_run(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dg.JobExecutionResult:
    """Execute a run that the instance holds already, in this process."""
    return execute_run(InMemoryJob(job), run, instance)


def keep_output_in_logs() -> None:
    """Have what runs of this process print go into their logs alone.

    Dagster shows it where the process prints, too, by two programs and two interpreters for every run.
    """

    @contextlib.contextmanager
    def to_file(stream: Any, path: str) -> Iterator[None]:
        ensure_file(path)
        with redirect_to_file(stream, path):
            yield

    # Where Dagster has moved it, nothing reads this.
    vars(local_compute_log_manager)["mirror_stream_to_file"] = to_file


def repository_label(location: str) -> str:
    """Return what the tag `tags.REPOSITORY_TAG` holds for the runs of a code location."""
    return f"{SINGLETON_REPOSITORY_NAME}@{location}"


def job_origin(job: str, module: str, location: str) -> RemoteJobOrigin:
    """Return where the UI finds the job of a run that it did not launch, so as to launch it again."""
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=module)
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(target, location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(origin, SINGLETON_REPOSITORY_NAME), job)


def code_origin(job: str, module: str, folder: str | None) -> JobPythonOrigin:
    """Return where a launcher finds the code of a run: a module, in the image and with the secrets and
    volumes that the code server of this environment has; `folder` is where it is found from, too."""
    repository = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=ModuleCodePointer(module, "defs", working_directory=folder),
        container_image=os.environ.get("DAGSTER_CURRENT_IMAGE"),
        entry_point=["dagster"],
        container_context=json.loads(next(filter(None, map(os.environ.get, CONTEXTS)), "null")),
    )
    return JobPythonOrigin(job, repository)


def definitions_in(module: ModuleType) -> dg.Definitions | None:
    """Return the definitions that a module has, as a function that makes them or as an object.

    Raises:
        ValueError: it has several, of which Dagster takes none.
    """
    for kind in (LazyDefinitions, dg.Definitions):
        found = {name: value for name, value in vars(module).items() if isinstance(value, kind)}
        if len(found) > 1:
            raise ValueError(
                f"Dagster takes one Definitions of a module, and it has {', '.join(found)}: merge them, and keep "
                "the others out of its names"
            )
        for value in found.values():
            return value() if isinstance(value, LazyDefinitions) else value
    return None


def queue_size(instance: dg.DagsterInstance) -> int | None:
    """Return how many runs of the instance's queue are executed at once; None if it has no queue."""
    if not isinstance(instance.run_coordinator, QueuedRunCoordinator):
        return None
    queue = instance.get_concurrency_config().run_queue_config
    # -1 is no limit.
    return queue.max_concurrent_runs if queue and queue.max_concurrent_runs > 0 else UNLIMITED


def submit(instance: dg.DagsterInstance, run_id: str) -> None:
    """Put a run that was created into the instance's queue; one that is there stays as it is."""
    workspace: Any = None  # a queue needs none: the daemon has its own
    instance.submit_run(run_id, workspace)


def latest_target(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Return the materialization that a check of a partition is about; None of one that no run made."""
    made = dg.AssetRecordsFilter(asset, asset_partitions=[partition])
    records = instance.fetch_materializations(made, limit=1).records
    if not records:
        return None
    latest = records[0]
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp
    )


def fork_runs() -> None:
    """Have a code server fork the runs that it launches, if this process is one.

    Dagster starts each in a new interpreter, which imports everything anew.
    """
    server = sys.modules.get("dagster._grpc.server")
    kind = getattr(server, "DagsterApiServer", None)
    if kind is None:
        return
    context = process_context("dagster._grpc.impl")
    # The server has its own by the time that it loads definitions: a property comes before an attribute.
    kind._mp_ctx = property(lambda _: context, lambda *_: None)
