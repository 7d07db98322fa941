"""Dagster runs side by side: each in a process of a small pool, all on one instance.

A run is what the UI would start: a job of the code location, one partition, recorded with its events.
Threads can't do this (runs in threads of one process hang on a SQLite instance), processes can.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rare_assets.assets.step_progress import StepState, listeners
from rare_assets.command.stops import STOPS, interrupt, silence_pool, stop_handler, stops_held
from rare_assets.command.target import SHIPPED_PLACE, Place, definitions_of
from rare_assets.files.cache import temporary_folder
from rare_assets.resources.leases import Lease
from rare_assets.resources.pools import free_pool_slots
from rare_assets.resources.processes import process_context

if TYPE_CHECKING:
    import dagster as dg

# A run that is told to end stores what it has received; one that has not ended by then is killed.
STOP_SECONDS = 20

STOPPED = "stopped"
# The terminal shows the progress; the whole log is in the UI.
_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

# Set in a worker when no run is to be started any more.
_stopping: Event | None = None
# Where a worker says how far its run is, in a file named by the run: a pipe or a queue could be left
# locked by a worker that is killed.
_progress: Path | None = None
# The lease of the command that this process works for.
_lease = ""


class Request(NamedTuple):
    """A run to be made: a job, restricted to some of its assets, for one shard or for none.

    `command` is the same for all runs of one `rare-assets run`: limits hold for them together.
    """

    command: str
    run_id: str
    job: str
    assets: tuple[str, ...]
    shard: str | None
    run_config: dict[str, Any]
    place: Place = SHIPPED_PLACE


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
    listeners[:] = [partial(_write_progress, _progress / request.run_id)] if _progress else []
    try:
        if _stopping is not None and _stopping.is_set():
            return Result(request, STOPPED)
        return _execute(request)
    except KeyboardInterrupt:
        return Result(request, STOPPED)
    except Exception as error:
        from rare_assets.automation.instance import home_error

        if said := home_error(error):
            # No other run would come further.
            return Result(request, said, stops_others=True)
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def _execute(request: Request) -> Result:
    import dagster as dg

    from rare_assets.automation.instance import run_tags
    from rare_assets.resources.dagster_internals import execute_created_run, one_process_executor

    place = request.place

    instance = _instance()
    try:
        run = create_run(
            instance, request, run_tags(request.command, _lease, place.location), _SILENT
        )
    except dg.DagsterInvalidConfigError as error:
        # Every run takes the same config.
        return Result(request, f"Run config: {error}", stops_others=True)
    job = definitions_of(place.module).resolve_job_def(run.job_name)
    # Whatever executes the deployment's own runs: this one is executed by this process. The command has looked
    # at its config, over the deployment's defaults.
    job = job.with_executor_def(one_process_executor(lambda *_: None))
    result = execute_created_run(job, run, instance)
    return Result(request, None) if result.success else failure(request, result.all_events)


@cache
def _instance() -> dg.DagsterInstance:
    """Return the instance of all runs of this process: to open one anew for each takes half a second."""
    import dagster as dg

    from rare_assets.resources.dagster_internals import keep_connections, keep_output_in_logs

    instance = dg.DagsterInstance.get()
    keep_connections(instance)
    # The terminal shows the progress.
    keep_output_in_logs()
    return instance


def create_run(
    instance: dg.DagsterInstance,
    request: Request,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
    code_origin: Any = None,
) -> dg.DagsterRun:
    """Create the run of a request, which then waits to be executed.

    Raises:
        DagsterInvalidConfigError: the request's run config does not fit the assets.
    """
    from rare_assets.resources.dagster_internals import job_origin

    place = request.place
    name = place.dataset.named(request.job)
    job = definitions_of(place.module).resolve_job_def(name)
    selection = frozenset(place.dataset.key(asset) for asset in request.assets)
    all_tags = {**job.run_tags, **tags}
    if request.shard is not None:
        all_tags |= job.get_tags_for_partition_key(request.shard, selection)
    return instance.create_run_for_job(
        job,
        run_id=request.run_id,
        run_config={**run_config, **_config_for(request)},
        tags=all_tags,
        asset_selection=selection,
        remote_job_origin=job_origin(name, place.module, place.location),
        job_code_origin=code_origin,
    )


class RunPool:
    """Worker processes that make runs. They are kept between calls: each takes seconds to start.

    A context manager: at its end the workers end, after an exception (an interrupt, say) having
    ended the runs that are under way, in order. It holds the lease by which others see that its runs are
    alive, and ends the runs of commands that are gone.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._context = process_context()
        self._progress = tempfile.TemporaryDirectory(prefix="rare-assets-", dir=temporary_folder())
        self._lease = Lease(instance)
        self._opened = contextlib.ExitStack()
        self._stopping = self._context.Event()
        # Executors of one process each: the death of a process breaks its whole executor.
        self._idle: list[ProcessPoolExecutor] = []
        self._running: dict[Future[Result], tuple[Request, ProcessPoolExecutor]] = {}

    def __enter__(self) -> RunPool:
        self._opened.enter_context(self._lease)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A worker that is still starting must not be left behind, whatever comes meanwhile.
        with stops_held(), self._opened:
            if kind is not None:
                self._stopping.set()
                self._stop()
            for worker in self._idle:
                worker.shutdown()
            self._progress.cleanup()

    def step_state(self, request: Request) -> StepState | None:
        """Return how far a run's present step is; None before it has said so."""
        try:
            return StepState(*json.loads((Path(self._progress.name) / request.run_id).read_text()))
        except FileNotFoundError:
            return None

    def execute_all(
        self,
        start: Callable[[list[Request]], Request | None],
        *,
        tick: Callable[[list[Request]], None],
        done: Callable[[Result], None],
    ) -> list[Result]:
        """Make runs until none is under way and none may start; one that fails stops no other.

        Args:
            start: called with the runs under way; a run that may start beside them, or None.
            tick: called about once a second with the runs that are under way.
            done: called with each result as it comes.
        """
        results: list[Result] = []
        while True:
            while (request := start(self._under_way())) is not None:
                self._start(request)
            if not self._running:
                return results
            finished, _ = wait(self._running, timeout=1, return_when=FIRST_COMPLETED)
            for future in finished:
                result = self._result(future)
                results.append(result)
                done(result)
            tick(self._under_way())

    def _under_way(self) -> list[Request]:
        return [request for request, _ in self._running.values()]

    def _start(self, request: Request) -> None:
        with stops_held():
            while True:
                worker = self._idle.pop() if self._idle else self._worker()
                try:
                    self._running[worker.submit(execute, request)] = request, worker
                    return
                except BrokenProcessPool:
                    # It was killed while it had nothing to do.
                    worker.shutdown(wait=False)

    def _worker(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            self._context,
            initializer=_start_worker,
            initargs=(
                self._stopping,
                Path(self._progress.name),
                self._lease.name,
                dict(os.environ),
            ),
        )

    def _result(self, future: Future[Result]) -> Result:
        request, worker = self._running.pop(future)
        try:
            result = future.result()
        except BrokenProcessPool:
            worker.shutdown(wait=False)
            self._report_killed(request)
            return Result(request, "its process was killed (out of memory?)")
        self._idle.append(worker)
        return result

    def _stop(self) -> None:
        """Have the runs end, and kill what doesn't."""
        processes = multiprocessing.active_children()
        for process in processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        # A second stop is by somebody who doesn't want to wait.
        with contextlib.suppress(KeyboardInterrupt), stop_handler(signal.SIG_UNBLOCK, interrupt):
            wait(self._running, timeout=STOP_SECONDS)
        left = [request for future, (request, _) in self._running.items() if not future.done()]
        if left:
            for process in processes:
                process.kill()
        for _, worker in self._running.values():
            worker.shutdown()
        for request in left:
            self._report_killed(request)
        for request in self._under_way():
            self._report_canceled(request)

    def _report_canceled(self, request: Request) -> None:
        """Record the end of a run that was interrupted before Dagster recorded its beginning."""
        run = self._instance.get_run_by_id(request.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run)

    def _report_killed(self, request: Request) -> None:
        run = self._instance.get_run_by_id(request.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_failed(run, "The process that worked on this run was killed.")
        free_pool_slots(self._instance)


def _config_for(request: Request) -> dict[str, Any]:
    # Dagster refuses config for ops that a run does not hold.
    ops, dataset = request.run_config.get("ops") or {}, request.place.dataset
    resources = request.run_config.get("resources") or {}
    named = {dataset.resource_keys.get(role, role): given for role, given in resources.items()}
    return {
        **request.run_config,
        **({"resources": named} if named else {}),
        "ops": {
            dataset.op(stage): config
            for op, config in ops.items()
            if (stage := dataset.stage(op)) in request.assets
        },
    }


def failure(request: Request, events: Iterable[dg.DagsterEvent]) -> Result:
    """Return the first failure of a run, in the words of the exception that caused it.

    Args:
        events: of the run, in order.
    """
    from rare_assets.assets.asking import TEACHER_STOPPED
    from rare_assets.resources.failures import why_step_failed

    for event in events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if said := why_step_failed(failure):
                told = failure.user_failure_data
                stops_others = told is not None and TEACHER_STOPPED in told.metadata
                return Result(request, said.removeprefix("dagster._core.errors."), stops_others)
    return Result(request, "failed; its log is in the UI")


def _write_progress(path: Path, state: StepState) -> None:
    """Store a step's state for `RunPool.step_state`, if it can be: no step fails for want of it."""
    with contextlib.suppress(OSError):
        unread = path.with_name(f".{path.name}")
        unread.write_text(json.dumps(state))
        os.replace(unread, path)


def _start_worker(
    stopping: Event, progress: Path, lease: str, environment: Mapping[str, str]
) -> None:
    """Prepare a worker: interrupts come from its parent alone, and it ends with its parent.

    It must not go on asking the teacher when the command that started it is gone. A terminal sends
    an interrupt to the whole process group: a second one would break off the orderly end.
    """
    global _stopping, _progress, _lease
    _stopping, _progress, _lease = stopping, progress, lease
    # A server that workers are forked from has the variables of its own start.
    os.environ.clear()
    os.environ.update(environment)
    # Of the terminal's, held since this process was started; its parent's come within a run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    silence_pool()
    # Run after what is registered later: to take all modules apart would cost most of a second.
    atexit.register(os._exit, 0)
    os.setpgrp()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
