"""Dagster runs side by side: each in a spawned process of a small pool, all on one instance.

A run is what the UI would start: a job of the code location, one partition, recorded with its events.
Threads can't do this (runs in threads of one process hang on a SQLite instance), processes can.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import dagster as dg


class Request(NamedTuple):
    """A run to be made: a job, restricted to some of its assets, for one shard or for none."""

    run_id: str
    job: str
    assets: tuple[str, ...]
    shard: str | None
    run_config: dict[str, Any]


class Result(NamedTuple):
    """How a run ended: `error` is None if everything in it succeeded.

    `stops_others` is set where other runs would fail alike, as with a dead endpoint.
    """

    request: Request
    error: str | None
    stops_others: bool = False


def execute(request: Request) -> Result:
    """Make one run in this process, on the instance that DAGSTER_HOME names."""
    import dagster as dg

    from rare_assets.definitions import defs
    from rare_assets.instance import run_tags

    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(request.job)
        result = job.execute_in_process(
            instance=instance,
            run_id=request.run_id,
            partition_key=request.shard,
            asset_selection=_selection(request),
            run_config=_config_for(request),
            tags=run_tags(),
            raise_on_error=False,
        )
        return Result(request, None) if result.success else _failure(request, result)


def execute_all(
    requests: Iterable[Request],
    instance: dg.DagsterInstance,
    *,
    at_once: int,
    tick: Callable[[list[Request]], None],
    done: Callable[[Result], None],
) -> list[Result]:
    """Make all runs, at most `at_once` side by side; one that fails doesn't stop the others.

    Only if others would fail alike (`Result.stops_others`) no further ones are started.

    Args:
        tick: called about once a second with the runs that are under way.
        done: called with each result as it comes.
    """
    results: list[Result] = []
    waiting = list(requests)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, mp_context=context, initializer=_end_with_parent)
    running: dict[Future[Result], Request] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                request = waiting.pop(0)
                running[pool.submit(execute, request)] = request
            finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            broken = False
            for future in finished:
                request = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    broken = True
                    result = Result(request, "its process was killed (out of memory?)")
                    _report_killed(instance, request)
                results.append(result)
                done(result)
                if result.stops_others:
                    waiting.clear()
            tick(list(running.values()))
            if broken and not running:
                pool.shutdown(wait=False)
                pool = ProcessPoolExecutor(
                    at_once, mp_context=context, initializer=_end_with_parent
                )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def _selection(request: Request) -> list[dg.AssetKey]:
    import dagster as dg

    return [dg.AssetKey(name) for name in request.assets]


def _config_for(request: Request) -> dict[str, Any]:
    # Dagster refuses config for ops that a run does not hold.
    ops = request.run_config.get("ops", {})
    return {
        # The terminal shows the progress; the whole log is in the UI.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        **{name: part for name, part in request.run_config.items() if name != "ops"},
        "ops": {name: config for name, config in ops.items() if name in request.assets},
    }


def _failure(request: Request, result: dg.ExecuteInProcessResult) -> Result:
    """The first failure of a run, in the words of the exception that caused it."""
    from rare_assets.assets.asking import TEACHER_STOPPED

    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            said = data.user_failure_data
            if said and said.description:
                return Result(request, said.description, TEACHER_STOPPED in said.metadata)
            error = data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                return Result(request, error.message.strip().removeprefix("dagster._core.errors."))
    return Result(request, "failed; its log is in the UI")


def _report_killed(instance: dg.DagsterInstance, request: Request) -> None:
    run = instance.get_run_by_id(request.run_id)
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, "The process that worked on this run was killed.")


def _end_with_parent() -> None:
    """A worker must not go on asking the teacher when the command that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
