"""A step that waits for its place in a pool: says who holds the places, and frees those of dead commands."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import dagster as dg

from rare_assets.resources.leases import (
    BEAT_SECONDS,
    DEAD_AFTER_SECONDS,
    Watch,
    holder_of,
    lease_values,
)
from rare_assets.resources.tags import COMMAND_TAG, LEASE_TAG, PARTITION_TAG
from rare_assets.text.shown import first_names

# A place is often free before; then it is said again, more and more seldom.
SAID_AFTER_SECONDS = 10.0
SAID_AGAIN_SECONDS = 60.0
NAMED = 4
# A holder that has missed more than its last beat may be gone.
_SILENT_SECONDS = 3 * BEAT_SECONDS


class ClaimedSlotInfo(Protocol):
    """A place that is taken, as Dagster tells it."""

    @property
    def run_id(self) -> str: ...

    @property
    def step_key(self) -> str: ...


class WaitForPlace:
    """One step's wait for a place in a pool.

    Args:
        run: of the step.
        say: called with a level of `logging` and a line for people: a warning where others than the
            step's own command hold places, since that is not expected.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        pool: str,
        run: dg.DagsterRun,
        say: Callable[[int, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance = instance
        self._pool = pool
        self._run = run
        self._say = say
        self._clock = clock
        self._watch = Watch(clock=clock)
        self._since = datetime.now().astimezone()
        self._say_at = clock() + SAID_AFTER_SECONDS
        self._pause = SAID_AGAIN_SECONDS
        self._look_at = clock() + BEAT_SECONDS

    def look(self) -> None:
        """Do what is due; called again and again while the step waits."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + BEAT_SECONDS
            self._watch.end_dead_runs(self._instance)
        if now >= self._say_at:
            self._say_at = now + self._pause
            self._pause *= 2
            self._tell()

    def _tell(self) -> None:
        info = self._instance.event_log_storage.get_concurrency_info(self._pool)
        since = {
            (step.run_id, step.step_key): step.assigned_timestamp for step in info.pending_steps
        }
        command = self._run.tags.get(COMMAND_TAG)
        ours = command is not None and bool(info.claimed_slots)
        places = defaultdict(list)
        for slot in info.claimed_slots:
            run = self._instance.get_run_by_id(slot.run_id)
            ours = ours and run is not None and run.tags.get(COMMAND_TAG) == command
            began = since.get((slot.run_id, slot.step_key))
            places[self._who(run)].append(_place(slot, run, began))
        held = "; ".join(f"{who}: {first_names(what, NAMED)}" for who, what in places.items())
        shard = self._run.tags.get(PARTITION_TAG)
        self._say(
            logging.INFO if ours else logging.WARNING,
            f"{shard + ': ' if shard else ''}waiting since {self._since:%H:%M:%S} for a place in the "
            f"pool {self._pool!r} (limit {info.limit}), held by {held or 'nobody: it has none'}.",
        )

    def _who(self, run: dg.DagsterRun | None) -> str:
        """Say who works on a run, and for how long nothing was heard of it."""
        if run is None:
            return "runs that are deleted"
        name = run.tags.get(LEASE_TAG)
        if name is None:
            return "runs that their launcher looks after"
        holder = holder_of(lease_values(self._instance, [run])[name])
        who = "a command that has ended" if holder is None else str(holder)
        silent = self._watch.silence(name)
        if silent < _SILENT_SECONDS:
            return who
        return f"{who}, silent for {silent:.0f} s: freed after {DEAD_AFTER_SECONDS:.0f} s"


def _place(slot: ClaimedSlotInfo, run: dg.DagsterRun | None, since: datetime | None) -> str:
    shard = run.tags.get(PARTITION_TAG) if run is not None else None
    of = f" of {shard}" if shard else ""
    began = f" since {since.astimezone():%H:%M:%S}" if since is not None else ""
    return f"{slot.step_key}{of}{began} (run {slot.run_id[:8]})"
