"""The executor of all jobs: a run's steps one after the other, in the run's own process.

It is Dagster's `in_process` but for how a step waits for its place in a pool. Dagster's asks again
and again without a pause, so that each waiting run takes a whole core, and looks only every 1 to 15
seconds whether a place has become free, in which the endpoint has nothing to do
(https://github.com/dagster-io/dagster/pull/20367).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import inner_plan_execution_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import BACKFILL_ID_TAG

LOOK_AGAIN_SECONDS = 0.5


class PoolPlaces(InstanceConcurrencyContext):
    """The places in pools that a run's steps wait for, looked for twice a second."""

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        claimed = super().claim(concurrency_key, step_key, step_priority)
        if not claimed:
            soon = time.time() + LOOK_AGAIN_SECONDS
            self._pending_timeouts[step_key] = min(self._pending_timeouts[step_key], soon)
        return claimed

    def interval_to_next_pending_claim_check(self) -> float:
        """Seconds until a place is looked for again."""
        due = min(self._pending_timeouts.values(), default=0)
        return max(0.0, due - time.time())


class OneProcessExecutor(InProcessExecutor):
    """Dagster's executor of that kind, with `PoolPlaces`.

    Options of every step are looked at before the first one starts; in a backfill, those of the steps
    that other runs of it will make, too.
    """

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        from rare_assets.stages.options import check_run_config

        check_run_config(plan_context.run_config, _of_backfill(plan_context))
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
    backfill_id = plan_context.dagster_run.tags.get(BACKFILL_ID_TAG)
    backfill = plan_context.instance.get_backfill(backfill_id) if backfill_id else None
    return (backfill and backfill.run_config) or {}


def _steps_in_turn(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan
) -> Iterator[dg.DagsterEvent]:
    with PoolPlaces(job_context.instance, job_context.dagster_run) as places:
        yield from inner_plan_execution_iterator(job_context, execution_plan, places)


@dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
def one_process_executor(init_context: dg.InitExecutorContext) -> OneProcessExecutor:
    """All steps of a run in one process, one after the other. Config as `in_process` has it."""
    shipped = dg.in_process_executor.executor_creation_fn
    assert shipped is not None
    like = shipped(init_context)
    assert isinstance(like, InProcessExecutor)
    return OneProcessExecutor(like.retries, like.step_dependency_config, like.marker_to_close)
