"""Ask through an OpenAI-compatible Batch API: at half the price, with answers within a day.

Asks that were never answered are collected into files and handed in as batches. Their answers are stored
under the same keys as online answers. Asks with an unusable answer, and those that an expired or cancelled
batch left open, go into the next batch. Durable storage (`submissions`) keeps which batches are handed in,
so that the next run fetches the batches of a run that was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rare_assets.teacher.batch.limits import MAX_BYTES, MAX_REQUESTS, BatchLimits
from rare_assets.teacher.batch.run import BatchRun
from rare_assets.teacher.batch.submissions import Submissions
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.interface import Ask, Outcome, Progress, TeacherStopped, Use
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.options import DEFAULT_ENDPOINT, DEFAULT_LIMITS, EndpointOptions, Limits
from rare_assets.teacher.pricing import Prices

if TYPE_CHECKING:
    from rare_assets.teacher.store.answers import AnswerStore

T = TypeVar("T")


class BatchTeacher(EndpointTeacher[BatchRun[Any], "AnswerStore"]):
    """Ask a model through the endpoint's Batch API.

    Use it in one event loop, and close it there (`async with`). To leave the loop over `ask_all` early, or to
    cancel it, cancels the batches; the next run fetches what they had finished.

    Args:
        model, endpoint, prices, ledger, refresh, retry_rejects: as of `OpenAITeacher`. Costs are those of
            the Batch API. A few short requests, sent online, find out what the endpoint takes.
        store: where answers are looked up and kept, with submissions beside them; the caller closes it.
        limits: of these `max_cost_usd` and `max_requests` bound what is handed in; the expected cost
            counts. `request_timeout` holds for one call of the API. Batches have no limit on requests in
            flight and no rates.
        max_batch_requests, max_batch_bytes: the largest file that the endpoint takes.
        max_open_requests: most requests in all batches together, which bounds memory.
        poll_s, poll_cap_s: seconds, the first and the longest pause between two looks at a batch.
        progress_every_s: seconds between two calls of `ask_all`'s `progress`.
        say: called with a sentence about what is waited for, whenever that takes long. Default: the log.

    Raises:
        ValueError: the settings can't be used together.

    Example:
        async with AnswerStore("answers") as store:
            async with BatchTeacher(model="gpt-4o-mini", store=store) as teacher:
                async for outcome in teacher.ask_all(asks, use):
                    ...
    """

    def __init__(
        self,
        *,
        model: str,
        store: AnswerStore,
        endpoint: EndpointOptions = DEFAULT_ENDPOINT,
        limits: Limits = DEFAULT_LIMITS,
        prices: Prices | None = None,
        ledger: Ledger | None = None,
        refresh: bool | datetime = False,
        retry_rejects: bool = False,
        max_batch_requests: int = MAX_REQUESTS,
        max_batch_bytes: int = MAX_BYTES,
        max_open_requests: int = 4 * MAX_REQUESTS,
        poll_s: float = 5.0,
        poll_cap_s: float = 60.0,
        progress_every_s: float = 5.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._batch_limits = BatchLimits(
            max_requests=max_batch_requests,
            max_bytes=max_batch_bytes,
            max_open_requests=max_open_requests,
            poll_s=poll_s,
            poll_cap_s=poll_cap_s,
        )
        super().__init__(
            model=model,
            store=store,
            endpoint=endpoint,
            limits=replace(
                limits,
                max_concurrency=max_open_requests,
                requests_per_minute=None,
                tokens_per_minute=None,
            ),
            prices=prices,
            ledger=ledger,
            batch=True,
            refresh=refresh,
            retry_rejects=retry_rejects,
            progress_every_s=progress_every_s,
            say=say,
        )
        self._submissions = Submissions(store.folder("batches"))

    async def aclose(self) -> None:
        """Cancel the batches that are still waited for, and close the connections."""
        for run in list(self._runs):
            run.stop("The teacher was closed while it was being asked.")
            await run.cancel()
        try:
            await self._endpoint.aclose()
        finally:
            await self._published.close()

    async def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """Answer every ask; yield an Outcome as each is done, in any order; see `Teacher.ask_all`.

        An Outcome has the same reasons as those of `OpenAITeacher.ask_all`.

        Raises:
            TeacherStopped: the endpoint is dead, misconfigured or takes no batches, or a limit is reached;
                raised once the batches that are handed in are fetched, if they can be.
            ValueError: `max_attempts` is below 1.
        """
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts}")
        run = BatchRun(
            self, self._submissions, self._batch_limits, asks, use, max_attempts, progress
        )
        self._begin(run)
        try:
            async for outcome in run.outcomes():
                yield outcome
        except (GeneratorExit, asyncio.CancelledError):
            await run.cancel()
            raise
        finally:
            await run.close()
            self._end(run)
        if run.stopped is not None:
            raise TeacherStopped(run.stopped)
