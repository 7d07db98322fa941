"""Tell how fast something goes on, and so how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 30.0


class Rate:
    """A rate over the last half minute, so that a slow start, or stored answers, don't count for long.

    Args:
        clock: seconds, as `time.monotonic`.

    >>> rate = Rate(clock=iter([0.0, 10.0]).__next__)
    >>> rate.note(0)
    >>> rate.note(50)
    >>> rate.per_second, rate.seconds_for(100)
    (5.0, 20.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: deque[tuple[float, int]] = deque()

    def note(self, count: int) -> None:
        """Take note of how many items there are now."""
        now = self._clock()
        self._notes.append((now, count))
        # One note from before the window stays: the rate is over the whole of it.
        while len(self._notes) > 2 and self._notes[1][0] <= now - WINDOW_S:
            self._notes.popleft()

    @property
    def per_second(self) -> float | None:
        """The rate in items a second; None until there is something to tell from."""
        if len(self._notes) < 2:
            return None
        (began, before), (ended, now) = self._notes[0], self._notes[-1]
        return (now - before) / (ended - began) if ended > began else None

    def seconds_for(self, count: int) -> float | None:
        """Return the seconds that so many items will take at this rate; None while it can't be
        told."""
        rate = self.per_second
        return count / rate if rate else None


def duration(seconds: float) -> str:
    """Return seconds as people read them.

    >>> duration(26), duration(3723)
    ('0:26', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
