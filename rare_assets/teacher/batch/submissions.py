"""Which batches have been handed in and what they hold, on durable storage beside the answers.

A submission is written before its batch is created and once more when the batch's id is known, and
removed when all its answers are stored. So a run that is killed at any moment leaves what the next
one needs to pick its batches up again. While a batch is being created its submission is written anew
every few seconds: one that does not change any more was left by a process that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, replace

from rare_assets.files.processes import is_gone, this_process
from rare_assets.teacher.store.answer_files import Folder

logger = logging.getLogger(__name__)

_NAME = re.compile(r"batch-[0-9a-f]{16}\.json")
# Endpoints keep results for no longer.
FORGET_S = 30 * 86400.0
# Between two beats of a batch that is being created, and without a new one until nobody does.
BEAT_S = 15.0
DEAD_AFTER_S = 120.0
# At most so much of the time between two looks counts, since beats may have been missed in it.
_LONGEST_LOOK_S = 2 * BEAT_S
_IN_CREATION: set[str] = set()


@dataclass(frozen=True, slots=True)
class Submission:
    """One batch: the requests it holds (answer key -> attempt) and, once created, its id.

    `host` and `pid` are for people; `process` tells who can look at it, and `beat` everybody else,
    whether its writer is alive.
    """

    name: str
    model: str
    endpoint: str
    created_at: float
    host: str
    pid: int
    requests: Mapping[bytes, int]
    batch_id: str | None = None
    process: str = ""
    beat: str = ""

    @classmethod
    def new(cls, model: str, endpoint: str, requests: Mapping[bytes, int]) -> Submission:
        """A submission of this process, its batch not yet created."""
        name = f"batch-{secrets.token_hex(8)}"
        now = round(time.time(), 3)
        host, pid = socket.gethostname(), os.getpid()
        return cls(name, model, endpoint, now, host, pid, dict(requests), process=this_process())

    def created(self, batch_id: str) -> Submission:
        """The same, its batch created."""
        return replace(self, batch_id=batch_id)

    @property
    def left(self) -> bool | None:
        """Whether its writer has left it without an id; None if only its silence can tell."""
        if self.batch_id is not None:
            return False
        if self.process and self.process == this_process():
            return self.name not in _IN_CREATION
        return is_gone(self.process) or None


class Silence:
    """For how long a submission was looked at without a change.

    Args:
        clock: seconds that go on only while this machine does; those of hosts are never compared.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: Submission | None = None
        self._looked_at = clock()
        self._seconds = 0.0

    def is_left(self, submission: Submission) -> bool:
        """Whether nobody creates the submission's batch, as it is read now."""
        now = self._clock()
        if submission == self._seen:
            self._seconds += min(now - self._looked_at, _LONGEST_LOOK_S)
        else:
            self._seen, self._seconds = submission, 0.0
        self._looked_at = now
        left = submission.left
        return self._seconds >= DEAD_AFTER_S if left is None else left


class Submissions:
    """The submissions under a folder, one JSON file each."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def save(self, submission: Submission) -> None:
        """Write a submission durably, over an earlier state of it."""
        content = asdict(submission)
        content["requests"] = {key.hex(): n for key, n in submission.requests.items()}
        content["version"] = 1
        self._folder.write(f"{submission.name}.json", json.dumps(content).encode())

    @contextlib.asynccontextmanager
    async def in_creation(
        self, submission: Submission, *, beat_s: float = BEAT_S
    ) -> AsyncIterator[None]:
        """Write a submission, and go on showing that its batch is being created."""
        _IN_CREATION.add(submission.name)
        ended = asyncio.Event()
        try:
            await asyncio.to_thread(self.save, submission)
            beating = asyncio.create_task(self._beat(submission, beat_s, ended))
            try:
                yield
            finally:
                # To its end, lest a beat is written over what follows.
                ended.set()
                await beating
        finally:
            _IN_CREATION.discard(submission.name)

    async def _beat(self, submission: Submission, beat_s: float, ended: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), beat_s)
                return
            try:
                now = replace(submission, beat=secrets.token_hex(8))
                await asyncio.to_thread(self.save, now)
            except Exception as error:  # the next one is soon
                logger.info("%s/%s.json was not renewed: %r", self._folder.root, now.name, error)

    def remove(self, submission: Submission) -> None:
        """Forget a submission; does nothing if it is gone already."""
        self._folder.delete(f"{submission.name}.json")

    def load(self, name: str) -> Submission | None:
        """One submission as it stands now; None if it is gone."""
        try:
            content = json.loads(self._folder.read_whole(f"{name}.json"))
            requests = {bytes.fromhex(key): int(n) for key, n in content["requests"].items()}
            fields = {field: content[field] for field in _FIELDS}
            fields |= {field: content.get(field, "") for field in ("process", "beat")}
            return Submission(**fields, requests=requests)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s/%s.json is no submission: %r", self._folder.root, name, error)
            return None

    def open_at(self, model: str, endpoint: str, since: float) -> dict[bytes, Submission]:
        """The requests of one endpoint that wait in batches handed in after `since`."""
        waiting: dict[bytes, Submission] = {}
        for name in self.names():
            found = self.load(name)
            if found is None or found.created_at < max(since, time.time() - FORGET_S):
                continue
            if (found.model, found.endpoint) == (model, endpoint):
                waiting |= dict.fromkeys(found.requests, found)
        return waiting

    def place_of(self, submission: Submission) -> str:
        """The file that a submission lies in."""
        return f"{self._folder.root}/{submission.name}.json"

    def names(self) -> list[str]:
        """Every submission's name."""
        return [file.removesuffix(".json") for file in sorted(self._folder.sizes(_NAME.fullmatch))]


_FIELDS = ("name", "model", "endpoint", "created_at", "host", "pid", "batch_id")
