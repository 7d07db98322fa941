"""Runs handed to the queue of an instance, whose daemon has its workers execute them, wherever they are.

What `workers.RunPool` is for processes of this machine. Nothing ends with this process: a run that was
submitted goes on, and the next command finds and follows it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
from rich.console import Console

from rare_assets.assets.step_progress import StepState
from rare_assets.automation.instance import SHIPPED_MODULE, submitted_tags
from rare_assets.automation.jobs import JOBS
from rare_assets.command.order import ASKING_JOB
from rare_assets.command.target import SHIPPED_PLACE, Place
from rare_assets.command.workers import STOPPED, Request, Result, create_run, failure
from rare_assets.resources.dagster_internals import code_origin, queue_size, submit
from rare_assets.resources.tags import COMMAND_TAG, PARTITION_TAG, PROGRESS_TAG, SUBMITTED_TAG

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOK_SECONDS = 1.0
# A queue that no daemon has looked after for so long is told.
DAEMON_SECONDS = 60
DAEMON = "QUEUED_RUN_COORDINATOR"
WILL_RETRY_TAG, RETRY_TAG = "dagster/will_retry", "dagster/auto_retry_run_id"
WAITING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED)
UNFINISHED = [
    *WAITING,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class NoQueue(Exception):
    """The instance executes runs where they are submitted: there is no queue to hand them to."""


class RunQueue:
    """The runs of this command that are in an instance's queue, or are executed from it.

    Args:
        instance: its coordinator must be a queue.
        console: where a queue that nobody looks after is told.
        place: where the runs belong.

    Raises:
        NoQueue: it has none.
    """

    def __init__(
        self, instance: dg.DagsterInstance, console: Console, place: Place = SHIPPED_PLACE
    ) -> None:
        size = queue_size(instance)
        if size is None:
            raise NoQueue(
                "--submit hands runs to the queue of the Dagster instance, and this one has none "
                f"({type(instance.run_coordinator).__name__}): set run_coordinator in its dagster.yaml to "
                "QueuedRunCoordinator, or leave out --submit."
            )
        self.size = size
        self._instance = instance
        self._console = console
        self._place = place
        self._running: dict[str, Request] = {}
        self._taken_back: set[str] = set()
        # As they were when they were looked at last.
        self._seen: dict[str, dg.DagsterRun] = {}
        self._queued_since: float | None = None

    def __enter__(self) -> RunQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._running:
            self._console.print(
                f"[yellow]{len(self._running)} runs go on without this command: run it again to follow them, "
                "or cancel them in the UI.[/]",
                soft_wrap=True,
            )

    def follow(self, run_config: dict[str, Any]) -> list[Request]:
        """Find the runs that an earlier command has submitted and that have not ended, to go on with them."""
        ours = dg.RunsFilter(tags={SUBMITTED_TAG: "true"}, statuses=UNFINISHED)
        dataset = self._place.dataset
        jobs = {dataset.named(job): job for job in JOBS}
        for run in self._instance.get_runs(ours):
            made = run.asset_selection or set()
            if run.job_name not in jobs or made != {dataset.key(key.path[-1]) for key in made}:
                # Of another dataset.
                continue
            if run.status == dg.DagsterRunStatus.NOT_STARTED:
                # Its command was killed before it could hand it over.
                submit(self._instance, run.run_id)
            self._running[run.run_id] = Request(
                run.tags.get(COMMAND_TAG, ""),
                run.run_id,
                jobs[run.job_name],
                tuple(sorted(key.path[-1] for key in run.asset_selection or ())),
                run.tags.get(PARTITION_TAG),
                run_config,
                self._place,
            )
        return list(self._running.values())

    def step_state(self, request: Request) -> StepState | None:
        """Return how far a run's present step is; None before it has said so."""
        seen = self._seen.get(request.run_id)
        said = seen.tags.get(PROGRESS_TAG) if seen else None
        return StepState(*json.loads(said)) if said else None

    def execute_all(
        self,
        start: Callable[[list[Request]], Request | None],
        *,
        tick: Callable[[list[Request]], None],
        done: Callable[[Result], None],
    ) -> list[Result]:
        """Do as `RunPool.execute_all`; begin with the runs that `follow` has found.

        `tick` gets those that a worker has begun: a queue may hold thousands that have nothing to tell.
        """
        results: list[Result] = []
        while True:
            while (request := start(self._under_way())) is not None:
                if (refused := self._submit(request)) is not None:
                    results.append(refused)
                    done(refused)
            if not self._running:
                return results
            time.sleep(LOOK_SECONDS)
            for result in self._ended():
                results.append(result)
                done(result)
                if result.stops_others:
                    self._take_back(result.request.command)
            tick([each for each in self._under_way() if not self._waits(each)])

    def _under_way(self) -> list[Request]:
        return list(self._running.values())

    def _waits(self, request: Request) -> bool:
        seen = self._seen.get(request.run_id)
        return seen is not None and seen.status in WAITING

    def _submit(self, request: Request) -> Result | None:
        """Hand a run over. Return its result if its config can't be used."""
        try:
            place = request.place
            tags = submitted_tags(request.command, place.location)
            folder = None if place.module == SHIPPED_MODULE else os.getcwd()
            origin = code_origin(place.dataset.named(request.job), place.module, folder)
            create_run(self._instance, request, tags, {}, origin)
        except dg.DagsterInvalidConfigError as error:
            return Result(request, f"Run config: {error}", stops_others=True)
        self._running[request.run_id] = request
        submit(self._instance, request.run_id)
        return None

    def _ended(self) -> Iterable[Result]:
        runs = self._instance.get_runs(dg.RunsFilter(run_ids=list(self._running)))
        self._seen = {run.run_id: run for run in runs}
        for run_id in self._running.keys() - self._seen.keys():
            yield Result(self._running.pop(run_id), "its run was deleted")
        for run in runs:
            if run.is_finished and (result := self._result(run)) is not None:
                yield result
        self._tell_no_daemon(runs)

    def _result(self, run: dg.DagsterRun) -> Result | None:
        """Return the result of a run that has ended; None where the instance tries it again by
        itself."""
        request = self._running[run.run_id]
        if run.status == dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) == "true":
            if (again := run.tags.get(RETRY_TAG)) is not None:
                del self._running[run.run_id]
                self._running[again] = request._replace(run_id=again)
            return None
        del self._running[run.run_id]
        if run.status == dg.DagsterRunStatus.SUCCESS:
            return Result(request, None)
        if run.status == dg.DagsterRunStatus.CANCELED:
            return Result(request, STOPPED, stops_others=run.run_id in self._taken_back)
        kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
        records = self._instance.get_records_for_run(run.run_id, of_type=kinds).records
        events = [each.event_log_entry.dagster_event for each in records]
        result = failure(request, [event for event in events if event is not None])
        messages = [event.message for event in events if event is not None and event.message]
        told = any(event is not None and event.is_step_failure for event in events)
        return result if told or not messages else result._replace(error=messages[-1])

    def _take_back(self, command: str) -> None:
        """Take back what has not been started and would fail alike: runs that ask for the same command."""
        for run_id, request in list(self._running.items()):
            if request.command != command or request.job != ASKING_JOB:
                continue
            run = self._instance.get_run_by_id(run_id)
            if run is not None and run.status == dg.DagsterRunStatus.QUEUED:
                self._instance.run_coordinator.cancel_run(run_id)
                self._taken_back.add(run_id)

    def _tell_no_daemon(self, runs: list[dg.DagsterRun] | Any) -> None:
        """Say so, once a minute, where runs wait and no daemon looks after the queue."""
        waits = any(run.status == dg.DagsterRunStatus.QUEUED for run in runs)
        seen = self._instance.get_daemon_heartbeats().get(DAEMON) if waits else None
        if not waits or (seen is not None and time.time() - seen.timestamp < DAEMON_SECONDS):
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = time.monotonic()
        elif time.monotonic() - self._queued_since > DAEMON_SECONDS:
            self._queued_since = time.monotonic()
            self._console.print(
                "[yellow]Runs wait in the queue, and no daemon of this instance has looked after it for a "
                "minute: start one (`dagster-daemon run`, or `rare-assets dev`).[/]",
                soft_wrap=True,
            )
