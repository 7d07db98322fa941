"""When the next request may leave: adaptive concurrency, rates per minute, waits after a fault.

Nothing here sleeps or talks to a network; time comes from the caller or an injected clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from rare_assets.teacher.ledger import Ledger

Clock = Callable[[], float]


class AdaptiveLimit:
    """How many requests may be in flight: additive increase, multiplicative decrease.

    Results are judged in windows of as many requests as the limit allows. A window in which the
    endpoint throttled more than `tolerance` of them (and more than one) shrinks the limit by
    `shrink`, once: results of requests that left before don't count against the new limit. Any
    other window raises it by a sixteenth of the maximum. A few scattered refusals are retried
    without slowing down everything else, since they say little about the endpoint's capacity.
    """

    def __init__(self, maximum: int, *, tolerance: float = 0.2, shrink: float = 0.7) -> None:
        if maximum < 1:
            raise ValueError(f"maximum must be at least 1, not {maximum}")
        self.maximum = maximum
        self.limit = maximum
        self.in_flight = 0
        self._tolerance = tolerance
        self._shrink = shrink
        self._step = max(1, maximum // 16)
        self._generation = 0
        self._results = 0
        self._throttled = 0

    def may_start(self, others: int = 0) -> bool:
        """Whether one more request fits beside those in flight and `others`."""
        return self.in_flight + others < self.limit

    def start(self) -> int:
        """Count a request as in flight; the ticket returned goes to `finish` or `abandon`."""
        self.in_flight += 1
        return self._generation

    def abandon(self) -> None:
        """A request was cancelled: it leaves without a result."""
        self.in_flight -= 1

    def finish(self, ticket: int, *, throttled: bool) -> bool:
        """Count a result; True if it lowered the limit."""
        self.in_flight -= 1
        if ticket != self._generation:
            return False
        self._results += 1
        self._throttled += throttled
        if self._throttled > max(1, self._tolerance * self.limit):
            lowered = max(1, int(self.limit * self._shrink))
            changed = lowered < self.limit
            self.limit = lowered
            self._generation += 1
            self._results = self._throttled = 0
            return changed
        if self._results >= self.limit:
            if self._throttled < self._results:
                self.limit = min(self.maximum, self.limit + self._step)
            self._results = self._throttled = 0
        return False


class Pace:
    """A rate per minute, evenly spaced: any span of t seconds starts at most rate * t + 1 units.

    An amount larger than what has come free (one long prompt) may start and delays the next, by ten
    minutes at most.

    Args:
        per_minute: units a minute.
        clock: Unix time, in seconds.
        ledger: where it is kept until when the rate is used up. Processes that share one keep the
            rate together, each ahead of it by one amount at most.
        name: the rate's name there.
    """

    def __init__(self, per_minute: float, clock: Clock, ledger: Ledger, name: str) -> None:
        if per_minute <= 0:
            raise ValueError(f"a rate per minute must be above 0, not {per_minute}")
        self._seconds_per_unit = 60.0 / per_minute
        self._clock = clock
        self._ledger = ledger
        self._name = name

    def delay(self) -> float:
        """Seconds until the next amount may start, 0.0 if now."""
        return max(0.0, self._ledger.delay(self._name, now=self._clock()))

    def take(self, amount: float = 1.0) -> None:
        """Use an amount now."""
        seconds = amount * self._seconds_per_unit
        self._ledger.postpone(self._name, seconds, now=self._clock(), restart=True)

    def correct(self, difference: float) -> None:
        """Add what an amount was estimated too low by (negative: too high)."""
        seconds = difference * self._seconds_per_unit
        self._ledger.postpone(self._name, seconds, now=self._clock())


def full_jitter(tries: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait after the `tries`-th fault (from 1): uniform in 0..min(cap, base * 2^tries).

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return rng.uniform(0.0, min(cap, base * 2.0 ** min(tries, 32)))


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds a Retry-After header asks to wait, given as seconds or as an HTTP date.

    `now` is Unix time. A date in the past is 0.0; a missing or unreadable header None.
    """
    if value is None or not value.strip():
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = date.timestamp() - now
    return max(0.0, seconds) if math.isfinite(seconds) else None
