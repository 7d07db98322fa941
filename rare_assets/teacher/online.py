"""Ask an OpenAI-compatible endpoint online, many requests at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from rare_assets.teacher.batch.handed_in import HandedIn
from rare_assets.teacher.batch.submissions import Submissions
from rare_assets.teacher.endpoint_teacher import Answers, EndpointTeacher
from rare_assets.teacher.interface import Ask, Outcome, Progress, TeacherStopped, Use
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.online_run import OnlineRun, OnlineRuns
from rare_assets.teacher.options import DEFAULT_ENDPOINT, DEFAULT_LIMITS, EndpointOptions, Limits
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.store.folder import Folder

T = TypeVar("T")


class OpenAITeacher(EndpointTeacher[OnlineRun[Any], Answers]):
    """Ask a model behind an OpenAI-compatible chat completions endpoint.

    Use it in one event loop, and close it there (`async with`). `rare_assets.teacher` shows an example.

    Args:
        model: the model's name at the endpoint.
        store: where answers are looked up and kept; the caller closes it.
        endpoint: where the endpoint is, and how it is spoken to. Default: OpenAI's own.
        limits: how much is asked, and how fast.
        ledger: counts for the limits on requests, cost and unusable answers; shared, they hold for several
            teachers together. Default: this teacher alone.
        prices: for costs, which are None without the model's price. Default: the shipped table.
        refresh: ask again. True ignores answers stored before this teacher was made; a time ignores those
            from before that time, so that an interrupted refresh can be resumed with the same time. New
            answers replace the old ones.
        retry_rejects: ask up to `max_attempts` times more where no stored answer can be used.
        progress_every_s: seconds between two calls of `ask_all`'s `progress`.
        say: called with a sentence about what is waited for, whenever that takes long. Default: the log.
        batches: folder of the batches that were handed in. Answers that wait in a batch of this endpoint
            are paid for, so that asking for one of them stops the run. Default: there are none.
        places: places in flight that teachers of other processes take, too; `limits.max_concurrency` still
            holds for this teacher.

    Raises:
        ValueError: the settings can't be used together.
    """

    def __init__(
        self,
        *,
        model: str,
        store: Answers,
        endpoint: EndpointOptions = DEFAULT_ENDPOINT,
        limits: Limits = DEFAULT_LIMITS,
        prices: Prices | None = None,
        ledger: Ledger | None = None,
        refresh: bool | datetime = False,
        retry_rejects: bool = False,
        progress_every_s: float = 5.0,
        say: Callable[[str], None] | None = None,
        batches: Folder | None = None,
        places: Places | None = None,
    ) -> None:
        super().__init__(
            model=model,
            store=store,
            endpoint=endpoint,
            limits=limits,
            prices=prices,
            ledger=ledger,
            places=places,
            refresh=refresh,
            retry_rejects=retry_rejects,
            progress_every_s=progress_every_s,
            say=say,
        )
        submissions = Submissions(batches) if batches is not None else None
        handed_in = HandedIn(submissions, model, str(self._endpoint), self._ignore_before)
        self._shared = OnlineRuns(self._runs, limits.max_concurrency, handed_in)

    async def aclose(self) -> None:
        """Cancel what is in flight, store what has come, and close the connections."""
        try:
            for run in list(self._runs):
                await run.close()
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

        A stored answer that can be used is used, whatever the number of its attempt.

        An Outcome's reason is that of `use`, or `refused_by_endpoint`, `context_length`, `content_filter`,
        `not_found` or `not_sendable` where the endpoint refuses the request for good, or `endpoint_error`
        or `rate_limited` where it failed again and again.

        To leave the loop early, or to cancel it, cancels what is in flight; answers that have come are
        still stored. Errors of `use`, `asks` and `progress` end the run.

        Raises:
            TeacherStopped: the endpoint is dead or misconfigured, or a limit is reached; raised once what
                is in flight is stored and yielded.
            ValueError: `max_attempts` is below 1.
        """
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts}")
        run = OnlineRun(self, self._shared, asks, use, max_attempts, progress)
        try:
            self._begin(run)
            while (outcome := await run.next()) is not None:
                yield outcome
        finally:
            try:
                await run.close()
            finally:
                self._end(run)
        if run.stopped is not None:
            raise TeacherStopped(run.stopped)

    def _begin(self, run: OnlineRun[Any]) -> None:
        super()._begin(run)
        run.begin()

    def _end(self, run: OnlineRun[Any]) -> None:
        super()._end(run)
        self._shared.pump()
