"""All that rare_assets uses of Dagster's private modules, each use with what there is without it.

- `one_process_executor`: without it, `dg.in_process_executor`, whose steps wait for their place in a
  pool with a core at full load and up to 15 seconds too long.
- `execute_created_run`: without it, `job.execute_in_process`, whose runs get their tags, their id and
  their asset selection only after they have begun.
- `job_origin`: without it, a run of the command can't be launched again from its page.
- `definitions_in`: without it, the command works on no project whose definitions are a function.
- `code_origin`, `queue_size`: without them, no run can be handed to the queue of an instance (`--submit`).
- `latest_target`: without it, the page of a check can't tell that a newer materialization is unjudged.
- `run_daemon`, `run_dev`: without them, Dagster's own daemon and its 30 seconds between two looks at a
  backfill. Both fall back to that where Dagster has moved what they change.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable, execute_run
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import inner_plan_execution_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster.components.definitions import LazyDefinitions

from rare_assets.resources.tags import BACKFILL_TAG
from rare_assets.resources.waiting import WaitForPlace

LOOK_AGAIN_SECONDS = 0.5
BACKFILL_SECONDS = 2
# Runs at once where an instance sets no limit.
UNLIMITED = 100
# What starts a daemon: the module that `dagster dev` runs, and the one to run in its place.
DAGSTERS_DAEMON, OUR_DAEMON = "dagster._daemon", "rare_assets.automation.daemon"

# Called with the run config of a run and of its backfill, before the first step.
CheckRunConfig = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

_log = logging.getLogger(__name__)


# ---- the executor


class PoolPlaces(InstanceConcurrencyContext):
    """The places in pools that a run's steps wait for, looked for twice a second.

    Dagster's asks again and again without a pause, so that each waiting run takes a whole core, and
    looks only every 1 to 15 seconds whether a place has become free, in which the endpoint has nothing
    to do (https://github.com/dagster-io/dagster/pull/20367).

    Args:
        run: whose steps they are.
        say: called with a step's key, a level of logging and a line for people; default, nobody is told.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run: dg.DagsterRun,
        say: Callable[[str, int, str], None] = lambda step, level, line: None,
    ) -> None:
        super().__init__(instance, run)
        self._run = run
        self._say = say
        self._waits: dict[str, WaitForPlace] = {}

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        from sqlalchemy.exc import DBAPIError

        try:
            claimed = super().claim(concurrency_key, step_key, step_priority)
        except DBAPIError:
            # On Postgres Dagster fails where two processes are the first to use a pool: it is there then.
            self._sync_pools()
            if self.get_pool_info(concurrency_key) is None:
                raise
            self._pending_claims.discard(step_key)
            claimed = super().claim(concurrency_key, step_key, step_priority)
        if claimed:
            self._waits.pop(step_key, None)
        else:
            if step_key not in self._waits:
                say = partial(self._say, step_key)
                self._waits[step_key] = WaitForPlace(
                    self._instance, concurrency_key, self._run, say
                )
            self._waits[step_key].look()
            soon = time.time() + LOOK_AGAIN_SECONDS
            self._pending_timeouts[step_key] = min(self._pending_timeouts[step_key], soon)
        return claimed

    def interval_to_next_pending_claim_check(self) -> float:
        """Seconds until a place is looked for again."""
        due = min(self._pending_timeouts.values(), default=0)
        return max(0.0, due - time.time())


class OneProcessExecutor(InProcessExecutor):
    """Dagster's executor of that kind, with `PoolPlaces`.

    Args:
        check: refuses the run config of a run, or of its backfill, before the first step.
    """

    def __init__(self, like: InProcessExecutor, check: CheckRunConfig) -> None:
        super().__init__(like.retries, like.step_dependency_config, like.marker_to_close)
        self._check = check

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        self._check(plan_context.run_config, _of_backfill(plan_context))
        steps = execution_plan.step_keys_to_execute
        here = EngineEventData.in_process(os.getpid(), steps)
        yield dg.DagsterEvent.engine_event(
            plan_context, f"Executing steps in process (pid: {os.getpid()})", here
        )
        context_of_the_plan = PlanExecutionContextManager(
            job=plan_context.job,
            retry_mode=plan_context.retry_mode,
            execution_plan=execution_plan,
            run_config=plan_context.run_config,
            dagster_run=plan_context.dagster_run,
            instance=plan_context.instance,
            raise_on_error=plan_context.raise_on_error,
            output_capture=plan_context.output_capture,
            step_dependency_config=self.step_dependency_config,
        )
        yield from ExecuteRunWithPlanIterable(execution_plan, _steps_in_turn, context_of_the_plan)
        yield dg.DagsterEvent.engine_event(
            plan_context, f"Finished steps in process (pid: {os.getpid()})", here
        )


