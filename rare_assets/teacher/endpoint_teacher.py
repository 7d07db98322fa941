"""What all teachers behind an endpoint share, online and in batches: the endpoint, the store, the runs."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, Self, TypeVar

from rare_assets.teacher.endpoint import Endpoint
from rare_assets.teacher.interface import Usage
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.options import EndpointOptions, Limits
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.store.claims import Claims

logger = logging.getLogger(__name__)

# A wait that goes on is said again after twice as long each time, and at least so often.
SAID_AGAIN_S = 900.0


class Answers(Protocol):
    """The store of answers, as a teacher uses it."""

    @property
    def quick(self) -> bool:
        """True if a put takes milliseconds, so that an answer keeps its place in flight until it is stored."""

    @property
    def unreadable(self) -> int:
        """Number of stored answers that were found to be lost so far."""

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return the records stored under these keys; of several under one, the one put last."""

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Store a record; returns once it is durable."""

    def claims(self) -> Claims:
        """Return the claims of one more teacher that stores its answers here."""


class ActiveRun(Protocol):
    """A run of `ask_all`, as its teacher sees it; `run.Run` is one."""

    stopped: str | None

    @property
    def awaits_endpoint(self) -> bool:
        """True if a request is in flight or waits to be sent."""

    def stop(self, message: str) -> None:
        """Send nothing more."""

    def report(self) -> None:
        """Call `progress` with the present state."""


RunT = TypeVar("RunT", bound=ActiveRun)
StoreT = TypeVar("StoreT", bound=Answers)


class EndpointTeacher(ABC, Generic[RunT, StoreT]):
    """Hold the endpoint, the store and the runs that ask at present.

    Args:
        model: the model's name at the endpoint.
        store: where answers are looked up and kept; the caller closes it.
        endpoint: where the endpoint is, and how it is spoken to.
        limits: how much is asked, and how fast.
        prices: for costs, which are None without the model's price; default, the shipped table.
        ledger: counts for the limits; shared, they hold for several teachers together. Default, this
            teacher alone.
        batch: costs are those of the Batch API.
        places: places in flight that teachers of other processes take, too.
        refresh: ask again. True ignores answers stored before this teacher was made; a time ignores those
            from before that time.
        retry_rejects: ask again where no stored answer can be used.
        progress_every_s: least time between two calls of `ask_all`'s `progress`.
        say: told in a sentence what is waited for, whenever that takes long; default, the log.
    """

    def __init__(
        self,
        *,
        model: str,
        store: StoreT,
        endpoint: EndpointOptions,
        limits: Limits,
        prices: Prices | None,
        ledger: Ledger | None,
        batch: bool = False,
        places: Places | None = None,
        refresh: bool | datetime,
        retry_rejects: bool,
        progress_every_s: float,
        say: Callable[[str], None] | None,
    ) -> None:
        self._say = say or logger.warning
        self._endpoint = Endpoint(
            model=model,
            options=endpoint,
            limits=limits,
            prices=prices or Prices.load(),
            halt=self._stop,
            say=self._say,
            batch=batch,
            ledger=ledger,
            places=places,
        )
        self._store = store
        # What this teacher asks for, for others on the same storage to see.
        self._published = store.claims()
        self._watcher: asyncio.Task[None] | None = None
        self._progress_every_s = progress_every_s
        if isinstance(refresh, datetime):
            self._ignore_before = refresh.timestamp()
        else:
            self._ignore_before = time.time() if refresh else 0.0
        # Unusable answers from before do not count as attempts.
        self._pass_before = time.time() if retry_rejects else 0.0
        self._runs: list[RunT] = []
        # How often something has stopped the runs.
        self._halts = 0
        self._busy_since: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._endpoint}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """End the runs and close the connections. Answers that have come are kept."""

    @property
    def model(self) -> str:
        """The model's name, as configured."""
        return self._endpoint.model

    async def window(self) -> int | None:
        """Return the tokens that prompt and answer may have together; None if that is not known."""
        await self._endpoint.recall()
        return self._endpoint.window

    @property
    def usage(self) -> Usage:
        """Totals since this teacher was made; `retries` are new answers after an unusable one.

        Online, `requests` counts every request that was sent. In batches it counts the requests that this
        teacher handed in, while tokens and costs are those of the answers that it fetched, also of batches
        that an earlier run handed in.
        """
        usage = self._endpoint.usage
        usage.answers_unreadable = self._store.unreadable
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
        self._runs[:] = [other for other in self._runs if other is not run]
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
        self._halts += 1
        message = message[0].upper() + message[1:]
        going = [run for run in self._runs if run.stopped is None]
        if going:
            logger.error("%s", message)
        for run in going:
            run.stop(message)
