"""Run one `ask_all` online: a bounded pipeline that keeps the endpoint busy.

Asks are read in chunks and looked up in the store of answers; those never answered are sent, as many at a
time as the limits allow. A request keeps its place until its answer is stored, so that a kill loses no more
than the requests in flight; where storing is slow, it keeps the place until the response is there. Further
attempts at an ask go before asks not yet begun.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.attempts import Attempts, reusable
from rare_assets.teacher.batch.handed_in import HandedIn
from rare_assets.teacher.endpoint import Slot
from rare_assets.teacher.endpoint_teacher import Answers, EndpointTeacher
from rare_assets.teacher.faults import Fault, Kind
from rare_assets.teacher.health import Tries
from rare_assets.teacher.interface import Answer, Ask, Outcome, Progress, TeacherStopped, Use
from rare_assets.teacher.run import Run
from rare_assets.teacher.store.claims import WaitingSaid
from rare_assets.teacher.tokens import estimated_prompt_tokens

T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class OnlineAttempts(Attempts):
    """The attempts of a run at one ask, with the faults that the present one has met.

    `claimed_in` is the epoch of the claims in which the ask was claimed; None while it is not.
    """

    run: OnlineRun[Any]
    claimed_in: int | None = None
    tries: Tries = field(default_factory=Tries)

    def forget_faults(self) -> None:
        """Count the tries of the next attempt from 0."""
        self.tries = Tries()


class OnlineRuns:
    """What the runs of one teacher share: equal asks are asked once, and all take turns at the endpoint.

    Args:
        running: the runs that ask at present; their teacher adds and removes them.
        max_concurrency: most requests in flight.
        handed_in: what waits in batches of the endpoint.
    """

    def __init__(
        self, running: list[OnlineRun[Any]], max_concurrency: int, handed_in: HandedIn
    ) -> None:
        self.max_concurrency = max_concurrency
        self.handed_in = handed_in
        self._running = running
        # Keys being looked up or asked, each with the asks of equal content that wait for it.
        self._waiting: dict[bytes, list[OnlineAttempts]] = {}

    def claim(self, attempts: OnlineAttempts) -> bool:
        """Return whether an ask may be looked up and sent; else it waits for one of equal content."""
        waiting = self._waiting.get(attempts.key)
        if waiting is None:
            self._waiting[attempts.key] = []
            attempts.run.claimed.add(attempts.key)
            return True
        waiting.append(attempts)
        return False

    def release(self, run: OnlineRun[Any], key: bytes) -> list[OnlineAttempts]:
        """Give up a claim; returns the asks that waited for it."""
        run.claimed.discard(key)
        return [attempts for attempts in self._waiting.pop(key, ()) if not attempts.run.closed]

    def pass_on(self, run: OnlineRun[Any], key: bytes) -> None:
        """Give up a claim; the asks that waited for it are looked up themselves."""
        for attempts in self.release(run, key):
            attempts.run.admit(attempts)

    def pump(self) -> None:
        """Send what may be sent now; the runs take turns."""
        if len(self._running) > 1:
            self._running.append(self._running.pop(0))
        for run in list(self._running):
            run.pump()

    def queued(self) -> Iterator[Ask]:
        """Yield what waits to be sent, of all runs."""
        for run in self._running:
            yield from run.queued()


class OnlineRun(Run[EndpointTeacher[Any, Answers], OnlineAttempts, T]):
    """One `ask_all`, whose asks go out one by one.

    Args:
        teacher, asks, use, max_attempts, progress: as of `Run`.
        shared: with the other runs of the teacher.
    """

    def __init__(
        self,
        teacher: EndpointTeacher[Any, Answers],
        shared: OnlineRuns,
        asks: Iterable[Ask],
        use: Use[T],
        max_attempts: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        super().__init__(teacher, asks, use, max_attempts, progress)
        self.closed = False
        self.claimed: set[bytes] = set()
        # Asks that this run has claimed, and asks that others have.
        self._owned: set[OnlineAttempts] = set()
        self._elsewhere: set[OnlineAttempts] = set()
        self._shared = shared
        # Enough at once for look-ups to be cheap, and enough open that answers which wait to be
        # stored don't keep the endpoint idle, even where it answers faster than the store commits.
        self._chunk = max(64, min(1024, 4 * shared.max_concurrency))
        self._window = 2 * self._chunk + 16 * shared.max_concurrency
        self._again: deque[OnlineAttempts] = deque()
        self._fresh: deque[OnlineAttempts] = deque()
        self._open = 0  # read, and the outcome not yet taken
        self._sending: set[asyncio.Task[None]] = set()
        self._storing: set[asyncio.Task[None]] = set()
        self._judging: set[asyncio.Task[None]] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        # Asks whose failed request is being judged: neither in flight nor waiting yet.
        self._failing = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()

    # ---- the consumer's side

    def begin(self) -> None:
        """Start reading asks."""
        self._spawn(self._read())
        if self._progress is not None:
            self._spawn(self._report_regularly())

    async def next(self) -> Outcome[T] | None:
        """Return the next outcome; None if there will be no more."""
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
                self._shared.pass_on(self, key)

    # ---- tasks

    @property
    def _going(self) -> bool:
        return self.stopped is None and self._error is None and not self.closed

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
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
        await self._shared.handed_in.look_up()
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
            await self._admit([OnlineAttempts(ask=ask, key=key(ask), run=self) for ask in chunk])

    @property
    def _has_room(self) -> bool:
        return len(self._fresh) < self._chunk and self._open + self._chunk <= self._window

    def _make_room(self) -> None:
        if self._has_room:
            self._room.set()

    def admit(self, attempts: OnlineAttempts) -> None:
        """Take in an ask that no longer waits for one of equal content."""
        self._spawn(self._admit([attempts]))

    async def _admit(self, open_asks: list[OnlineAttempts]) -> None:
        """Look attempts up in the store; queue those that were never answered."""
        while open_asks and self._going:
            mine = [attempts for attempts in open_asks if self._shared.claim(attempts)]
            open_asks = await self._look_up(mine) if mine else []
        self.pump()

    async def _look_up(self, open_asks: list[OnlineAttempts]) -> list[OnlineAttempts]:
        """Settle asks by stored answers, queue those that have none and set aside those that others
        are asking for. Returns the asks that need another attempt."""
        found = await self._store.get([attempts.key for attempts in open_asks])
        without = [
            attempts
            for attempts in open_asks
            if attempts.claimed_in is None
            and not attempts.spent
            and not self._reusable(attempts, found)
        ]
        if without:
            self._shared.handed_in.require_none_of(attempts.key for attempts in without)
            await self._own(without)
            # It may have been answered, and released, between the look-up and the claim.
            mine = [attempts.key for attempts in without if attempts.claimed_in is not None]
            found |= await self._store.get(mine)
        reused: list[tuple[OnlineAttempts, Answer]] = []
        for attempts in open_asks:
            answer = self._reusable(attempts, found)
            if answer is None:
                attempts.sets_aside(found.get(attempts.key))
                if attempts.spent:
                    self._give_up(attempts)
                elif attempts.claimed_in is not None:
                    (self._again if attempts.stored else self._fresh).append(attempts)
                continue
            record = found[attempts.key]
            for other in (attempts, *self._shared.release(self, attempts.key)):
                self._endpoint.count_reused(answer)
                other.passes(record, self._teacher._pass_before)
                if other.run is self:
                    reused.append((other, answer))
                else:
                    other.run._take(other, answer)
        self.pump()
        return await self._judge_all(reused)

    def _give_up(self, attempts: OnlineAttempts) -> None:
        """Settle an ask to which no answer can be used and for which no more may be asked."""
        self._shared.pass_on(self, attempts.key)
        self._spawn(self._fall_back(attempts))

    async def _fall_back(self, attempts: OnlineAttempts) -> None:
        try:
            await super()._fall_back(attempts)
        except TeacherStopped as stopped:
            self._teacher._stop(str(stopped))

    def _reusable(
        self, attempts: OnlineAttempts, found: Mapping[bytes, Mapping[str, Any]]
    ) -> Answer | None:
        return reusable(found.get(attempts.key), self._teacher._ignore_before, attempts.ask)

    # ---- what others on the same storage ask for

    async def _own(self, open_asks: list[OnlineAttempts]) -> None:
        """Claim asks; those that others have are waited for."""
        theirs = await self._published.acquire([attempts.first_key for attempts in open_asks])
        for attempts in open_asks:
            if attempts.first_key not in theirs:
                attempts.claimed_in = self._published.epoch
                self._owned.add(attempts)
        elsewhere = [attempts for attempts in open_asks if attempts.first_key in theirs]
        if elsewhere and not self._elsewhere:
            self._spawn(self._wait_for_others())
        self._elsewhere.update(elsewhere)

    def _disown(self, open_asks: Iterable[OnlineAttempts]) -> None:
        """Let others ask for these."""
        owned = [attempts for attempts in open_asks if attempts in self._owned]
        self._owned.difference_update(owned)
        for attempts in owned:
            attempts.claimed_in = None
        if owned:
            self._published.release([attempts.first_key for attempts in owned])

    async def _wait_for_others(self) -> None:
        """Look now and then whether others are done with what is wanted here."""
        said = WaitingSaid(self._teacher._say)
        while self._elsewhere and self._going:
            await asyncio.sleep(self._published.poll_s)
            taken = await self._published.taken(
                [attempts.first_key for attempts in self._elsewhere]
            )
            free = [attempts for attempts in self._elsewhere if attempts.first_key not in taken]
            said.note(taken)
            self._elsewhere.difference_update(free)
            if free:
                self._spawn(self._look_again(free))

    async def _look_again(self, open_asks: list[OnlineAttempts]) -> None:
        """Look up again, and admit, asks that were admitted before."""
        await self._admit(await self._look_up(open_asks))

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
            attempts = queue.popleft()
            if attempts.claimed_in != self._published.epoch:  # this process was held up too long
                self._disown([attempts])
                self._spawn(self._look_again([attempts]))
                continue
            slot = self._endpoint.take(attempts.ask)
            if slot is None:
                queue.appendleft(attempts)
                continue
            task = asyncio.create_task(self._ask(attempts, slot))
            self._sending.add(task)
            task.add_done_callback(partial(self._left, slot))
        self._endpoint.take_no_more()
        self._make_room()

    @property
    def _in_flight(self) -> int:
        return len(self._sending)

    @property
    def awaits_endpoint(self) -> bool:
        """True if a request is in flight or waits to be sent."""
        return bool(self._sending or self._timers or self._again or self._fresh)

    def queued(self) -> Iterator[Ask]:
        """Yield what waits to be sent."""
        for attempts in (*self._again, *self._fresh):
            yield attempts.ask

    def _next_queue(self) -> deque[OnlineAttempts] | None:
        # Where most requests fail, no further asks are begun until some of those are through.
        failing = len(self._timers) + self._failing
        troubled = failing >= self._shared.max_concurrency
        return self._again or (None if troubled else self._fresh)

    # ---- from responses to outcomes

    async def _ask(self, attempts: OnlineAttempts, slot: Slot) -> None:
        # What fails again and again may fail for this sample: later tries have another seed.
        attempt = attempts.made + attempts.tries.failed // 3
        met = attempts.tries.failed + attempts.tries.throttled
        result = await self._endpoint.send(slot, attempts.sent, attempt, failed=met)
        if isinstance(result, Answer):
            # From here on a cancelled run lets this task finish: the answer is paid for.
            if (task := asyncio.current_task()) is not None:
                self._sending.discard(task)
                self._storing.add(task)
            places = int(self._store.quick)
            self._endpoint.unstored += places
            self._shared.pump()
            record = wire.answer_to_record(result, answered_at=time.time())
            try:
                if not result.unstored:
                    await self._store.put(attempts.key, record)
            finally:
                self._endpoint.unstored -= places
            waiting = self._shared.release(self, attempts.key)
            self._take(attempts, result)
            if result.unstored:
                for other in waiting:
                    other.run.admit(other)
                waiting = []
            reused = replace(result, reused=True)
            for other in waiting:
                self._endpoint.count_reused(reused)
                other.run._take(other, reused)
            self._shared.pump()
            return
        self._failing += 1
        try:
            fate = await self._endpoint.health.retry_delay(
                result,
                attempts.tries,
                attempts.ask,
                sent_at=slot.taken_at,
                queued=self._shared.queued(),
            )
        finally:
            self._failing -= 1
        if isinstance(fate, str) and self._is_an_attempt(attempts, result):
            attempts.tries = Tries()
            self._fresh.append(attempts)  # after what is not refused
        elif isinstance(fate, str):
            self._shared.pass_on(self, attempts.key)
            if self._going or result.kind is Kind.REFUSED:
                self._finish(attempts, attempts.failed(fate, str(result)))
        elif self._going:
            self._later(attempts, fate)
        self._shared.pump()

    def _is_an_attempt(self, attempts: OnlineAttempts, fault: Fault) -> bool:
        """Count a refusal that may be of what the model wrote; True if there is one more attempt."""
        answers = self._endpoint.health.answered_at is not None
        return self._going and answers and fault.may_be_of_the_answer and attempts.lose(self._max_attempts)  # fmt: skip

    def _later(self, attempts: OnlineAttempts, delay: float) -> None:
        if delay <= 0.0:
            self._again.append(attempts)
            return

        def due() -> None:
            self._timers.discard(timer)
            self._again.append(attempts)
            self.pump()

        timer = asyncio.get_running_loop().call_later(delay, due)
        self._timers.add(timer)

    def _take(self, attempts: OnlineAttempts, answer: Answer) -> None:
        """Have an answer judged, beside all else that goes on."""
        if not self.closed:
            task = asyncio.create_task(self._settle(attempts, answer))
            self._judging.add(task)
            task.add_done_callback(self._ended)

    async def _settle(self, attempts: OnlineAttempts, answer: Answer) -> None:
        if not await self._judge(attempts, answer) and self._going:
            await self._admit([attempts])

    def _finish(self, attempts: OnlineAttempts, outcome: Outcome[T]) -> None:
        self._disown([attempts])
        super()._finish(attempts, outcome)


def _shortest_first(queue: deque[OnlineAttempts]) -> None:
    """Have what is most likely to be answered sent next."""
    shortest = min(queue, key=lambda attempts: estimated_prompt_tokens(attempts.ask))
    queue.remove(shortest)
    queue.appendleft(shortest)