def _of_backfill(plan_context: PlanOrchestrationContext) -> Mapping[str, Any]:
    """The run config that a run's backfill was started with; empty without one."""
    backfill_id = plan_context.dagster_run.tags.get(BACKFILL_TAG)
    backfill = plan_context.instance.get_backfill(backfill_id) if backfill_id else None
    return (backfill and backfill.run_config) or {}


def _steps_in_turn(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan
) -> Iterator[dg.DagsterEvent]:
    def say(step_key: str, level: int, line: str) -> None:
        job_context.log.with_tags(step_key=step_key).log(level, line)

    with PoolPlaces(job_context.instance, job_context.dagster_run, say) as places:
        yield from inner_plan_execution_iterator(job_context, execution_plan, places)


def one_process_executor(check: CheckRunConfig) -> dg.ExecutorDefinition:
    """Return an executor for all steps of a run in its own process, one after the other.

    Args:
        check: called with the run config of a run and of its backfill (empty without one) before the
            first step; what it raises fails the run.
    """

    @dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
    def in_process(init_context: dg.InitExecutorContext) -> OneProcessExecutor:
        """All steps of a run in one process, one after the other. Config as `in_process` has it."""
        shipped = dg.in_process_executor.executor_creation_fn
        assert shipped is not None
        like = shipped(init_context)
        assert isinstance(like, InProcessExecutor)
        return OneProcessExecutor(like, check)

    return in_process


# ---- runs of the command, and what their pages show


def execute_created_run(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dg.JobExecutionResult:
    """Execute a run that the instance holds already, in this process."""
    return execute_run(InMemoryJob(job), run, instance)


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
        container_context=json.loads(os.environ.get("DAGSTER_CONTAINER_CONTEXT") or "null"),
    )
    return JobPythonOrigin(job, repository)


def definitions_in(module: ModuleType) -> dg.Definitions | None:
    """Return the definitions that a module has, as an object or as a function that makes them."""
    for value in vars(module).values():
        if isinstance(value, dg.Definitions):
            return value
        if isinstance(value, LazyDefinitions):
            return value()
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


# ---- the daemon


def run_daemon(arguments: Sequence[str]) -> None:
    """Run a command of `dagster-daemon`, with backfills looked after every `BACKFILL_SECONDS`."""
    from dagster._daemon import controller
    from dagster._daemon.cli import create_dagster_daemon_cli

    _be_patient()
    if hasattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS"):
        # The backfill daemon reads it anew before each sleep.
        controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_SECONDS
    else:
        _log.warning("This Dagster has no interval to set: backfills are looked after as it does.")
    create_dagster_daemon_cli()(args=list(arguments), obj={})


def run_dev(arguments: Sequence[str]) -> None:
    """Run `dagster dev`, with `run_daemon` in place of Dagster's daemon, until it is interrupted."""
    from dagster._cli import dev

    _be_patient()
    name = "open_ipc_subprocess"
    if start := getattr(dev, name, None):

        def start_with_our_daemon(command: Sequence[str], **options: Any) -> Any:
            ours = [OUR_DAEMON if part == DAGSTERS_DAEMON else part for part in command]
            return start(ours, **options)

        setattr(dev, name, start_with_our_daemon)
    else:
        _log.warning("This Dagster starts its daemon in another way: backfills take longer.")
    dev.dev_command(args=list(arguments), standalone_mode=False)


def _be_patient() -> None:
    """On a busy machine several runs that start at once may take longer than Dagster's minute, after
    which it takes them for failed."""
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", "300")
