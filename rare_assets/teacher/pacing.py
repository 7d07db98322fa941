"""Decide when the next request may leave: adaptive concurrency, rates per minute, waits after a fault.

Nothing here sleeps or uses a network; time comes from the caller or an injected clock.
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
    """Limit the requests in flight, by additive increase and multiplicative decrease.

    Results are judged in windows of as many requests as the limit allows. If the endpoint throttled more
    than `tolerance` of a window, and more than one request, the limit is multiplied by `shrink`; results of
    requests that left before do not count against the new limit. Any other window raises the limit by a
    sixteenth of the maximum. A few throttled requests are repeated without slowing down the others, since
    they tell little about the endpoint's capacity.

    Args:
        maximum: most requests in flight, at least 1; the limit begins there.
        tolerance: share of a window, within 0 and 1.
        shrink: factor within 0 and 1.

    Raises:
        ValueError: `maximum` is below 1.

    Source: D.-M. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
    Avoidance in Computer Networks", 1989.

    Example:
        >>> limit = AdaptiveLimit(4)
        >>> tickets = [limit.start() for _ in range(4)]
        >>> [limit.finish(ticket, throttled=True) for ticket in tickets]
        [False, True, False, False]
        >>> limit.limit
        2
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
        """Return whether the limit leaves room for one more request, `others` counting as in flight."""
        return self.in_flight + others < self.limit

    def start(self) -> int:
        """Count a request as in flight; returns the ticket for `finish`."""
        self.in_flight += 1
        return self._generation

    def abandon(self) -> None:
        """Free the place of a request that was cancelled, without a result."""
        self.in_flight -= 1

    def finish(self, ticket: int, *, throttled: bool) -> bool:
        """Count the result of a request; returns True if it lowered the limit."""
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


class RateLimit:
    """Limit units (requests or tokens) per minute, evenly spaced over the minute.

    In t seconds at most `per_minute / 60 * t + 1` units start. An amount above the free quota, as a long
    prompt is, may start at once; the next one waits longer, for ten minutes at most.

    Args:
        per_minute: units per minute, above 0.
        clock: returns the Unix time in seconds.
        ledger: keeps the time at which the rate is free again. Processes that share a ledger keep the
            rate together; each may be ahead of it by one amount.
        name: of the rate in the ledger.

    Raises:
        ValueError: `per_minute` is not above 0.

    Example:
        >>> requests = RateLimit(60, lambda: 0.0, Ledger(), "requests")
        >>> requests.take()
        >>> requests.delay()
        1.0
        >>> requests.take(10)
        >>> requests.delay()
        11.0
    """

    def __init__(self, per_minute: float, clock: Clock, ledger: Ledger, name: str) -> None:
        if per_minute <= 0:
            raise ValueError(f"a rate per minute must be above 0, not {per_minute}")
        self._seconds_per_unit = 60.0 / per_minute
        self._clock = clock
        self._ledger = ledger
        self._name = name

    def delay(self) -> float:
        """Return the seconds until the next amount may start; 0.0 if it may start now."""
        return max(0.0, self._ledger.delay(self._name, now=self._clock()))

    def take(self, amount: float = 1.0) -> None:
        """Use an amount now, whether it is free or not."""
        seconds = amount * self._seconds_per_unit
        self._ledger.postpone(self._name, seconds, now=self._clock(), restart=True)

    def correct(self, difference: float) -> None:
        """Correct an estimated amount: `difference` is the true amount minus the estimate."""
        seconds = difference * self._seconds_per_unit
        self._ledger.postpone(self._name, seconds, now=self._clock())


def full_jitter(tries: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Return the seconds to wait after a fault, uniform between 0 and min(cap, base * 2^tries).

    Args:
        tries: number of the fault, from 1.
        base: seconds.
        cap: seconds, the longest wait.
        rng: draws the wait.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return rng.uniform(0.0, min(cap, base * 2.0 ** min(tries, 32)))


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, given as seconds or as an HTTP date.

    Args:
        value: of the header; None if it is missing.
        now: Unix time.

    Returns:
        0.0 for a date in the past, None for a missing or unreadable header.

    Example:
        >>> parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=15.0)
        45.0
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
