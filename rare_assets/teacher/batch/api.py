"""Call a Batch API, with patience for its faults."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.batch.limits import BatchLimits
from rare_assets.teacher.batch.scratch import discard, scratch_file, writing
from rare_assets.teacher.batch.submissions import FORGET_S, Silence, Submission, Submissions
from rare_assets.teacher.endpoint import Endpoint
from rare_assets.teacher.endpoint_teacher import EndpointTeacher
from rare_assets.teacher.faults import Fault, Kind, fault_of, response_fault, status_fault
from rare_assets.teacher.health import Tries
from rare_assets.teacher.interface import Answer, Ask, TeacherStopped

if TYPE_CHECKING:
    from openai.types import Batch

R = TypeVar("R")

logger = logging.getLogger(__name__)

_URL = "/v1/chat/completions"
_METADATA = "rare_assets_submission"
_CANCEL_S = 15.0
_QUEUE_FULL = re.compile(r"token_limit|enqueued|too[_ ]many|limit.{0,20}(reached|exceeded)", re.I)
# How endpoints say that a batch has ended, and what that is in OpenAI's words.
_ENDED = {
    **dict.fromkeys(("completed", "complete", "succeeded", "success", "done"), "completed"),
    **dict.fromkeys(("expired", "timeout", "timed_out", "timeout_exceeded"), "expired"),
    **dict.fromkeys(("cancelled", "canceled"), "cancelled"),
    "failed": "failed",
}
# Looks at what an endpoint says it does not have: what it has just made may not be seen everywhere yet.
_LOOKS = 4


class Refused(Exception):
    """The API refuses a call for good.

    Attributes:
        fault: what it said.
        gone: True if it says that there is no such thing; it may exist after any other refusal.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.gone = fault.status in (404, 410)


