"""A teacher behind an OpenAI-compatible endpoint: one bounded pipeline that keeps it busy.

Asks are read a chunk at a time and looked up in the store of answers; what was never answered is
sent, at most so many at once. A request's place is free once its answer is stored, so that a kill loses no
more than what has a place (with a slow store, as soon as the response is there). Further attempts at an ask go before asks not yet begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice, starmap
from typing import Any, Generic, Protocol, TypeVar

from pydantic import SecretStr

from rare_assets.teacher import wire
from rare_assets.teacher.attempts import Work, reusable
from rare_assets.teacher.batch.submissions import Submission, Submissions
from rare_assets.teacher.endpoint import Endpoint, Slot
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.faults import Fault, Kind
from rare_assets.teacher.health import Patience, Tries
from rare_assets.teacher.interface import (
    Answer,
    Ask,
    Outcome,
    Progress,
    TeacherStopped,
    Usage,
    Use,
)
from rare_assets.teacher.known import Folder
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.store import answer_files
from rare_assets.teacher.store.claims import Claims, WaitingSaid
from rare_assets.teacher.tokens import estimated_prompt_tokens

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Answers(Protocol):
    """The durable answers as a teacher needs them.

    `quick` says that a put takes milliseconds, so that an answer may keep its place in flight
    until it is stored.
    """

    @property
    def quick(self) -> bool: ...

    @property
    def unreadable(self) -> int:
        """How many stored answers were found to be lost so far."""

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """The records stored under these keys; of several under one, the one put last."""

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Store a record; returns once it is durable."""

    def claims(self) -> Claims:
        """Claims of one more teacher that asks for answers and stores them here."""


