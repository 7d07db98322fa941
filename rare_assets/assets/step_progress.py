"""Tell how far a long step is: to who listens in this process, and now and then as a line of its log.

Each line is a row of the event log, which the UI shows and keeps: there are few of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import dagster as dg

from rare_assets.assets.rate import Rate, duration
from rare_assets.resources.tags import PROGRESS_TAG, SUBMITTED_TAG
from rare_assets.teacher import Progress

T = TypeVar("T")

LOG_SECONDS = 10
TELL_SECONDS = 1
_PROGRESS_LINE = re.compile(r".*: [\d,]+ of [\d,]+ done", re.DOTALL)


class StepState(NamedTuple):
    """The progress of a step, in rows. `requests` are new ones; `cost_usd` is None while unpriced."""

    asset: str
    done: int
    total: int
    requests: int = 0
    cost_usd: float | None = None


# Called with every state of the steps of this process, at most about once a second each.
listeners: list[Callable[[StepState], None]] = []


class StepProgress:
    """Tells how far a step of an asset's shard is.

    Args:
        context: of the step; its log gets a line at most every ten seconds.
        total: what there is to do.
    """

    def __init__(self, context: dg.AssetExecutionContext, total: int) -> None:
        self._context = context
        self._asset = context.asset_key.path[-1]
        self._total = total
        self._rate = Rate()
        self._said = time.monotonic()
        self._tell(StepState(self._asset, 0, total))

    def count(self, done: int, total: int) -> None:
        """Take note that `done` of `total` rows are done."""
        self._total = total
        self._go_on(StepState(self._asset, done, total), "")

    def ask(self, now: Progress) -> None:
        """Take note of how far a teacher is with what it was asked, and what that has taken."""
        usage = now.usage
        about = "about " if usage.estimated else ""
        cost = "" if usage.cost_usd is None else f", {about}${usage.cost_usd:.4f}"
        self._go_on(
            StepState(self._asset, now.done, self._total, usage.requests, usage.cost_usd),
            f", {now.in_flight} in flight, {usage.answers_reused} reused, "
            f"{usage.retries} retries{cost}",
        )

    def counting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the same items, counted as they pass."""
        told = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                self.count(number, max(number, self._total))

    def _go_on(self, state: StepState, more: str) -> None:
        self._tell(state)
        self._rate.note(state.done)
        now = time.monotonic()
        if now - self._said < LOG_SECONDS:
            return
        self._said = now
        left = self._rate.seconds_for(state.total - state.done)
        eta = "" if left is None else f", about {duration(left)} left"
        self._context.log.info(
            f"{self._context.partition_key}: {state.done:,} of {state.total:,} done{more}{eta}"
        )
        run = self._context.run
        if SUBMITTED_TAG in run.tags:
            # The command that waits for it is on another host, maybe, and shows figures, not lines.
            self._context.instance.add_run_tags(run.run_id, {PROGRESS_TAG: json.dumps(state)})

    def _tell(self, state: StepState) -> None:
        for listener in listeners:
            listener(state)


def throttled(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return the same function, which leaves out what comes within `LOG_SECONDS` of the last."""
    said = time.monotonic()

    def say_now_and_then(line: str) -> None:
        nonlocal said
        if time.monotonic() - said >= LOG_SECONDS:
            said = time.monotonic()
            say(line)

    return say_now_and_then


def is_progress(line: str) -> bool:
    """Return True if a line of a step's log is one that `StepProgress` writes.

    >>> is_progress("a.jsonl: 1,200 of 2,000 done, about 0:26 left"), is_progress("a.jsonl: stopped.")
    (True, False)
    """
    return _PROGRESS_LINE.match(line) is not None