class BatchApi:
    """Hand requests in as batches, and fetch their results.

    Args:
        teacher: its endpoint is called; it is stopped when patience ends.
        submissions: where batches are noted.
        limits: tells how often a batch is looked at.
    """

    def __init__(
        self, teacher: EndpointTeacher[Any, Any], submissions: Submissions, limits: BatchLimits
    ) -> None:
        self._teacher = teacher
        self._endpoint = teacher._endpoint
        self._submissions = submissions
        self._limits = limits

    async def hand_in(self, submission: Submission, file: IO[bytes]) -> Submission:
        """Hand a file of requests in; returns the submission with its batch's id.

        Raises:
            Refused: the endpoint does not take the batch.
            TeacherStopped: it can't be reached.
        """
        async with self._submissions.in_creation(submission):
            submission = submission.created(await self._create(submission, file))
        await asyncio.to_thread(self._submissions.save, submission)
        logger.info(
            "handed in %d requests as batch %s", len(submission.requests), submission.batch_id
        )
        return submission

    async def find_again(self, submission: Submission) -> Submission | None:
        """Return a submission, stored without its batch's id, with the id; None if it has no batch.

        Waits for its writer, which may be creating the batch at this moment.

        Raises:
            Refused: the endpoint does not list its batches.
            TeacherStopped: it can't be reached.
        """
        silence = Silence()
        while submission.batch_id is None and not silence.is_left(submission):
            await asyncio.sleep(self._limits.poll_s)
            now = await asyncio.to_thread(self._submissions.load, submission.name)
            if now is None:
                return None
            submission = now
        if submission.batch_id is None:
            try:
                found = await self.call(lambda: self._id_of(submission))
            except Refused as refused:
                refused.gone = False  # there is no list; the batch may exist
                raise
            if found is None:
                return None
            submission = submission.created(found)
            await asyncio.to_thread(self._submissions.save, submission)
        return submission

    async def _create(self, submission: Submission, file: IO[bytes]) -> str:
        """Return the id of a new batch."""

        async def upload() -> str:
            file.seek(0)
            name = f"{submission.name}.jsonl"
            return (await self._client.files.create(file=(name, file), purpose="batch")).id

        file_id = await self.call(upload)
        tried = False

        async def created() -> str:
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

        return await self.call(created)

    async def _id_of(self, submission: Submission) -> str | None:
        """Return the batch that was created for a submission, if it was."""
        newest = None
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_METADATA) == submission.name:
                return batch.id
            # By the endpoint's own clock, since that of a writer may be days ahead.
            newest = batch.created_at if newest is None else newest
            if batch.created_at < newest - FORGET_S:
                break
        return None

    async def ended(self, batch_id: str) -> Batch:
        """Wait until a batch has ended, and return it, its status in OpenAI's words.

        Raises:
            Refused: the endpoint does not tell, or has no such batch.
            TeacherStopped: it can't be reached.
        """
        pause = self._limits.poll_s
        while True:
            batch: Batch = await self._made(lambda: self._client.batches.retrieve(batch_id))
            if (status := _ending(batch)) is not None:
                return batch.model_copy(update={"status": status})
            self._endpoint.keep_reserved()
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))
            pause = min(self._limits.poll_cap_s, 1.5 * pause)

    def why_failed(self, batch: Batch) -> str:
        """Return what the endpoint says of a batch that it refused as a whole, without the API key."""
        errors = (batch.errors.data if batch.errors else None) or []
        said = "; ".join(
            f"{error.code}: {error.message}" + (f" (line {error.line})" if error.line else "")
            for error in errors[:3]
        )
        return self._endpoint.redact(said)[:600] or "it gave no reason"

    async def result_lines(self, batch: Batch, at_once: int) -> AsyncGenerator[list[bytes], None]:
        """Yield the lines of a batch's result files, up to `at_once` at a time.

        The file of errors, which holds no answer, is left out with a warning if the endpoint does not give it.

        Raises:
            Refused: the endpoint does not give the file of answers.
            TeacherStopped: it can't be reached, or there is no room for the file.
        """
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            file = scratch_file()
            try:
                await self._made(partial(self._copy, file_id, file))
                file.seek(0)
                while lines := list(islice(file, at_once)):
                    yield lines
            except Refused as refused:
                if file_id == batch.output_file_id:
                    raise
                logger.warning("file %s can't be fetched: %s", file_id, refused.fault)
            finally:
                discard(file)

    async def _copy(self, file_id: str, file: IO[bytes]) -> None:
        with writing():
            file.seek(0)
            file.truncate()
        async with self._client.files.with_streaming_response.content(file_id) as response:
            async for part in response.iter_bytes(1 << 20):
                with writing():
                    file.write(part)
        with writing():
            file.flush()

    def read_line(
        self,
        submission: Submission,
        line: bytes,
        latency: float,
        ask_of: Callable[[bytes], Ask | None],
    ) -> tuple[bytes, Answer | Fault | None]:
        """Return the key and the result of a line; the result is None if the batch ended before the request.

        A line that can't be read has an empty key.

        Args:
            submission: of the batch.
            line: of a result file.
            latency: seconds from the submission until now.
            ask_of: returns the ask that waits for a key; None if there is none.
        """
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
        ask = ask_of(key)
        return key, self._endpoint.read(body, attempt=attempt, latency_s=latency, ask=ask)

    async def cancel(self, batch_ids: Iterable[str]) -> None:
        """Cancel batches, as far as the endpoint answers within some seconds."""
        ids = list(batch_ids)
        if not ids:
            return
        cancel = self._client.batches.cancel
        try:
            async with asyncio.timeout(_CANCEL_S):
                results = await asyncio.gather(*map(cancel, ids), return_exceptions=True)
        except TimeoutError:
            results = [TimeoutError(f"no answer within {_CANCEL_S:g} s")]
        failed = [result for result in results if isinstance(result, BaseException)]
        logger.warning(
            "cancelled %d batches; the next run fetches what they have finished%s",
            len(ids) - len(failed),
            f"; {len(failed)} not: {_said_by(failed[0], self._endpoint)}" if failed else "",
        )

    @property
    def _client(self) -> Any:
        return self._endpoint.client

    async def _made(self, look: Callable[[], Awaitable[R]]) -> R:
        """Call for what the endpoint has made, and call again before it is believed not to have it."""
        pause = self._limits.poll_s
        for _ in range(_LOOKS - 1):
            try:
                return await self.call(look)
            except Refused as refused:
                if not refused.gone:
                    raise
            await asyncio.sleep(pause)
            pause = min(self._limits.poll_cap_s, 1.5 * pause)
        return await self.call(look)

    async def call(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call the API, and repeat the call while that may help.

        Raises:
            Refused: the endpoint refuses the call for good.
            TeacherStopped: it failed for longer than patience lasts.
        """
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
                raise Refused(fault)
            halts = self._teacher._halts
            fate = await self._endpoint.health.retry_delay(fault, tries, None)
            if isinstance(fate, str) and self._teacher._halts == halts:
                self._teacher._stop(
                    f"{self._endpoint} failed again and again: {fault}. The batches that are out "
                    "stay; run again to fetch them."
                )
            if isinstance(fate, str) or self._teacher._halts > halts:
                raise TeacherStopped(str(fault))
            await asyncio.sleep(fate)


def _ending(batch: Batch) -> str | None:
    """Return how a batch has ended; None while it is under way."""
    status = _ENDED.get(str(batch.status).lower())
    at = {
        "completed": batch.completed_at,
        "failed": batch.failed_at,
        "expired": batch.expired_at,
        "cancelled": batch.cancelled_at,
    }
    return status or next((word for word, time in at.items() if time), None)


def _said_by(error: BaseException, endpoint: Endpoint) -> str:
    """Return what an error of the API says, without the API key."""
    if isinstance(error, Exception):
        return str(fault_of(error, endpoint.redact))
    return type(error).__name__


def is_queue_full(said: str) -> bool:
    """Return whether a batch was refused for lack of room in the endpoint's queue, by what it says.

    Example:
        >>> is_queue_full("Enqueued token limit reached for a-model")
        True
    """
    return bool(_QUEUE_FULL.search(said)) and status_fault(429, said).kind is not Kind.FATAL


def request_line(key: bytes, body: Mapping[str, Any]) -> bytes:
    """Return a request as a line of a batch's file, as OpenAI's Batch API defines it.

    Args:
        key: of the answer; returned as `custom_id` with the result.
        body: the request's JSON.
    """
    line = {"custom_id": key.hex(), "method": "POST", "url": _URL, "body": body}
    return json.dumps(line).encode() + b"\n"
