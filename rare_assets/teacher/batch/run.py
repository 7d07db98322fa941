"""Run one `ask_all` in batches: what is handed in, what waits for the next batch, what came back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.attempts import reusable
from rare_assets.teacher.batch.api import BatchApi, Refused, is_queue_full
from rare_assets.teacher.batch.attempts import BatchAttempts
from rare_assets.teacher.batch.claimed import ClaimedKeys
from rare_assets.teacher.batch.limits import BatchLimits
from rare_assets.teacher.batch.packing import OpenBatch, pack
from rare_assets.teacher.batch.submissions import Submission, Submissions
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.faults import Fault, Kind
from rare_assets.teacher.interface import Answer, Ask, Outcome, Progress, TeacherStopped, Use
from rare_assets.teacher.run import Run

if TYPE_CHECKING:
    from openai.types import Batch

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Batches that a request fails in, for reasons of the endpoint, until its ask is given up.
LINE_TRIES = 3
# Batches in a row that bring no answer at all mean that something is wrong.
FRUITLESS_BATCHES = 3

_LOOKUP = 1000


class BatchRun(Run[EndpointTeacher[Any, Any], BatchAttempts, T]):
    """One `ask_all`, whose asks go out in batches.

    Args:
        teacher, asks, use, max_attempts, progress: as of `Run`.
        submissions: where batches are noted.
        limits: of batches.
    """

    def __init__(
        self,
        teacher: EndpointTeacher[Any, Any],
        submissions: Submissions,
        limits: BatchLimits,
        asks: Iterable[Ask],
        use: Use[T],
        max_attempts: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        super().__init__(teacher, asks, use, max_attempts, progress)
        self._api = BatchApi(teacher, submissions, limits)
        self._submissions = submissions
        self._limits = limits
        # Every key without an answer, and the asks that wait for it; of these:
        self._waiting: dict[bytes, list[BatchAttempts]] = {}
        self._todo: dict[bytes, None] = {}  # in no batch, in the order in which they came
        self._held: dict[bytes, Submission] = {}  # in a stored submission
        self._claimed = ClaimedKeys(teacher._published, teacher._say)
        self._seen: set[str] = set()
        self._out: dict[str, OpenBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching = 0
        self._batch_requests = limits.max_requests
        self._hold_until = 0.0
        self._fruitless = 0
        self._reporter: asyncio.Task[None] | None = None

    # ---- the consumer's side

    async def outcomes(self) -> AsyncIterator[Outcome[T]]:
        """Yield every outcome as it comes."""
        if self._progress is not None:
            self._reporter = asyncio.create_task(self._report_regularly())
        await self._endpoint.recall()
        await self._recall()
        while True:
            self._changed.clear()
            while self._ready:
                yield self._ready.popleft()
            if self._error is not None:
                raise self._error
            going = self.stopped is None
            if self._claimed.elsewhere and going:
                await self._look_elsewhere()
            room = self._limits.max_open_requests - self._pending
            if going and not self._exhausted and room > 0:
                await self._read(min(_LOOKUP, room))
                continue
            wait = self._hold_until - time.monotonic()
            # A batch that is being fetched may bring more for the next one.
            idle = going and self._todo and not self._fetching
            if idle and wait <= 0 and await self._hand_in():
                continue
            if self._ready:
                continue
            if not self._tasks and not (idle and wait > 0):
                if self.stopped is not None or not self._pending:
                    return
                wait = self._limits.poll_s  # another run has all that may be open
            if self._claimed.elsewhere:
                pause = self._published.poll_s
                wait = min(wait, pause) if wait > 0 else pause
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait if wait > 0 else None)

    async def close(self) -> None:
        """End every task; batches that were handed in stay."""
        tasks = [*self._tasks, *([self._reporter] if self._reporter is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for out in self._out.values():
            out.put_away(self._endpoint)
        self._claimed.release_all()

    async def cancel(self) -> None:
        """End every task and cancel the batches."""
        await self.close()
        submitted = (out.submission.batch_id for out in self._out.values())
        await self._api.cancel([batch_id for batch_id in submitted if batch_id])

    @property
    def _in_flight(self) -> int:
        return len(self._waiting) - len(self._todo)

    @property
    def awaits_endpoint(self) -> bool:
        """True if a request is in a batch or waits for one."""
        return bool(self._tasks or self._todo)

    # ---- from asks to batches

    async def _read(self, count: int) -> None:
        chunk = list(islice(self._asks, count))
        if not chunk:
            self._exhausted = True
            return
        self._pending += len(chunk)
        model = self._teacher.model
        await self._admit([BatchAttempts(ask, wire.answer_key(model, ask, 0)) for ask in chunk])

    async def _admit(self, open_asks: list[BatchAttempts]) -> None:
        """Look attempts up in the store; those never answered wait for a batch."""
        while open_asks:
            first: list[bytes] = []
            for attempts in open_asks:
                # Claimed before the look-up, so that an answer which comes meanwhile is not missed.
                if attempts.key not in self._waiting:
                    self._waiting[attempts.key] = []
                    first.append(attempts.key)
                self._waiting[attempts.key].append(attempts)
            open_asks = []
            for start in range(0, len(first), _LOOKUP):
                keys = first[start : start + _LOOKUP]
                found = await self._store.get(keys)
                found |= await self._own([key for key in keys if self._is_open(key, found)])
                given: list[tuple[BatchAttempts, Answer]] = []
                for key in keys:
                    answer = self._reusable(found.get(key), key)
                    if answer is not None:
                        for attempts in self._waiting[key]:
                            attempts.passes(found[key], self._teacher._pass_before)
                        given += self._deliver(key, answer)
                        continue
                    for attempts in self._waiting[key]:
                        attempts.sets_aside(found.get(key))
                    if spent := [attempts for attempts in self._waiting[key] if attempts.spent]:
                        for attempts in spent:
                            self._waiting[key].remove(attempts)
                            await self._fall_back(attempts)
                        if not self._waiting[key]:
                            del self._waiting[key]
                            continue
                        self._todo[key] = None
                    elif key in self._claimed.elsewhere:
                        continue
                    elif key in self._held:
                        self._follow(OpenBatch(self._held[key], self._endpoint.dialect.version))
                    else:
                        self._todo[key] = None
                open_asks += await self._judge_all(given)

    def _is_open(self, key: bytes, found: Mapping[bytes, Mapping[str, Any]]) -> bool:
        """Return whether a key has no stored answer, and nobody here has claimed it yet."""
        if key in self._claimed.owned or self._reusable(found.get(key), key) is not None:
            return False
        return not all(attempts.spent for attempts in self._waiting[key])

    async def _own(self, keys: list[bytes]) -> dict[bytes, dict[str, Any]]:
        """Claim what is asked for. Returns what has been stored, or handed in, meanwhile."""
        if not keys:
            return {}
        mine = await self._claimed.claim({key: self._waiting[key][0].first_key for key in keys})
        await self._recall()
        return await self._store.get(mine)

    async def _look_elsewhere(self) -> None:
        """Take up again what others have been asking for and are done with."""
        open_asks: list[BatchAttempts] = []
        for key in await self._claimed.freed():
            open_asks += self._waiting.pop(key, ())
        await self._admit(open_asks)

    def _reusable(self, record: Mapping[str, Any] | None, key: bytes) -> Answer | None:
        return reusable(record, self._teacher._ignore_before, self._ask_of(key))

    def _ask_of(self, key: bytes) -> Ask | None:
        """Return the ask that waits for a key; None if it was handed in by another run alone."""
        waiting = self._waiting.get(key)
        return waiting[0].ask if waiting else None

    async def _recall(self) -> None:
        """Learn which batches are out, of earlier runs and of others that go on at this moment."""
        teacher, endpoint = self._teacher, str(self._endpoint)
        found = await asyncio.to_thread(
            self._submissions.recall, teacher.model, endpoint, teacher._ignore_before, self._seen
        )
        for key, submission in found.items():
            self._held.setdefault(key, submission)
        for key in [key for key in self._todo if key in self._held]:
            del self._todo[key]
            self._follow(OpenBatch(self._held[key], self._endpoint.dialect.version))

    async def _hand_in(self) -> bool:
        """Hand in what waits, in as many batches as it takes; False if nothing could be."""
        before = len(self._todo)
        await self._recall()
        while self._todo and self.stopped is None:
            out = await pack(
                self._endpoint,
                self._todo,
                self._waiting,
                max_requests=self._batch_requests,
                max_bytes=self._limits.max_bytes,
                not_sendable=partial(self._reject, reason="not_sendable"),
            )
            if out is None:
                break
            self._seen.add(out.submission.name)
            self._follow(out)
        return len(self._todo) < before

    # ---- batches

    def _follow(self, out: OpenBatch) -> None:
        name = out.submission.name
        if name not in self._out:
            self._out[name] = out
            task = asyncio.create_task(self._see_through(out))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A stop leaves the other batches to be fetched, if they can be.
        if error is not None and not (self.stopped and isinstance(error, TeacherStopped)):
            self._error = self._error or error
        self._changed.set()

    async def _see_through(self, out: OpenBatch) -> None:
        """From a file of requests, or a stored submission, to stored answers."""
        mine = out.file is not None
        batch = await self._awaited(out)
        self._fetching += 1
        try:
            if batch is not None:
                await self._fetch(out, batch, mine=mine)
            await asyncio.to_thread(self._submissions.remove, out.submission)
            out.put_away(self._endpoint)
            del self._out[out.submission.name]
            left: list[BatchAttempts] = []
            for key in out.submission.requests:
                if self._held.get(key) is out.submission:
                    del self._held[key]
                left += self._waiting.pop(key, ())
            await self._admit(left)
        finally:
            self._fetching -= 1

    async def _awaited(self, out: OpenBatch) -> Batch | None:
        """Return the ended batch; None if there is none, and its requests are to be looked up anew."""
        try:
            if out.file is not None:
                out.submission = await self._api.hand_in(out.submission, out.file)
            elif out.submission.batch_id is None:
                found = await self._api.find_again(out.submission)
                if found is None:
                    return None
                out.submission = found
        except Refused as refused:
            requests = len(out.submission.requests)
            if out.file is None:
                self._stop_unless_gone(refused, f"{requests} requests that were being handed in")
            if refused.fault.status == 413 and requests > 1:
                self._batch_requests = max(1, requests // 2)
                return None
            await asyncio.to_thread(self._submissions.remove, out.submission)
            self._teacher._stop(
                f"{self._endpoint} does not take batches: {refused.fault}. Run with mode=online, or "
                "check RARE_MODEL and OPENAI_BASE_URL."
            )
            raise TeacherStopped(self.stopped or "") from refused
        batch_id = out.submission.batch_id
        assert batch_id is not None
        try:
            return await self._api.ended(batch_id)
        except Refused as refused:
            self._stop_unless_gone(refused, f"batch {batch_id}")
            self._count_fruitless(batch_id, "being unknown to the endpoint")
            return None

    # ---- results

    async def _fetch(self, out: OpenBatch, batch: Batch, *, mine: bool) -> None:
        """Store and deliver all that a batch has brought."""
        if batch.status == "failed":
            self._after_failure(out, batch)
            return
        before = self._endpoint.health.answered_at
        told: set[bytes] = set()
        failed: dict[bytes, Fault] = {}
        ended = batch.status == "completed"
        try:
            async with contextlib.aclosing(self._api.result_lines(batch, _LOOKUP)) as results:
                async for lines in results:
                    told |= await self._take(out, lines, failed, mine=mine)
        except Refused as refused:
            self._stop_unless_gone(refused, f"the answers of batch {batch.id}")
            ended = False
        if ended:
            lost = Fault(Kind.TRANSIENT, "lost", f"batch {batch.id} ended without a result for it")
            failed |= {key: lost for key in out.submission.requests if key not in told}
        if told or ended:
            self._fruitless = 0
        else:
            self._count_fruitless(batch.id, str(batch.status))
        answered = self._endpoint.health.answered_at != before
        await self._after_faults(out, failed, beside_answers=answered)

    def _stop_unless_gone(self, refused: Refused, what: str) -> None:
        """Stop where what an endpoint refuses may exist, so that nothing is asked for again that is paid for."""
        if refused.gone:
            logger.warning("%s: %s: gone: %s", self._endpoint, what, refused.fault)
            return
        self._teacher._stop(
            f"{self._endpoint}: what became of {what} can't be told: {refused.fault}. The batch is "
            "kept, and looked for by the next run; with refresh its requests are asked anew."
        )
        raise TeacherStopped(self.stopped or "") from refused

    def _count_fruitless(self, batch_id: str, status: str) -> None:
        """Stop after some batches in a row that brought nothing: each may have cost something."""
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_BATCHES:
            self._teacher._stop(
                f"{self._endpoint}: {self._fruitless} batches in a row brought no answer, the last "
                f"({batch_id}) ended as {status}. Run again later, or with mode=online."
            )

    async def _take(
        self, out: OpenBatch, lines: list[bytes], failed: dict[bytes, Fault], *, mine: bool
    ) -> set[bytes]:
        """Take in some lines of a result file, the faults into `failed`; returns whose lines say anything."""
        latency = round(time.time() - out.submission.created_at, 3)
        results: dict[bytes, Answer | Fault | None] = {}
        for line in lines:
            key, result = self._api.read_line(out.submission, line, latency, self._ask_of)
            if key in out.submission.requests and key not in results:
                results[key] = result
        # An earlier run may have been killed while it fetched the same.
        stored = {} if mine else await self._store.get(list(results))
        fresh = {
            key: result
            for key, result in results.items()
            if isinstance(result, Answer) and self._reusable(stored.get(key), key) is None
        }
        now = time.time()
        await asyncio.gather(
            *(
                self._store.put(key, wire.answer_to_record(answer, answered_at=now))
                for key, answer in fresh.items()
                if not answer.unstored
            )
        )
        given: list[tuple[BatchAttempts, Answer]] = []
        for key, result in results.items():
            if key in fresh:
                self._endpoint.count(fresh[key])
                if (asked := self._ask_of(key)) is not None and out.manner is not None:
                    self._endpoint.negotiation.taken(asked, out.manner)
                given += self._deliver(key, fresh[key], new=True)
            elif isinstance(result, Answer):
                reused = self._reusable(stored.get(key), key)
                assert reused is not None
                given += self._deliver(key, reused)
            elif isinstance(result, Fault):
                failed[key] = result
        await self._admit(await self._judge_all(given))
        self._changed.set()
        return {key for key, result in results.items() if result is not None}

    def _deliver(
        self, key: bytes, answer: Answer, *, new: bool = False
    ) -> Iterator[tuple[BatchAttempts, Answer]]:
        """Give an answer to all that wait for it: each with the answer as it gets it."""
        self._todo.pop(key, None)
        self._claimed.release(key)
        for attempts in self._waiting.pop(key, ()):
            given = answer if new else replace(answer, reused=True)
            if not new:
                self._endpoint.count_reused(given)
            new = False  # it was paid for once
            yield attempts, given

    def _reject(self, key: bytes, detail: str, *, reason: str) -> None:
        self._claimed.release(key)
        for attempts in self._waiting.pop(key, ()):
            self._finish(attempts, attempts.failed(reason, detail))

    # ---- faults

    async def _after_faults(
        self, out: OpenBatch, failed: Mapping[bytes, Fault], *, beside_answers: bool
    ) -> None:
        """Settle the requests that their batch could not answer; by default they go again."""
        refused: dict[bytes, Fault] = {}
        spent: dict[bytes, Fault] = {}
        health = self._endpoint.health
        before = health.answered_at
        for key, fault in failed.items():
            waiting = self._waiting.get(key)
            if not waiting:
                continue
            ask = waiting[0].ask
            negotiation = self._endpoint.negotiation
            # A batch takes long: one fault of the server's own is enough to look at the wording.
            concerns = negotiation.concerns(fault, ask, out.version, 2)
            if concerns and await negotiation.settle(ask, fault, out.version):
                continue
            if fault.kind in (Kind.FATAL, Kind.REFUSED):
                refused[key] = fault
                continue
            for attempts in waiting:
                attempts.batches_failed += 1
                attempts.beside_answers |= beside_answers
            if waiting[0].batches_failed >= LINE_TRIES:
                spent[key] = fault
        # A short request that was sent to look at the wording tells as much as an answer.
        if refused and not beside_answers and health.answered_at == before:
            key, fault = next(iter(refused.items()))
            await health.judge_refusals(fault, len(refused), self._waiting[key][0].ask)
        answers = health.answered_at is not None
        for key, fault in refused.items():
            if answers and fault.may_be_of_the_answer:
                more = [attempts.lose(self._max_attempts) for attempts in self._waiting[key]]
                if all(more):
                    continue
            if self.stopped is None:
                self._reject(key, str(fault), reason=fault.reason)
        for key, fault in spent.items():
            attempts = self._waiting[key][0]
            if attempts.beside_answers or await health.answers_a_short_one(attempts.ask):
                reason = "rate_limited" if fault.kind is Kind.THROTTLED else "endpoint_error"
                self._reject(key, str(fault), reason=reason)
                continue
            self._teacher._stop(
                f"{self._endpoint} failed every request of {attempts.batches_failed} batches, and a "
                f"short one beside them, the last with: {fault}. Everything answered is kept; run "
                "again when it answers."
            )
            return

    def _after_failure(self, out: OpenBatch, batch: Batch) -> None:
        """Make up for a batch that was refused as a whole: too much for the endpoint's queue, or for good."""
        said = self._api.why_failed(batch)
        requests = len(out.submission.requests)
        alone = len(self._out) == 1
        if is_queue_full(said) and not (alone and requests == 1):
            self._hold_until = time.monotonic() + self._limits.poll_cap_s
            if alone:
                self._batch_requests = max(1, requests // 2)
            logger.info("%s has no room for %d requests: %s", self._endpoint, requests, said)
            return
        self._teacher._stop(
            f"{self._endpoint} refused a batch of {requests} requests ({batch.id}): {said}. Mend "
            "that and run again, or run with mode=online."
        )