class OpenAITeacher(EndpointTeacher["_Run[Any]"]):
    """Asks a model behind an OpenAI-compatible chat completions endpoint.

    Use it in one event loop, and close it (`async with`) there.

    Args:
        model: the model's name at the endpoint.
        store: where answers are looked up and kept; the caller closes it.
        base_url: the endpoint, up to and with its /v1. Default: OpenAI's own.
        api_key: needed by OpenAI's own endpoint; many local servers want none.
        max_concurrency: requests in flight at most; fewer while the endpoint throttles.
        requests_per_minute: requests started per minute at most, evenly spaced.
        tokens_per_minute: prompt and completion tokens per minute at most, estimated from the
            request (four characters a token, plus max_tokens) and corrected by the answer.
        request_timeout: seconds until a request counts as lost.
        max_cost_usd: stop once new answers cost this much; the model needs a price.
        max_requests: stop after this many requests sent to the endpoint.
        ledger: counts for these two limits, so that they can hold for several teachers together;
            default, what this teacher spends.
        prices: for costs, default the shipped table; without the model's price they are None.
        refresh: ask anew. True ignores answers stored before this teacher was made; a time
            ignores those from before it, so that a refresh that was interrupted can be resumed by
            giving the same time again. New answers replace the old ones.
        max_unusable_answers: stop after this many new answers in a row that can't be used, where
            none can; 0: never. They count together where a ledger is shared.
        retry_rejects: ask up to `max_attempts` times more where no stored answer can be used.
        patience: how long faults of the transport are put up with.
        progress_every_s: least time between two calls of `ask_all`'s `progress`.
        say: told in a sentence what is waited for, whenever that takes long; default, the log.
        structured_output: how JSON is asked for, of `dialect.MODES`; default, found out by trying.
        extra_headers, extra_body: sent with every request, over what is sent otherwise.
        memory: folder where what is found out of the endpoint is kept for the next run.
        batches: folder of the batches that were handed in: what waits in one of this endpoint is paid
            for, so that asking for it stops the run. Default, nobody hands in any.
        window: tokens that the model takes at once, where that is known beforehand.
        places: places in flight that teachers of other processes take, too; `max_concurrency` stays
            this one's bound.

    Raises:
        ValueError: if the settings can't work together.
    """

    def __init__(
        self,
        *,
        model: str,
        store: Answers,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        max_concurrency: int = 64,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        request_timeout: float = 600.0,
        max_cost_usd: float | None = None,
        max_requests: int | None = None,
        prices: Prices | None = None,
        ledger: Ledger | None = None,
        refresh: bool | datetime = False,
        max_unusable_answers: int = 20,
        retry_rejects: bool = False,
        patience: Patience | None = None,
        progress_every_s: float = 5.0,
        say: Callable[[str], None] | None = None,
        structured_output: str | None = None,
        extra_headers: Mapping[str, SecretStr] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        memory: Folder | None = None,
        batches: answer_files.Folder | None = None,
        window: int | None = None,
        places: Places | None = None,
    ) -> None:
        endpoint = Endpoint(
            model=model,
            base_url=base_url,
            api_key=api_key,
            max_concurrency=max_concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            request_timeout=request_timeout,
            max_cost_usd=max_cost_usd,
            max_requests=max_requests,
            prices=prices or Prices.load(),
            patience=patience or Patience(),
            halt=self._stop,
            say=say or logger.warning,
            max_unusable_answers=max_unusable_answers,
            ledger=ledger,
            structured_output=structured_output,
            extra_headers=extra_headers,
            extra_body=extra_body,
            memory=memory,
            window=window,
            places=places,
        )
        super().__init__(
            endpoint,
            refresh=refresh,
            retry_rejects=retry_rejects,
            progress_every_s=progress_every_s,
            say=say,
        )
        self._store = store
        self._batches = Submissions(batches) if batches is not None else None
        self._handed_in: asyncio.Future[dict[bytes, Submission]] | None = None
        # What this teacher asks for, for others on the same storage to see.
        self._published = store.claims()
        self._max_concurrency = max_concurrency
        # Keys being looked up or asked, each with the works of equal content that wait for it.
        self._claims: dict[bytes, list[_Work]] = {}

    @property
    def usage(self) -> Usage:
        usage = super().usage
        usage.answers_unreadable = self._store.unreadable
        return usage

    async def aclose(self) -> None:
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
        """Answer every ask; yield an Outcome as each is done, in any order.

        A stored answer that can be used is used, whatever its attempt: where all that may be asked
        for are unusable, those stored under further attempts are looked at.

        Besides the reasons of `use`, an Outcome's may be `refused_by_endpoint`, `context_length`,
        `content_filter`, `not_found` or `not_sendable` (the endpoint refuses this request for
        good), `endpoint_error` or `rate_limited` (it failed this one again and again).

        Leaving the loop early, or cancelling it, cancels what is in flight; answers that have
        arrived are still stored. Errors of `use`, `asks` and `progress` end the run.

        Raises:
            TeacherStopped: the endpoint is dead or misconfigured, or a limit was reached; raised
                once what is in flight has been stored and yielded.
        """
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts}")
        run = _Run(self, asks, use, max_attempts, progress)
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

    def _begin(self, run: _Run[Any]) -> None:
        super()._begin(run)
        run.begin()

    def _end(self, run: _Run[Any]) -> None:
        super()._end(run)
        self._pump()

    def _pump(self) -> None:
        if len(self._runs) > 1:  # runs that share the endpoint take turns
            self._runs.append(self._runs.pop(0))
        for run in list(self._runs):
            run.pump()

    def _queued(self) -> Iterator[Ask]:
        for run in self._runs:
            yield from run.queued()

    async def handed_in(self) -> tuple[Submissions, dict[bytes, Submission]] | None:
        """The batches of this endpoint and what waits in them; None where there are none.

        Looked up once: a judge of answers asks for each verdict by itself.
        """
        if self._batches is None:
            return None
        if self._handed_in is None:
            where = (self.model, str(self._endpoint), self._ignore_before)
            self._handed_in = asyncio.ensure_future(
                asyncio.to_thread(self._batches.open_at, *where)
            )
        # One run that is closed takes the look-up from no other.
        waiting = await asyncio.shield(self._handed_in)
        return (self._batches, waiting) if waiting else None

    def _claim(self, work: _Work) -> bool:
        """Whether the work may be looked up and asked; else it waits for one of equal content."""
        waiting = self._claims.get(work.key)
        if waiting is None:
            self._claims[work.key] = []
            work.run.claimed.add(work.key)
            return True
        waiting.append(work)
        return False

    def _release(self, run: _Run[Any], key: bytes) -> list[_Work]:
        """Give up a claim; returns the works that waited for it."""
        run.claimed.discard(key)
        return [work for work in self._claims.pop(key, ()) if not work.run.closed]


