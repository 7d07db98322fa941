"""Leases: which commands are alive, whatever hosts they work on, by heartbeats in the instance's storage.

A command that makes runs holds a lease as long as it lives: it writes a new value under the lease's name
every few seconds, and tags its runs with the name. Who watches sees a value that has not changed for two
minutes of looking, and ends the runs of that lease. Clocks are never compared, names of hosts and ids of
processes decide nothing. A run that a launcher started holds a lease of its own, named by its id, since
launchers miss a lost host (Celery's takes its runs for running for ever); where the instance resumes lost
runs, they have none and are left to it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import dagster as dg

from rare_assets.files.processes import is_gone, this_process
from rare_assets.resources.pools import free_pool_slots
from rare_assets.resources.tags import LEASE_TAG, PROCESS_TAG

BEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 120.0
# Runs that hold none, of a version without leases or lost before they took theirs, are known to live by
# their log, which may be silent for longer.
DEAD_WITHOUT_LEASE_SECONDS = 900.0
# What counts at most for one look: a watcher that was held up, or the storage, missed beats of the living.
_LONGEST_LOOK_SECONDS = 2 * BEAT_SECONDS
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

_log = logging.getLogger(__name__)


class Heartbeat:
    """Writes a new value under a name every few seconds, in a thread, as long as its block lasts.

    What it has written stays: a run is recorded as ended after its process has left the block.
    """

    def __init__(
        self, instance: dg.DagsterInstance, name: str, *, beat: float = BEAT_SECONDS
    ) -> None:
        self.name = name
        self._instance = instance
        self._beat = beat
        self._since = time.time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._work()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._beat):
            try:
                self._work()
            except Exception as error:  # a database that is busy or away; the next beat is soon
                _log.info("The lease %s was not renewed: %r", self.name, error)

    def _work(self) -> None:
        """Do what is done at each beat."""
        self._write(self._value())

    def _value(self) -> str:
        return json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "since": round(self._since, 3),
                "process": this_process(),
                # No two values are alike, so that others see that it lives.
                "beat": secrets.token_hex(8),
            }
        )

    def _write(self, value: str) -> None:
        self._instance.run_storage.set_cursor_values({_key(self.name): value})


class Lease(Heartbeat):
    """Held by a command while it makes runs, which carry its `name` in `LEASE_TAG`.

    A context manager; meanwhile a thread keeps it, and ends the runs of commands that are gone.
    """

    def __init__(self, instance: dg.DagsterInstance, *, beat: float = BEAT_SECONDS) -> None:
        super().__init__(instance, secrets.token_hex(16), beat=beat)
        self._watch = Watch()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        try:
            self._write("")
        except Exception as unwritten:  # it ends by its silence, too
            _log.info("The lease %s was not given up: %r", self.name, unwritten)

    def _work(self) -> None:
        super()._work()
        self._watch.end_dead_runs(self._instance)


@contextmanager
def lease_of_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, beat: float = BEAT_SECONDS
) -> Iterator[None]:
    """Keep a run's own lease while this process executes it; a command's run has the command's."""
    if run.parent_run_id is None and LEASE_TAG in run.tags:
        yield
        return
    with Heartbeat(instance, run.run_id, beat=beat):
        instance.add_run_tags(run.run_id, {LEASE_TAG: run.run_id})
        yield


@dataclass
class _Seen:
    """A value as it was last seen, and for how long it was looked at without a change."""

    value: str
    looked_at: float
    silent: float = 0.0


