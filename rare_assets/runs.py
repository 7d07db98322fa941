"""Dagster runs side by side: each in a spawned process of a small pool, all on one instance.

A run is what the UI would start: a job of the code location, one partition, recorded with its events.
Threads can't do this (runs in threads of one process hang on a SQLite instance), processes can.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import dagster as dg

# A run that is told to end stores what it has received; one that has not ended by then is killed.
STOP_SECONDS = 20

STOPPED = "stopped"

# Set in a worker when no run is to be started any more.
_stopping: Event | None = None


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
    """Make one run in this process, on the instance that DAGSTER_HOME names.

    An interrupt ends the run, which is then recorded as canceled, and never the process.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if _stopping is not None and _stopping.is_set():
            return Result(request, STOPPED)
        return _execute(request)
    except KeyboardInterrupt:
        return Result(request, STOPPED)
    finally:
        signal.signal(signal.SIGINT, previous)


def _execute(request: Request) -> Result:
    import dagster as dg

    from rare_assets.definitions import defs
    from rare_assets.instance import run_tags

    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(request.job)
        try:
            result = job.execute_in_process(
                instance=instance,
                run_id=request.run_id,
                partition_key=request.shard,
                asset_selection=_selection(request),
                run_config=_config_for(request),
                tags=run_tags(),
                raise_on_error=False,
            )
        except dg.DagsterInvalidConfigError as error:
            # Every run takes the same config.
            return Result(request, f"Run config: {error}", stops_others=True)
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
    An interrupt (or any other exception of this process) ends the runs that are under way, in
    order, before it goes on.

    Args:
        tick: called about once a second with the runs that are under way.
        done: called with each result as it comes.
    """
    results: list[Result] = []
    waiting = list(requests)
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()

    def processes() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            at_once, mp_context=context, initializer=_start_worker, initargs=(stopping,)
        )

    pool = processes()
    running: dict[Future[Result], Request] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                request = waiting.pop(0)
                with _interrupts_ignored():
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
                pool = processes()
    except BaseException:
        stopping.set()
        killed = _stop(running)
        pool.shutdown(wait=True, cancel_futures=True)
        for request in killed:
            _report_killed(instance, request)
        raise
    pool.shutdown(wait=True)
    return results


def _stop(running: dict[Future[Result], Request]) -> list[Request]:
    """Have the runs end, and kill what doesn't. Returns the runs that were killed."""
    workers = multiprocessing.active_children()
    try:
        for worker in workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)
        wait(running, timeout=STOP_SECONDS)
    finally:
        # Also at a second interrupt, by somebody who doesn't want to wait.
        killed = [request for future, request in running.items() if not future.done()]
        if killed:
            for worker in workers:
                worker.kill()
    return killed


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started in here don't die of an interrupt before they can handle it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


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


def _start_worker(stopping: Event) -> None:
    """Prepare a worker: interrupts come from its parent alone, and it ends with its parent.

    It must not go on asking the teacher when the command that started it is gone. A terminal sends
    an interrupt to the whole process group: a second one would break off the orderly end.
    """
    global _stopping
    _stopping = stopping
    os.setpgrp()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
