"""What a teacher behind an endpoint is, whether it asks online or in batches: its books and its runs."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Generic, Protocol, Self, TypeVar

from rare_assets.teacher.endpoint import Endpoint
from rare_assets.teacher.interface import Usage

logger = logging.getLogger(__name__)

# A wait that goes on is said again after twice as long each time, and at least so often.
SAID_AGAIN_S = 900.0


class Run(Protocol):
    """One `ask_all` that goes on."""

    stopped: str | None

    @property
    def awaits_endpoint(self) -> bool:
        """Whether something is in flight, or waits to be sent."""

    def stop(self, message: str) -> None:
        """Send nothing more; end once what is out has come back."""

    def report(self) -> None:
        """Call `progress` with the present state."""


RunT = TypeVar("RunT", bound=Run)


class EndpointTeacher(ABC, Generic[RunT]):
    """Holds the endpoint and the runs that ask it at present.

    Args:
        endpoint: where it asks; calls `_stop` when no request may be sent any more.
        refresh: ask anew. True ignores answers stored before this teacher was made; a time
            ignores those from before it.
        retry_rejects: ask anew where no stored answer can be used.
        progress_every_s: least time between two calls of `ask_all`'s `progress`.
        say: told in a sentence what is waited for, whenever that takes long; default, the log.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        refresh: bool | datetime,
        retry_rejects: bool,
        progress_every_s: float,
        say: Callable[[str], None] | None,
    ) -> None:
        self._endpoint = endpoint
        self._say = say or logger.warning
        self._watcher: asyncio.Task[None] | None = None
        self._progress_every_s = progress_every_s
        if isinstance(refresh, datetime):
            self._ignore_before = refresh.timestamp()
        else:
            self._ignore_before = time.time() if refresh else 0.0
        # Unusable answers from before do not count as attempts.
        self._pass_before = time.time() if retry_rejects else 0.0
        self._runs: list[RunT] = []
        self._busy_since: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._endpoint}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """End what still runs, and the connections. What was answered is kept."""

    @property
    def model(self) -> str:
        """The model's name, as configured."""
        return self._endpoint.model

    async def window(self) -> int | None:
        """Tokens that the model takes at once, prompt and answer together; None if that is not known."""
        await self._endpoint.recall()
        return self._endpoint.window

    @property
    def usage(self) -> Usage:
        """Totals since this teacher was made; `retries` are new answers after an unusable one.

        Online, `requests` are all that were sent, whatever came of them. In batches they are those
        handed in by it; tokens and costs are of the answers that it has fetched, which an earlier
        run may have handed in.
        """
        usage = self._endpoint.usage
        if self._busy_since is not None:
            now = time.monotonic()
            usage.seconds += now - self._busy_since
            self._busy_since = now
        return usage

    def _begin(self, run: RunT) -> None:
        if self._busy_since is None:
            self._busy_since = time.monotonic()
            self._endpoint.health.went_on()
            self._watcher = asyncio.create_task(self._watch())
        self._runs.append(run)

    def _end(self, run: RunT) -> None:
        self._runs = [other for other in self._runs if other is not run]
        if not self._runs:
            _ = self.usage  # brings `seconds` up to date
            self._busy_since = None
            if self._watcher is not None:
                self._watcher.cancel()
        run.report()

    async def _watch(self) -> None:
        """Say what is waited for, soon and then now and again."""
        soon = self._endpoint.health.patience.silent_after
        interval, said_at = soon, float("-inf")
        while True:
            await asyncio.sleep(min(1.0, soon / 4))
            waited = self._endpoint.waiting()
            now = time.monotonic()
            if waited is None or not any(run.awaits_endpoint for run in self._runs):
                if now - said_at > 2 * interval:
                    interval = soon
            elif now - said_at >= interval:
                self._say(waited[0].upper() + waited[1:])
                interval = min(SAID_AGAIN_S, 2 * interval)
                said_at = now

    def _stop(self, message: str) -> None:
        """Send nothing more; every run ends once what is out has come back."""
        message = message[0].upper() + message[1:]
        going = [run for run in self._runs if run.stopped is None]
        if going:
            logger.error("%s", message)
        for run in going:
            run.stop(message)