@dataclass(slots=True, eq=False, kw_only=True)
class _Work(Work):
    """A work of a run, with the faults that its present attempt has met.

    `claimed_in` is the epoch of the claims in which the ask was claimed; None while it is not.
    """

    run: _Run[Any]
    claimed_in: int | None = None
    tries: Tries = field(default_factory=Tries)


class _Run(Generic[T]):
    """One `ask_all`: everything between its asks and its outcomes."""

    def __init__(
        self,
        teacher: OpenAITeacher,
        asks: Iterable[Ask],
        use: Use[T],
        max_attempts: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.stopped: str | None = None
        self.closed = False
        self.claimed: set[bytes] = set()
        self._teacher = teacher
        self._published = teacher._published
        # Works whose ask this run has claimed, and those whose ask others have.
        self._owned: set[_Work] = set()
        self._handed_in: tuple[Submissions, dict[bytes, Submission]] | None = None
        self._elsewhere: set[_Work] = set()
        self._endpoint = teacher._endpoint
        self._store = teacher._store
        self._asks: Iterator[Ask] = iter(asks)
        self._use = use
        self._max_attempts = max_attempts
        self._progress = progress
        # Enough at once for look-ups to be cheap, and enough open that answers which wait to be
        # stored don't keep the endpoint idle, even where it answers faster than the store commits.
        self._chunk = max(64, min(1024, 4 * teacher._max_concurrency))
        self._window = 2 * self._chunk + 16 * teacher._max_concurrency
        self._again: deque[_Work] = deque()
        self._fresh: deque[_Work] = deque()
        self._ready: deque[Outcome[T]] = deque()
        self._open = 0  # read, and the outcome not yet taken
        self._pending = 0  # read, and without an outcome
        self._done = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._storing: set[asyncio.Task[None]] = set()
        self._judging: set[asyncio.Task[None]] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        # Asks whose failed request is being judged: neither in flight nor waiting yet.
        self._failing = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    # ---- the consumer's side

    def begin(self) -> None:
        """Start reading asks."""
        self._spawn(self._read())
        if self._progress is not None:
            self._spawn(self._report_regularly())

    async def next(self) -> Outcome[T] | None:
        """The next outcome; None if there will be no more."""
        while True:
            if self._ready:
                self._open -= 1
                self._make_room()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            if self._exhausted and self._pending == 0:
                return None
            if self.stopped is not None and not (self._sending or self._storing or self._judging):
                return None
            if self.closed:
                raise TeacherStopped("The teacher was closed while it was being asked.")
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Cancel what is in flight and wait until what has arrived is stored."""
        if self.closed:
            return
        self.closed = True
        self._changed.set()
        for timer in self._timers:
            timer.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        cancelled = self._sending | self._judging | self._others
        for task in cancelled:
            task.cancel()
        try:
            await asyncio.gather(*cancelled, *self._storing, return_exceptions=True)
        finally:
            self._disown(list(self._owned))
            for key in list(self.claimed):
                for work in self._teacher._release(self, key):
                    work.run._spawn(work.run._admit([work]))

    def stop(self, message: str) -> None:
        """Send nothing more."""
        self.stopped = message
        self._changed.set()

    def report(self) -> None:
        """Call `progress` with the present state."""
        if self._progress is not None:
            usage = replace(self._teacher.usage)
            self._progress(Progress(done=self._done, in_flight=len(self._sending), usage=usage))

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._teacher._progress_every_s)
            self.report()

    # ---- tasks

    @property
    def _going(self) -> bool:
        return self.stopped is None and self._error is None and not self.closed

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        storing = task in self._storing
        for group in (self._sending, self._storing, self._judging, self._others):
            group.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, TeacherStopped) and not storing:
                # What is in flight is paid for, and can still be stored.
                self._teacher._stop(str(error))
            else:
                self._fail(error)
        self._changed.set()

    def _left(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._endpoint.free(slot)  # it may have been cancelled before it ever ran
        self._ended(task)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._changed.set()

    # ---- from asks to requests

    async def _read(self) -> None:
        await self._endpoint.recall()
        self._handed_in = await self._teacher.handed_in()
        while self._going:
            if not self._has_room:
                self._room.clear()
                await self._room.wait()
                continue
            chunk = list(islice(self._asks, self._chunk))
            if not chunk:
                self._exhausted = True
                break
            self._open += len(chunk)
            self._pending += len(chunk)
            key = partial(wire.answer_key, self._teacher.model, attempt=0)
            await self._admit([_Work(ask=ask, key=key(ask), run=self) for ask in chunk])

    @property
    def _has_room(self) -> bool:
        return len(self._fresh) < self._chunk and self._open + self._chunk <= self._window

    def _make_room(self) -> None:
        if self._has_room:
            self._room.set()

    async def _admit(self, works: list[_Work]) -> None:
        """Look attempts up in the store; queue those that were never answered."""
        while works and self._going:
            mine = [work for work in works if self._teacher._claim(work)]
            works = await self._look_up(mine) if mine else []
        self.pump()

    async def _look_up(self, works: list[_Work]) -> list[_Work]:
        """Settle works by stored answers, queue those that have none and set aside those that others
        are asking for. Returns the works that need another attempt."""
        found = await self._store.get([work.key for work in works])
        without = [
            work
            for work in works
            if work.claimed_in is None and not work.spent and not self._reusable(work, found)
        ]
        if without:
            self._require_not_handed_in(without)
            await self._own(without)
            # It may have been answered, and released, between the look-up and the claim.
            mine = [work.key for work in without if work.claimed_in is not None]
            found |= await self._store.get(mine)
        reused: list[tuple[_Work, Answer]] = []
        for work in works:
            answer = self._reusable(work, found)
            if answer is None:
                work.sets_aside(found.get(work.key))
                if work.spent:
                    self._give_up(work)
                elif work.claimed_in is not None:
                    (self._again if work.attempt else self._fresh).append(work)
                continue
            record = found[work.key]
            for other in (work, *self._teacher._release(self, work.key)):
                self._endpoint.count_reused(answer)
                other.passes(record, self._teacher._pass_before)
                if other.run is self:
                    reused.append((other, answer))
                else:
                    other.run._take(other, answer)
        self.pump()
        done = await asyncio.gather(*starmap(self._judge, reused))
        return [work for (work, _), settled in zip(reused, done, strict=True) if not settled]

    def _require_not_handed_in(self, works: list[_Work]) -> None:
        """Stop where answers that are paid for wait in a batch."""
        if self._handed_in is None:
            return
        batches, waiting = self._handed_in
        found = [waiting[work.key] for work in works if work.key in waiting]
        if found:
            first = found[0]
            raise TeacherStopped(
                f"{len(found):,} of the first {len(works):,} asks wait in batch {first.batch_id or first.name} at "
                f"{self._endpoint}, handed in {time.ctime(first.created_at)}: their answers are paid for. "
                "Run with mode=batch to fetch them, or with refresh to ask anew, or remove "
                f"{batches.place_of(first)} if the batch is gone."
            )

    def _give_up(self, work: _Work) -> None:
        """No answer to it can be used, and no more may be asked for."""
        for other in self._teacher._release(self, work.key):
            other.run._spawn(other.run._admit([other]))
        self._spawn(self._fall_back(work))

    async def _fall_back(self, work: _Work) -> None:
        try:
            self._finish(work, await work.fall_back(self._use, self._store, self._teacher.model))
        except TeacherStopped as stopped:
            self._teacher._stop(str(stopped))

    def _reusable(self, work: _Work, found: Mapping[bytes, Mapping[str, Any]]) -> Answer | None:
        return reusable(found.get(work.key), self._teacher._ignore_before, work.ask)

    # ---- what others on the same storage ask for

    async def _own(self, works: list[_Work]) -> None:
        """Claim asks; those that others have are waited for."""
        theirs = await self._published.acquire([work.first_key for work in works])
        for work in works:
            if work.first_key not in theirs:
                work.claimed_in = self._published.epoch
                self._owned.add(work)
        elsewhere = [work for work in works if work.first_key in theirs]
        if elsewhere and not self._elsewhere:
            self._spawn(self._wait_for_others())
        self._elsewhere.update(elsewhere)

    def _disown(self, works: Iterable[_Work]) -> None:
        """Let others ask for these."""
        owned = [work for work in works if work in self._owned]
        self._owned.difference_update(owned)
        for work in owned:
            work.claimed_in = None
        if owned:
            self._published.release([work.first_key for work in owned])

    async def _wait_for_others(self) -> None:
        """Look now and then whether others are done with what is wanted here."""
        said = WaitingSaid(self._teacher._say)
        while self._elsewhere and self._going:
            await asyncio.sleep(self._published.poll_s)
            taken = await self._published.taken([work.first_key for work in self._elsewhere])
            free = [work for work in self._elsewhere if work.first_key not in taken]
            said.note(taken)
            self._elsewhere.difference_update(free)
            if free:
                self._spawn(self._look_again(free))

    async def _look_again(self, works: list[_Work]) -> None:
        """As `_admit`, for works that were admitted before."""
        await self._admit(await self._look_up(works))

    def pump(self) -> None:
        """Send what may be sent now."""
        while self._going and (queue := self._next_queue()):
            if self._endpoint.health.in_doubt:
                _shortest_first(queue)
            wait = self._endpoint.wait(queue[0].ask)
            if wait is None:
                break
            if wait > 0.0:
                if self._alarm is not None:
                    self._alarm.cancel()
                self._alarm = asyncio.get_running_loop().call_later(wait, self.pump)
                break
            work = queue.popleft()
            if work.claimed_in != self._published.epoch:  # this process was held up too long
                self._disown([work])
                self._spawn(self._look_again([work]))
                continue
            slot = self._endpoint.take(work.ask)
            if slot is None:
                queue.appendleft(work)
                continue
            task = asyncio.create_task(self._ask(work, slot))
            self._sending.add(task)
            task.add_done_callback(partial(self._left, slot))
        self._endpoint.take_no_more()
        self._make_room()

    @property
    def awaits_endpoint(self) -> bool:
        """Whether something is in flight, or waits to be sent."""
        return bool(self._sending or self._timers or self._again or self._fresh)

    def queued(self) -> Iterator[Ask]:
        """What waits to be sent."""
        for work in (*self._again, *self._fresh):
            yield work.ask

    def _next_queue(self) -> deque[_Work] | None:
        # Where most requests fail, no further asks are begun until some of those are through.
        failing = len(self._timers) + self._failing
        troubled = failing >= self._teacher._max_concurrency
        return self._again or (None if troubled else self._fresh)

    # ---- from responses to outcomes

    async def _ask(self, work: _Work, slot: Slot) -> None:
        # What fails again and again may fail for this sample: later tries have another seed.
        attempt = work.attempts + work.tries.failed // 3
        met = work.tries.failed + work.tries.throttled
        result = await self._endpoint.send(slot, work.sent, attempt, failed=met)
        if isinstance(result, Answer):
            # From here on a cancelled run lets this task finish: the answer is paid for.
            if (task := asyncio.current_task()) is not None:
                self._sending.discard(task)
                self._storing.add(task)
            places = int(self._store.quick)
            self._endpoint.unstored += places
            self._teacher._pump()
            record = wire.answer_to_record(result, answered_at=time.time())
            try:
                if not result.unstored:
                    await self._store.put(work.key, record)
            finally:
                self._endpoint.unstored -= places
            waiting = self._teacher._release(self, work.key)
            self._take(work, result)
            if result.unstored:
                for other in waiting:
                    other.run._spawn(other.run._admit([other]))
                waiting = []
            reused = replace(result, reused=True)
            for other in waiting:
                self._endpoint.count_reused(reused)
                other.run._take(other, reused)
            self._teacher._pump()
            return
        self._failing += 1
        try:
            fate = await self._endpoint.health.after(
                result,
                work.tries,
                work.ask,
                sent_at=slot.taken_at,
                queued=self._teacher._queued(),
            )
        finally:
            self._failing -= 1
        if isinstance(fate, str) and self._is_an_attempt(work, result):
            work.tries = Tries()
            self._fresh.append(work)  # after what is not refused
        elif isinstance(fate, str):
            for other in self._teacher._release(self, work.key):
                other.run._spawn(other.run._admit([other]))
            if self._going or result.kind is Kind.REFUSED:
                self._finish(work, work.failed(fate, str(result)))
        elif self._going:
            self._later(work, fate)
        self._teacher._pump()

    def _is_an_attempt(self, work: _Work, fault: Fault) -> bool:
        """Count a refusal that may be of what the model wrote; True if there is one more attempt."""
        answers = self._endpoint.health.answered_at is not None
        return self._going and answers and fault.may_be_of_the_answer and work.lose(self._max_attempts)  # fmt: skip

    def _later(self, work: _Work, delay: float) -> None:
        if delay <= 0.0:
            self._again.append(work)
            return

        def due() -> None:
            self._timers.discard(timer)
            self._again.append(work)
            self.pump()

        timer = asyncio.get_running_loop().call_later(delay, due)
        self._timers.add(timer)

    def _take(self, work: _Work, answer: Answer) -> None:
        """Have an answer judged, beside all else that goes on."""
        if not self.closed:
            task = asyncio.create_task(self._settle(work, answer))
            self._judging.add(task)
            task.add_done_callback(self._ended)

    async def _settle(self, work: _Work, answer: Answer) -> None:
        if not await self._judge(work, answer) and self._going:
            await self._admit([work])

    async def _judge(self, work: _Work, answer: Answer) -> bool:
        """Whether the work has its outcome with this answer; else it is ready for one more."""
        try:
            outcome = await work.judge(answer, self._use, self._teacher.model, self._max_attempts)
        except TeacherStopped as stopped:
            # Whoever judges can't go on; what else is in flight is paid for and must be stored.
            self._teacher._stop(str(stopped))
            return True
        if not answer.reused:
            self._endpoint.brake.judged(answer, work.unusable)
        if outcome is None:
            work.tries = Tries()
            return False
        self._finish(work, outcome)
        return True

    def _finish(self, work: _Work, outcome: Outcome[T]) -> None:
        self._disown([work])
        self._pending -= 1
        self._done += 1
        self._ready.append(outcome)
        self._changed.set()


def _shortest_first(queue: deque[_Work]) -> None:
    """Have what is most likely to be answered sent next."""
    shortest = min(queue, key=lambda work: estimated_prompt_tokens(work.ask))
    queue.remove(shortest)
    queue.appendleft(shortest)
