"""A teacher behind an OpenAI-compatible Batch API: half the price, an answer within a day.

Asks that were never answered are collected into files, handed in as batches and waited for; what a
batch brings is stored under the same keys as online answers. Unusable answers, and what an expired
or cancelled batch left open, go into the next batch. Which batches are out is on durable storage
(`submissions`), so that a run killed while it waits picks them up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice, starmap
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import SecretStr

from rare_assets.files.cache import temporary_folder
from rare_assets.teacher import wire
from rare_assets.teacher.attempts import Work, reusable
from rare_assets.teacher.batch.submissions import (
    FORGET_S,
    Silence,
    Submission,
    Submissions,
)
from rare_assets.teacher.dialect import Manner
from rare_assets.teacher.endpoint import Endpoint, Slot
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.faults import (
    Fault,
    Kind,
    fault_of,
    response_fault,
    status_fault,
)
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
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.store.claims import WaitingSaid

if TYPE_CHECKING:
    from openai.types import Batch

    from rare_assets.teacher.store.answers import AnswerStore

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# What the Batch API of OpenAI takes in one file.
MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
# Batches that a request fails in, for reasons of the endpoint, until its ask is given up.
LINE_TRIES = 3
# Batches in a row that bring no answer at all mean that something is wrong.
FRUITLESS_BATCHES = 3

_URL = "/v1/chat/completions"
_METADATA = "rare_assets_submission"
_LOOKUP = 1000
# Statuses by which an endpoint says that it has no such batch.
_GONE = (404, 410)
_ENDED = ("completed", "failed", "expired", "cancelled")
_QUEUE_FULL = re.compile(r"token_limit|enqueued|too[_ ]many|limit.{0,20}(reached|exceeded)", re.I)
_CANCEL_S = 15.0


class BatchTeacher(EndpointTeacher["_Run[Any]"]):
    """Asks a model through the endpoint's Batch API.

    Use it in one event loop, and close it (`async with`) there. Leaving the loop over `ask_all`
    early, or cancelling it, cancels the batches; what they had finished is fetched by the next run.

    Args:
        model, base_url, api_key, prices, ledger, refresh, retry_rejects, structured_output,
            extra_headers, extra_body, memory: as for `OpenAITeacher`. Costs count by the Batch API's
            price; what is found out of the endpoint, by short requests beside the batches.
        store: where answers are looked up and kept, and submissions beside them; the caller
            closes it.
        request_timeout: seconds until one call of the API (not a batch) counts as lost.
        max_cost_usd: hand nothing more in once answers cost this much, or are expected to.
        max_requests: hand in so many requests at most.
        requests_per_minute, tokens_per_minute: have no meaning for batches, and no effect.
        max_batch_requests, max_batch_bytes: the largest file that the endpoint takes.
        max_open_requests: requests in all batches together, which bounds memory.
        poll_s, poll_cap_s: first and longest pause between two looks at a batch.
        max_unusable_answers: stop after this many new answers in a row that can't be used, where
            none can; 0: never. They count together where a ledger is shared.
        patience: how long faults of the transport are put up with.
        progress_every_s: least time between two calls of `ask_all`'s `progress`.
        say: told in a sentence what is waited for, whenever that takes long; default, the log.

    Raises:
        ValueError: if the settings can't work together.
    """

    def __init__(
        self,
        *,
        model: str,
        store: AnswerStore,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        request_timeout: float = 600.0,
        max_cost_usd: float | None = None,
        max_requests: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        prices: Prices | None = None,
        ledger: Ledger | None = None,
        refresh: bool | datetime = False,
        retry_rejects: bool = False,
        max_batch_requests: int = MAX_REQUESTS,
        max_batch_bytes: int = MAX_BYTES,
        max_open_requests: int = 4 * MAX_REQUESTS,
        poll_s: float = 5.0,
        poll_cap_s: float = 60.0,
        max_unusable_answers: int = 20,
        patience: Patience | None = None,
        progress_every_s: float = 5.0,
        say: Callable[[str], None] | None = None,
        structured_output: str | None = None,
        extra_headers: Mapping[str, SecretStr] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        memory: Folder | None = None,
    ) -> None:
        if min(max_batch_requests, max_batch_bytes, max_open_requests) < 1:
            raise ValueError("The limits of a batch must be at least 1.")
        endpoint = Endpoint(
            model=model,
            base_url=base_url,
            api_key=api_key,
            max_concurrency=max_open_requests,
            requests_per_minute=None,
            tokens_per_minute=None,
            request_timeout=request_timeout,
            max_cost_usd=max_cost_usd,
            max_requests=max_requests,
            prices=prices or Prices.load(),
            patience=patience or Patience(),
            halt=self._stop,
            say=say or logger.warning,
            max_unusable_answers=max_unusable_answers,
            ledger=ledger,
            batch=True,
            structured_output=structured_output,
            extra_headers=extra_headers,
            extra_body=extra_body,
            memory=memory,
        )
        super().__init__(
            endpoint,
            refresh=refresh,
            retry_rejects=retry_rejects,
            progress_every_s=progress_every_s,
            say=say,
        )
        self._store = store
        self._submissions = Submissions(store.folder("batches"))
        # What this teacher waits for, for others on the same storage to see.
        self._published = store.claims()
        self._max_batch_requests = max_batch_requests
        self._max_batch_bytes = max_batch_bytes
        self._max_open_requests = max_open_requests
        self._poll_s = poll_s
        self._poll_cap_s = poll_cap_s
        self._halts = 0

    @property
    def usage(self) -> Usage:
        usage = super().usage
        usage.answers_unreadable = self._store.unreadable
        return usage

    async def aclose(self) -> None:
        """Cancel what is still waited for, and end the connections."""
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
        """Answer every ask; yield an Outcome as each is done, in any order.

        Reasons of an Outcome are those of `OpenAITeacher.ask_all`.

        Raises:
            TeacherStopped: the endpoint is dead or misconfigured or takes no batches, or a limit
                was reached; raised once the batches that are out have been fetched, if they can be.
        """
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts}")
        run = _Run(self, asks, use, max_attempts, progress)
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

    def _stop(self, message: str) -> None:
        self._halts += 1
        super()._stop(message)


@dataclass(slots=True, eq=False)
class _Work(Work):
    """A work with the number of batches that its present attempt has failed in, and whether any of
    them brought answers to others."""

    batches_failed: int = 0
    beside_answers: bool = False


@dataclass(slots=True, eq=False)
class _Out:
    """A batch that is being followed. `version` is of the dialect in which its requests were worded,
    `manner` the manner; None for those of another run. `slots` are of those handed in by this run."""

    submission: Submission
    version: int = 0
    manner: Manner | None = None
    file: IO[bytes] | None = None
    slots: dict[bytes, Slot] = field(default_factory=dict)


class _Refused(Exception):
    """The API refuses a call for good."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Run(Generic[T]):
    """One `ask_all`: everything between its asks and its outcomes."""

    def __init__(
        self,
        teacher: BatchTeacher,
        asks: Iterable[Ask],
        use: Use[T],
        max_attempts: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.stopped: str | None = None
        self._teacher = teacher
        self._endpoint = teacher._endpoint
        self._store = teacher._store
        self._submissions = teacher._submissions
        self._asks = iter(asks)
        self._use = use
        self._max_attempts = max_attempts
        self._progress = progress
        self._ready: deque[Outcome[T]] = deque()
        # Every key without an answer, and the works that wait for it; of these:
        self._waiting: dict[bytes, list[_Work]] = {}
        self._todo: dict[bytes, None] = {}  # in no batch, in the order in which they came
        self._held: dict[bytes, Submission] = {}  # in a stored submission
        # Of those waiting: claimed by this run (by its first key), and claimed by others.
        self._owned: dict[bytes, bytes] = {}
        self._elsewhere: set[bytes] = set()
        self._others_said = WaitingSaid(teacher._say)
        self._seen: set[str] = set()
        self._out: dict[str, _Out] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching = 0
        self._pending = 0
        self._done = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._batch_requests = teacher._max_batch_requests
        self._hold_until = 0.0
        self._fruitless = 0
        self._reporter: asyncio.Task[None] | None = None

    # ---- the consumer's side

    async def outcomes(self) -> AsyncIterator[Outcome[T]]:
        """Every outcome as it comes."""
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
            if self._elsewhere and going:
                await self._look_elsewhere()
            room = self._teacher._max_open_requests - self._pending
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
                wait = self._teacher._poll_s  # another run has all that may be open
            if self._elsewhere:
                pause = self._teacher._published.poll_s
                wait = min(wait, pause) if wait > 0 else pause
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait if wait > 0 else None)

    async def close(self) -> None:
        """End every task; what was handed in stays."""
        tasks = [*self._tasks, *([self._reporter] if self._reporter is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for out in self._out.values():
            self._put_away(out)
        self._disown(list(self._owned))

    async def cancel(self) -> None:
        """End every task and cancel the batches."""
        await self.close()
        ids = [out.submission.batch_id for out in self._out.values() if out.submission.batch_id]
        if not ids:
            return
        cancel = self._endpoint.client.batches.cancel
        try:
            async with asyncio.timeout(_CANCEL_S):
                results = await asyncio.gather(*map(cancel, ids), return_exceptions=True)
        except TimeoutError:
            results = [TimeoutError(f"no answer within {_CANCEL_S:g} s")]
        failed = [result for result in results if isinstance(result, BaseException)]
        logger.warning(
            "cancelled %d batches; the next run fetches what they have finished%s",
            len(ids) - len(failed),
            f"; {len(failed)} not: {fault_of_any(failed[0], self._endpoint)}" if failed else "",
        )

    def stop(self, message: str) -> None:
        """Hand nothing more in."""
        self.stopped = self.stopped or message
        self._changed.set()

    def report(self) -> None:
        """Call `progress` with the present state."""
        if self._progress is not None:
            usage = replace(self._teacher.usage)
            in_flight = len(self._waiting) - len(self._todo)
            self._progress(Progress(done=self._done, in_flight=in_flight, usage=usage))

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._teacher._progress_every_s)
            self.report()

    @property
    def awaits_endpoint(self) -> bool:
        """Whether something is in flight, or waits to be sent."""
        return bool(self._tasks or self._todo)

    # ---- from asks to batches

    async def _read(self, count: int) -> None:
        chunk = list(islice(self._asks, count))
        if not chunk:
            self._exhausted = True
            return
        self._pending += len(chunk)
        model = self._teacher.model
        await self._admit([_Work(ask, wire.answer_key(model, ask, 0)) for ask in chunk])

    async def _admit(self, works: list[_Work]) -> None:
        """Look attempts up in the store; those never answered wait for a batch."""
        while works:
            first: list[bytes] = []
            for work in works:
                # Claimed before the look-up, so that an answer which comes meanwhile is not missed.
                if work.key not in self._waiting:
                    self._waiting[work.key] = []
                    first.append(work.key)
                self._waiting[work.key].append(work)
            works = []
            for start in range(0, len(first), _LOOKUP):
                keys = first[start : start + _LOOKUP]
                found = await self._store.get(keys)
                found |= await self._own([key for key in keys if self._is_open(key, found)])
                given: list[tuple[_Work, Answer]] = []
                for key in keys:
                    answer = self._reusable(found.get(key), key)
                    if answer is not None:
                        for work in self._waiting[key]:
                            work.passes(found[key], self._teacher._pass_before)
                        given += self._deliver(key, answer)
                        continue
                    for work in self._waiting[key]:
                        work.sets_aside(found.get(key))
                    if spent := [work for work in self._waiting[key] if work.spent]:
                        for work in spent:
                            self._waiting[key].remove(work)
                            self._finish(
                                await work.fall_back(self._use, self._store, self._teacher.model)
                            )
                        if not self._waiting[key]:
                            del self._waiting[key]
                            continue
                        self._todo[key] = None
                    elif key in self._elsewhere:
                        continue
                    elif key in self._held:
                        self._follow(_Out(self._held[key], self._endpoint.dialect.version))
                    else:
                        self._todo[key] = None
                works += await self._judge_all(given)

    def _is_open(self, key: bytes, found: Mapping[bytes, Mapping[str, Any]]) -> bool:
        """Whether a key has no stored answer, and nobody here has claimed it yet."""
        if key in self._owned or self._reusable(found.get(key), key) is not None:
            return False
        return not all(work.spent for work in self._waiting[key])

    async def _own(self, keys: list[bytes]) -> dict[bytes, dict[str, Any]]:
        """Claim what is asked for. Returns what has been stored, or handed in, meanwhile."""
        if not keys:
            return {}
        first = {key: self._waiting[key][0].first_key for key in keys}
        theirs = await self._teacher._published.acquire(list(first.values()))
        mine = [key for key in keys if first[key] not in theirs]
        self._owned.update((key, first[key]) for key in mine)
        self._elsewhere.update(key for key in keys if first[key] in theirs)
        await self._recall()
        return await self._store.get(mine)

    def _disown(self, keys: Iterable[bytes]) -> None:
        """Let others ask for these."""
        owned = [self._owned.pop(key) for key in keys if key in self._owned]
        if owned:
            self._teacher._published.release(owned)

    async def _look_elsewhere(self) -> None:
        """Take up again what others have been asking for and are done with."""
        first = {key: self._waiting[key][0].first_key for key in self._elsewhere}
        taken = await self._teacher._published.taken(first.values())
        self._others_said.note(taken)
        works: list[_Work] = []
        for key in [key for key in first if first[key] not in taken]:
            self._elsewhere.discard(key)
            works += self._waiting.pop(key, ())
        await self._admit(works)

    def _reusable(self, record: Mapping[str, Any] | None, key: bytes) -> Answer | None:
        return reusable(record, self._teacher._ignore_before, self._ask_of(key))

    def _ask_of(self, key: bytes) -> Ask | None:
        """The ask that waits for a key; None if it was handed in by another run alone."""
        works = self._waiting.get(key)
        return works[0].ask if works else None

    async def _recall(self) -> None:
        """Learn which batches are out, of earlier runs and of others that go on at this moment."""
        for name in await asyncio.to_thread(self._submissions.names):
            if name in self._seen:
                continue
            self._seen.add(name)
            submission = await asyncio.to_thread(self._submissions.load, name)
            if submission is None:
                continue
            if time.time() - submission.created_at > FORGET_S:
                await asyncio.to_thread(self._submissions.remove, submission)
                continue
            same = (submission.model, submission.endpoint) == (
                self._teacher.model,
                str(self._endpoint),
            )
            if same and submission.created_at >= self._teacher._ignore_before:
                for key in submission.requests:
                    self._held.setdefault(key, submission)
        for key in [key for key in self._todo if key in self._held]:
            del self._todo[key]
            self._follow(_Out(self._held[key], self._endpoint.dialect.version))

    async def _hand_in(self) -> bool:
        """Hand in what waits, in as many batches as it takes; False if nothing could be."""
        before = len(self._todo)
        await self._recall()
        while self._todo and self.stopped is None:
            out = await self._pack()
            if out is None:
                break
            self._follow(out)
        return len(self._todo) < before

    async def _pack(self) -> _Out | None:
        """One file of requests, as large as the limits allow; None if no request may be sent."""
        dialect = self._endpoint.dialect
        version, manner = dialect.version, dialect.manner
        file: IO[bytes] = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115 (open until it is handed in)
        requests: dict[bytes, int] = {}
        slots: dict[bytes, Slot] = {}
        size = 0
        for key in list(self._todo):
            work = self._waiting[key][0]
            line = _request_line(
                key, dialect.body(self._teacher.model, work.sent, work.attempts, manner)
            )
            if len(line) > self._teacher._max_batch_bytes:
                del self._todo[key]
                detail = f"{len(line)} bytes are more than the endpoint takes in one batch"
                self._reject(key, "not_sendable", detail)
                continue
            if len(requests) >= self._batch_requests:
                break
            if size + len(line) > self._teacher._max_batch_bytes:
                break
            if self._endpoint.wait(work.ask) != 0.0:
                break
            slot = self._endpoint.take(work.ask)
            if slot is None:
                break
            slots[key] = slot
            requests[key] = work.attempts
            del self._todo[key]
            file.write(line)
            size += len(line)
            if len(requests) % _LOOKUP == 0:
                await asyncio.sleep(0)
        if not requests:
            file.close()
            return None
        submission = Submission.new(self._teacher.model, str(self._endpoint), requests)
        self._seen.add(submission.name)
        return _Out(submission, version, manner, file, slots)

    # ---- batches

    def _follow(self, out: _Out) -> None:
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
        if error is not None and not isinstance(error, TeacherStopped):
            self._error = self._error or error
        self._changed.set()

    async def _see_through(self, out: _Out) -> None:
        """From a file of requests, or a stored submission, to stored answers."""
        mine = out.file is not None
        batch = await self._awaited(out)
        self._fetching += 1
        try:
            if batch is not None:
                await self._fetch(out, batch, mine=mine)
            await asyncio.to_thread(self._submissions.remove, out.submission)
            self._put_away(out)
            del self._out[out.submission.name]
            left: list[_Work] = []
            for key in out.submission.requests:
                if self._held.get(key) is out.submission:
                    del self._held[key]
                left += self._waiting.pop(key, ())
            await self._admit(left)
        finally:
            self._fetching -= 1

    def _put_away(self, out: _Out) -> None:
        for slot in out.slots.values():
            self._endpoint.free(slot)
        out.slots = {}
        if out.file is not None:
            out.file.close()

    async def _awaited(self, out: _Out) -> Batch | None:
        """The ended batch; None if there is none, and its requests are to be looked up anew."""
        try:
            if out.file is not None:
                await self._create(out, out.file)
            elif out.submission.batch_id is None and not await self._find_again(out):
                return None
        except _Refused as refused:
            requests = len(out.submission.requests)
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
        pause = self._teacher._poll_s
        while True:
            try:
                batch = await self._call(lambda: self._client.batches.retrieve(batch_id))
            except _Refused as refused:
                if refused.fault.status not in _GONE:
                    self._teacher._stop(
                        f"{self._endpoint}: what became of batch {batch_id} can't be told: "
                        f"{refused.fault}. It is kept, and looked for by the next run."
                    )
                    raise TeacherStopped(self.stopped or "") from refused
                logger.warning("batch %s is gone: %s", batch_id, refused.fault)
                self._count_fruitless(batch_id, "being unknown to the endpoint")
                return None
            if batch.status in _ENDED:
                return batch
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))
            pause = min(self._teacher._poll_cap_s, 1.5 * pause)

    async def _create(self, out: _Out, file: IO[bytes]) -> None:
        async with self._submissions.in_creation(out.submission):
            out.submission = out.submission.created(await self._create_batch(out.submission, file))
        await asyncio.to_thread(self._submissions.save, out.submission)
        logger.info(
            "handed in %d requests as batch %s",
            len(out.submission.requests),
            out.submission.batch_id,
        )

    async def _create_batch(self, submission: Submission, file: IO[bytes]) -> str:
        """Returns the batch's id."""

        async def upload() -> str:
            file.seek(0)
            name = f"{submission.name}.jsonl"
            return (await self._client.files.create(file=(name, file), purpose="batch")).id

        file_id = await self._call(upload)
        tried = False

        async def create() -> str:
            nonlocal tried
            # A request whose answer was lost may have been heard.
            if tried and (batch_id := await self._id_of(submission)):
                return batch_id
            tried = True
            batch = await self._client.batches.create(
                input_file_id=file_id,
                endpoint=_URL,
                completion_window="24h",
                metadata={_METADATA: submission.name},
            )
            return batch.id

        return await self._call(create)

    async def _find_again(self, out: _Out) -> bool:
        """Whether a submission stored without its batch's id has one; its writer may be at it."""
        submission, silence = out.submission, Silence()
        while submission.batch_id is None and not silence.is_left(submission):
            await asyncio.sleep(self._teacher._poll_s)
            now = await asyncio.to_thread(self._submissions.load, submission.name)
            if now is None:
                return False
            submission = now
        if submission.batch_id is None:
            found = await self._call(lambda: self._id_of(submission))
            if found is None:
                return False
            submission = submission.created(found)
            await asyncio.to_thread(self._submissions.save, submission)
        out.submission = submission
        return True

    async def _id_of(self, submission: Submission) -> str | None:
        """The batch that was created for a submission, if it was."""
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_METADATA) == submission.name:
                return batch.id
            if batch.created_at < submission.created_at - 3600:  # newest first; clocks differ
                break
        return None

    # ---- results

    async def _fetch(self, out: _Out, batch: Batch, *, mine: bool) -> None:
        """Store and deliver all that a batch has brought."""
        if batch.status == "failed":
            self._after_failure(out, batch)
            return
        useful = 0
        before = self._endpoint.health.answered_at
        failed: dict[bytes, Fault] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            with tempfile.TemporaryFile(dir=temporary_folder()) as file:
                try:
                    await self._call(lambda i=file_id, f=file: self._download(i, f))  # type: ignore[misc]
                except _Refused as refused:  # the rest is asked again
                    logger.warning("file %s can't be fetched: %s", file_id, refused.fault)
                    continue
                file.seek(0)
                while lines := list(islice(file, _LOOKUP)):
                    useful += await self._take(out, lines, failed, mine=mine)
        answered = self._endpoint.health.answered_at != before
        await self._after_faults(out, failed, beside_answers=answered)
        if useful:
            self._fruitless = 0
        else:
            self._count_fruitless(batch.id, str(batch.status))

    def _count_fruitless(self, batch_id: str, status: str) -> None:
        """Stop after some batches in a row that brought nothing: each may have cost something."""
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_BATCHES:
            self._teacher._stop(
                f"{self._endpoint}: {self._fruitless} batches in a row brought no answer, the last "
                f"({batch_id}) ended as {status}. Run again later, or with mode=online."
            )

    async def _download(self, file_id: str, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        async with self._client.files.with_streaming_response.content(file_id) as response:
            async for part in response.iter_bytes(1 << 20):
                file.write(part)

    async def _take(
        self, out: _Out, lines: list[bytes], failed: dict[bytes, Fault], *, mine: bool
    ) -> int:
        """Take in some lines of a result file, the faults into `failed`; returns how many lines
        say anything."""
        latency = round(time.time() - out.submission.created_at, 3)
        results: dict[bytes, Answer | Fault | None] = {}
        for line in lines:
            key, result = self._read_line(out.submission, line, latency)
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
        given: list[tuple[_Work, Answer]] = []
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
        return sum(result is not None for result in results.values())

    def _read_line(
        self, submission: Submission, line: bytes, latency: float
    ) -> tuple[bytes, Answer | Fault | None]:
        """Key and result of a line; None as result where the batch ended before the request."""
        redact = self._endpoint.redact
        try:
            content = wire.parse_json(line)
            key = bytes.fromhex(content["custom_id"])
            error, response = content.get("error"), content.get("response")
            if error and error.get("code") in ("batch_expired", "batch_cancelled"):
                return key, None
            if not response:
                return key, replace(response_fault(500, error, redact), status=None)
            status, body = int(response.get("status_code") or 200), response.get("body")
            if isinstance(body, str) and status == 200:
                body = wire.parse_json(body.encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("a result of a batch is not readable: %r", redact(str(line[:200])))
            return b"", None
        if status != 200:
            return key, response_fault(status, body, redact)
        attempt = submission.requests.get(key, 0)
        ask = self._ask_of(key)
        return key, self._endpoint.read(body, attempt=attempt, latency_s=latency, ask=ask)

    def _deliver(
        self, key: bytes, answer: Answer, *, new: bool = False
    ) -> Iterator[tuple[_Work, Answer]]:
        """Give an answer to all that wait for it: each with the answer as it gets it."""
        self._todo.pop(key, None)
        self._elsewhere.discard(key)
        self._disown([key])
        for work in self._waiting.pop(key, ()):
            given = answer if new else replace(answer, reused=True)
            if not new:
                self._endpoint.count_reused(given)
            new = False  # it was paid for once
            yield work, given

    async def _judge_all(self, given: list[tuple[_Work, Answer]]) -> list[_Work]:
        """Judge answers side by side; returns the works that need another attempt."""
        done = await asyncio.gather(*starmap(self._judge, given))
        return [work for (work, _), settled in zip(given, done, strict=True) if not settled]

    async def _judge(self, work: _Work, answer: Answer) -> bool:
        """Whether the work has its outcome with this answer; else it is ready for one more."""
        work.batches_failed, work.beside_answers = 0, False
        try:
            outcome = await work.judge(answer, self._use, self._teacher.model, self._max_attempts)
        except TeacherStopped as stopped:
            # Whoever judges can't go on; what else is in flight is paid for and must be stored.
            self._teacher._stop(str(stopped))
            return True
        if not answer.reused:
            self._endpoint.brake.judged(answer, work.unusable)
        if outcome is None:
            return False
        self._finish(outcome)
        return True

    def _reject(self, key: bytes, reason: str, detail: str) -> None:
        self._disown([key])
        for work in self._waiting.pop(key, ()):
            self._finish(work.failed(reason, detail))

    def _finish(self, outcome: Outcome[T]) -> None:
        self._pending -= 1
        self._done += 1
        self._ready.append(outcome)
        self._changed.set()

    # ---- faults

    async def _after_faults(
        self, out: _Out, failed: Mapping[bytes, Fault], *, beside_answers: bool
    ) -> None:
        """What to do with requests that their batch could not answer; by default they go again."""
        refused: dict[bytes, Fault] = {}
        spent: dict[bytes, Fault] = {}
        health = self._endpoint.health
        before = health.answered_at
        for key, fault in failed.items():
            works = self._waiting.get(key)
            if not works:
                continue
            ask = works[0].ask
            negotiation = self._endpoint.negotiation
            # A batch takes long: one fault of the server's own is enough to look at the wording.
            concerns = negotiation.concerns(fault, ask, out.version, 2)
            if concerns and await negotiation.settle(ask, fault, out.version):
                continue
            if fault.kind in (Kind.FATAL, Kind.REFUSED):
                refused[key] = fault
                continue
            for work in works:
                work.batches_failed += 1
                work.beside_answers |= beside_answers
            if works[0].batches_failed >= LINE_TRIES:
                spent[key] = fault
        # A short request that was sent to look at the wording tells as much as an answer.
        if refused and not beside_answers and health.answered_at == before:
            key, fault = next(iter(refused.items()))
            await health.judge_refusals(fault, len(refused), self._waiting[key][0].ask)
        answers = health.answered_at is not None
        for key, fault in refused.items():
            if answers and fault.may_be_of_the_answer:
                attempts = [work.lose(self._max_attempts) for work in self._waiting[key]]
                if all(attempts):
                    continue
            if self.stopped is None:
                self._reject(key, fault.reason, str(fault))
        for key, fault in spent.items():
            work = self._waiting[key][0]
            if work.beside_answers or await health.answers_a_short_one(work.ask):
                throttled = fault.kind is Kind.THROTTLED
                self._reject(key, "rate_limited" if throttled else "endpoint_error", str(fault))
                continue
            self._teacher._stop(
                f"{self._endpoint} failed every request of {work.batches_failed} batches, and a "
                f"short one beside them, the last with: {fault}. Everything answered is kept; run "
                "again when it answers."
            )
            return

    def _after_failure(self, out: _Out, batch: Batch) -> None:
        """A batch that was refused as a whole: too much for the endpoint's queue, or for good."""
        errors = (batch.errors.data if batch.errors else None) or []
        said = "; ".join(
            f"{error.code}: {error.message}" + (f" (line {error.line})" if error.line else "")
            for error in errors[:3]
        )
        said = self._endpoint.redact(said)[:600] or "it gave no reason"
        requests = len(out.submission.requests)
        alone = len(self._out) == 1
        no_room = _QUEUE_FULL.search(said) and status_fault(429, said).kind is not Kind.FATAL
        if no_room and not (alone and requests == 1):
            self._hold_until = time.monotonic() + self._teacher._poll_cap_s
            if alone:
                self._batch_requests = max(1, requests // 2)
            logger.info("%s has no room for %d requests: %s", self._endpoint, requests, said)
            return
        self._teacher._stop(
            f"{self._endpoint} refused a batch of {requests} requests ({batch.id}): {said}. Mend "
            "that and run again, or run with mode=online."
        )

    @property
    def _client(self) -> Any:
        return self._endpoint.client

    async def _call(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call the API, with patience. Raises TeacherStopped at its end, _Refused where none helps."""
        tries = Tries()
        while True:
            try:
                result = await call()
            except Exception as error:
                fault = fault_of(error, self._endpoint.redact)
            else:
                self._endpoint.health.reached()
                return result
            if fault.status in (401, 403, 407):
                fault = replace(fault, kind=Kind.FATAL)
            if fault.kind is Kind.REFUSED:
                raise _Refused(fault)
            halts = self._teacher._halts
            fate = await self._endpoint.health.after(fault, tries, None)
            if isinstance(fate, str) and self._teacher._halts == halts:
                self._teacher._stop(
                    f"{self._endpoint} failed again and again: {fault}. The batches that are out "
                    "stay; run again to fetch them."
                )
            if isinstance(fate, str) or self._teacher._halts > halts:
                raise TeacherStopped(self.stopped or str(fault))
            await asyncio.sleep(fate)


def fault_of_any(error: BaseException, endpoint: Endpoint) -> str:
    """What an error of the API says, free of the key."""
    if isinstance(error, Exception):
        return str(fault_of(error, endpoint.redact))
    return type(error).__name__


def _request_line(key: bytes, body: Mapping[str, Any]) -> bytes:
    line = {"custom_id": key.hex(), "method": "POST", "url": _URL, "body": body}
    return json.dumps(line).encode() + b"\n"