class Watch:
    """Tells which leases are dead, and ends their runs. Keep it: death shows in looking again and again.

    Args:
        dead_after: seconds of silence.
        clock: seconds that go on only while this machine does.
    """

    def __init__(
        self,
        *,
        dead_after: float = DEAD_AFTER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dead_after = dead_after
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def end_dead_runs(
        self,
        instance: dg.DagsterInstance,
        *,
        takes_lease: Callable[[dg.DagsterRun], bool] = lambda run: False,
    ) -> list[str]:
        """Mark runs as failed, or canceled where that was asked for, whose command is gone, and free
        their places in pools. Return their ids.

        Their answers are kept; running again goes on from there.

        Args:
            takes_lease: True for a run that a launcher started if its executor takes a lease before its
                first event. It is ended, too, if its log says that it has begun and then nothing more.
        """
        leased, begun = [], []
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
            if _is_leased(run):
                leased.append(run)
            elif run.status is dg.DagsterRunStatus.STARTED and takes_lease(run):
                begun.append(run)
        values = lease_values(instance, leased) | _starts(instance, begun)
        self._seen = {name: seen for name, seen in self._seen.items() if name in values}
        dead = {name for name, value in values.items() if self._is_dead(name, value)}
        named = [*((_name(run), run) for run in leased), *((run.run_id, run) for run in begun)]
        ended = [run for name, run in named if name in dead and _end(instance, run)]
        free_pool_slots(instance)
        return [run.run_id for run in ended]

    def silence(self, name: str) -> float:
        """Return the seconds for which a lease was seen without a change."""
        return self._seen[name].silent if name in self._seen else 0.0

    def _is_dead(self, name: str, value: str) -> bool:
        holder = holder_of(value)
        if value == "" or (holder is not None and is_gone(holder.process)):
            return True
        now = self._clock()
        seen = self._seen.get(name)
        if seen is None or seen.value != value:
            self._seen[name] = _Seen(value, now)
            return False
        seen.silent += min(now - seen.looked_at, _LONGEST_LOOK_SECONDS)
        seen.looked_at = now
        leased = holder is not None
        return seen.silent >= (self._dead_after if leased else DEAD_WITHOUT_LEASE_SECONDS)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, for people, and the process for who can look at it; `since` by its own clock."""

    host: str
    pid: int
    since: float
    process: str = ""

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone()
        return f"process {self.pid} on {self.host}, at work since {began:%H:%M:%S}"


def holder_of(value: str) -> Holder | None:
    """Return who wrote a lease's value; None if the value is no lease's."""
    try:
        said = json.loads(value)
        return Holder(str(said["host"]), int(said["pid"]), said["since"], str(said["process"]))
    except (ValueError, KeyError, TypeError):
        return None


def lease_values(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> dict[str, str]:
    """Return the present value of the lease of each run, by the lease's name; for a run of a version
    without leases, what its log says last. Runs of other launchers are left out."""
    runs = list(runs)
    names = {run.tags[LEASE_TAG] for run in runs if LEASE_TAG in run.tags}
    stored = instance.run_storage.get_cursor_values(set(map(_key, names))) if names else {}
    values = {name: stored.get(_key(name), "none") for name in names}
    for run in runs:
        if LEASE_TAG not in run.tags and PROCESS_TAG in run.tags:
            newest = _newest(instance, run)
            values[run.run_id] = f"event {newest.storage_id}" if newest else "no event"
    return values


def runs_take_leases(instance: dg.DagsterInstance) -> bool:
    """Return whether runs that a launcher started hold a lease: one that resumes lost runs looks after them."""
    return not (instance.is_ephemeral or instance.run_monitoring_max_resume_run_attempts)


def _starts(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> dict[str, str]:
    """Return the event that each of these runs began with, by its id, if it is the last one yet."""
    values = {}
    for run in runs:
        newest = _newest(instance, run)
        if newest and newest.event_log_entry.dagster_event_type is dg.DagsterEventType.RUN_START:
            values[run.run_id] = f"event {newest.storage_id}"
    return values


def _newest(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.EventLogRecord | None:
    """Return the last event of a run's log."""
    return next(
        iter(instance.get_records_for_run(run.run_id, limit=1, ascending=False).records), None
    )


def _is_leased(run: dg.DagsterRun) -> bool:
    """Return True if a run's tags are its own: one that is launched again gets those of the
    first."""
    if run.parent_run_id is None:
        return LEASE_TAG in run.tags or PROCESS_TAG in run.tags
    return run.tags.get(LEASE_TAG) == run.run_id


def _name(run: dg.DagsterRun) -> str:
    return run.tags.get(LEASE_TAG, run.run_id)


def _key(name: str) -> str:
    return f"rare_assets/lease/{name}"


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Record the end of a run, unless somebody has meanwhile."""
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.is_finished:
        return False
    process = run.tags.get(PROCESS_TAG, "unknown")
    said = f"The process that worked on this run ({process}) is gone."
    if now.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, said)
    else:
        instance.report_run_failed(now, said)
    return True
