"""What the runs of `ask_all` share, whether their asks go out one by one or in batches."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import starmap
from typing import Any, Generic, TypeVar

from rare_assets.teacher.attempts import Attempts
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.interface import (
    Answer,
    Ask,
    Outcome,
    Progress,
    TeacherStopped,
    Use,
)

T = TypeVar("T")
TeacherT = TypeVar("TeacherT", bound=EndpointTeacher[Any, Any])
AttemptsT = TypeVar("AttemptsT", bound=Attempts)


class Run(ABC, Generic[TeacherT, AttemptsT, T]):
    """One `ask_all`: all that happens between asks and their outcomes.

    Args:
        teacher: whose run it is; its endpoint and its stored answers are used.
        asks, use, max_attempts, progress: see `Teacher.ask_all`.

    Attributes:
        stopped: why nothing more is sent; None while it may be.
    """

    def __init__(
        self,
        teacher: TeacherT,
        asks: Iterable[Ask],
        use: Use[T],
        max_attempts: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.stopped: str | None = None
        self._teacher = teacher
        self._endpoint = teacher._endpoint
        self._store = teacher._store
        self._published = teacher._published
        self._asks: Iterator[Ask] = iter(asks)
        self._use = use
        self._max_attempts = max_attempts
        self._progress = progress
        self._ready: deque[Outcome[T]] = deque()
        self._pending = 0  # read, and without an outcome
        self._done = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    @abstractmethod
    def awaits_endpoint(self) -> bool:
        """True if a request is in flight or waits to be sent."""

    @property
    @abstractmethod
    def _in_flight(self) -> int:
        """Number of requests that are not answered yet."""

    def stop(self, message: str) -> None:
        """Send nothing more; the run ends once what is in flight has come back."""
        self.stopped = self.stopped or message
        self._changed.set()

    def report(self) -> None:
        """Call `progress` with the present state."""
        if self._progress is not None:
            usage = replace(self._teacher.usage)
            self._progress(Progress(done=self._done, in_flight=self._in_flight, usage=usage))

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._teacher._progress_every_s)
            self.report()

    async def _judge(self, attempts: AttemptsT, answer: Answer) -> bool:
        """Return whether the ask has its outcome with this answer; else it is ready for one more."""
        try:
            outcome = await attempts.judge(
                answer, self._use, self._teacher.model, self._max_attempts
            )
        except TeacherStopped as stopped:
            # Whoever judges can't go on; what else is in flight is paid for and must be stored.
            self._teacher._stop(str(stopped))
            return True
        if not answer.reused:
            self._endpoint.brake.judged(answer, attempts.unusable)
        if outcome is None:
            attempts.forget_faults()
            return False
        self._finish(attempts, outcome)
        return True

    async def _judge_all(self, given: list[tuple[AttemptsT, Answer]]) -> list[AttemptsT]:
        """Judge answers at the same time; returns the asks that need another attempt."""
        done = await asyncio.gather(*starmap(self._judge, given))
        return [attempts for (attempts, _), settled in zip(given, done, strict=True) if not settled]

    async def _fall_back(self, attempts: AttemptsT) -> None:
        """Settle an ask to which no new answer can be used, by an earlier one where there is any."""
        fallen_back = await attempts.fall_back(self._use, self._store, self._teacher.model)
        self._finish(attempts, fallen_back)

    def _finish(self, attempts: AttemptsT, outcome: Outcome[T]) -> None:
        self._pending -= 1
        self._done += 1
        self._ready.append(outcome)
        self._changed.set()
