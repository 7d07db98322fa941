"""Pack requests into a batch: one file of them, as large as the limits allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from rare_assets.teacher.attempts import Attempts
from rare_assets.teacher.batch.api import request_line
from rare_assets.teacher.batch.scratch import discard, scratch_file, writing
from rare_assets.teacher.batch.submissions import Submission
from rare_assets.teacher.dialect import Manner
from rare_assets.teacher.endpoint import Endpoint, Slot

# Requests written before other tasks have their turn.
_AT_ONCE = 1000


@dataclass(slots=True, eq=False)
class OpenBatch:
    """A batch that is being followed.

    Attributes:
        submission: the requests that it holds.
        version: of the dialect in which they were worded.
        manner: in which they were worded; None if another run handed them in.
        file: the requests, to be handed in; None if another run handed them in.
        slots: places in flight of the requests that this run hands in, by key.
    """

    submission: Submission
    version: int = 0
    manner: Manner | None = None
    file: IO[bytes] | None = None
    slots: dict[bytes, Slot] = field(default_factory=dict)

    def put_away(self, endpoint: Endpoint) -> None:
        """Give the places in flight back, and remove the file."""
        _put_away(endpoint, self.slots, self.file)


async def pack(
    endpoint: Endpoint,
    todo: dict[bytes, None],
    waiting: Mapping[bytes, Sequence[Attempts]],
    *,
    max_requests: int,
    max_bytes: int,
    not_sendable: Callable[[bytes, str], None],
) -> OpenBatch | None:
    """Write one file of requests, as large as the limits allow; None if no request may be sent.

    Args:
        endpoint: gives the places in flight, and words the requests.
        todo: keys that wait for a batch, in order; those that go into this one are removed.
        waiting: the asks that wait for each key.
        max_requests: most requests of a batch.
        max_bytes: most bytes of a batch's file.
        not_sendable: called with the key of a request that is larger than a whole file, and a sentence.

    Raises:
        TeacherStopped: there is no room for the file.
    """
    dialect = endpoint.dialect
    version, manner = dialect.version, dialect.manner
    requests: dict[bytes, int] = {}
    slots: dict[bytes, Slot] = {}
    file, size = scratch_file(), 0
    try:
        for key in list(todo):
            if key not in todo:
                # Its answer came from elsewhere while others were packed.
                continue
            attempts = waiting[key][0]
            body = dialect.body(endpoint.model, attempts.sent, attempts.made, manner)
            line = request_line(key, body)
            if len(line) > max_bytes:
                del todo[key]
                detail = f"{len(line)} bytes are more than the endpoint takes in one batch"
                not_sendable(key, detail)
                continue
            if len(requests) >= max_requests:
                break
            if size + len(line) > max_bytes:
                break
            if endpoint.wait(attempts.ask) != 0.0:
                break
            slot = endpoint.take(attempts.ask)
            if slot is None:
                break
            slots[key] = slot
            with writing():
                file.write(line)
            requests[key] = attempts.made
            del todo[key]
            size += len(line)
            if len(requests) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        with writing():
            file.flush()
    except BaseException:
        _put_away(endpoint, slots, file)
        raise
    if not requests:
        file.close()
        return None
    submission = Submission.new(endpoint.model, str(endpoint), requests)
    return OpenBatch(submission, version, manner, file, slots)


def _put_away(endpoint: Endpoint, slots: dict[bytes, Slot], file: IO[bytes] | None) -> None:
    for slot in slots.values():
        endpoint.free(slot)
    slots.clear()
    if file is not None:
        discard(file)
