"""Dagster's executor of one process, whose steps wait for their place in a pool at no cost."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
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

from rare_assets.resources.dagster_internals.connections import keep_connections
from rare_assets.resources.leases import lease_of_run, runs_take_leases
from rare_assets.resources.tags import BACKFILL_TAG
from rare_assets.resources.waiting import WaitForPlace

LOOK_AGAIN_SECONDS = 0.5

# Called with the run config of a run and of its backfill, before the first step.
CheckRunConfig = Callable[[Mapping[str, Any], Mapping[str, Any]], None]


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
        """Return the seconds until a place is looked for again."""
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
        keep_connections(plan_context.instance)
        # Before anything else: a run that has begun and gives no sign of life is left to who started it.
        with _alive(plan_context.instance, plan_context.dagster_run):
            yield from self._execute(plan_context, execution_plan)

    def _execute(
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


def _alive(
    instance: dg.DagsterInstance, run: dg.DagsterRun
) -> contextlib.AbstractContextManager[None]:
    """Tell others that this process works on a run, unless the instance resumes runs that are lost."""
    return lease_of_run(instance, run) if runs_take_leases(instance) else contextlib.nullcontext()


def _of_backfill(plan_context: PlanOrchestrationContext) -> Mapping[str, Any]:
    """Return the run config that a run's backfill was started with; empty without one."""
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


class OneProcessExecutorDefinition(dg.ExecutorDefinition):
    """Of executors whose runs hold a lease before their first own event, if a launcher started them."""


def one_process_executor(check: CheckRunConfig) -> OneProcessExecutorDefinition:
    """Return an executor for all steps of a run in its own process, one after the other.

    Args:
        check: called with the run config of a run and of its backfill (empty without one) before the
            first step; what it raises fails the run.
    """

    def in_process(init_context: dg.InitExecutorContext) -> OneProcessExecutor:
        shipped = dg.in_process_executor.executor_creation_fn
        assert shipped is not None
        like = shipped(init_context)
        assert isinstance(like, InProcessExecutor)
        return OneProcessExecutor(like, check)

    return OneProcessExecutorDefinition(
        name="in_process",
        config_schema=IN_PROC_CONFIG,
        executor_creation_fn=in_process,
        description="Run all steps of a run in one process, one after the other. Config as `in_process` has it.",
    )
