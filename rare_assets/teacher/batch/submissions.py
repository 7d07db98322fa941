"""Keep on durable storage, beside the answers, which batches are handed in and what they hold.

A submission is written before its batch is created, once more when the batch's id is known, and removed
when all its answers are stored. So a run that is killed at any moment leaves what the next one needs to
fetch its batches. While a batch is being created, its submission is written again every 15 seconds: one that
does not change any more was left by a process that is gone.
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
from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store.folder import Folder

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
    """One batch: the requests that it holds and, once it is created, its id.

    Attributes:
        name: of the file, without its ending.
        model: the model's name at the endpoint.
        endpoint: the endpoint's name, as `endpoint_name` returns it.
        created_at: Unix time.
        host, pid: of the writer, for people.
        requests: number of the attempt by answer key.
        batch_id: the endpoint's name for the batch; None until it is created.
        process: of the writer, so that others on its machine can tell whether it is alive.
        beat: changes while the writer is alive, for all others.
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
        """Return a submission of this process, its batch not yet created."""
        name = f"batch-{secrets.token_hex(8)}"
        now = round(time.time(), 3)
        host, pid = socket.gethostname(), os.getpid()
        return cls(name, model, endpoint, now, host, pid, dict(requests), process=this_process())

    def created(self, batch_id: str) -> Submission:
        """Return the submission with the id of its batch."""
        return replace(self, batch_id=batch_id)

    @property
    def is_forgotten(self) -> bool:
        """True if it is older than 30 days, so that endpoints keep no results of it."""
        return time.time() - self.created_at > FORGET_S

    def is_of(self, model: str, endpoint: str, since: float) -> bool:
        """Return whether it was handed in at this endpoint, at the Unix time `since` or later."""
        return (self.model, self.endpoint) == (model, endpoint) and self.created_at >= since

    @property
    def left(self) -> bool | None:
        """True if its writer is gone and it has no id; None if only `Silence` can tell."""
        if self.batch_id is not None:
            return False
        if self.process and self.process == this_process():
            return self.name not in _IN_CREATION
        return is_gone(self.process) or None


class Silence:
    """Measure for how long a submission does not change.

    Args:
        clock: returns seconds of this machine; clocks of hosts are never compared.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: Submission | None = None
        self._looked_at = clock()
        self._seconds = 0.0

    def is_left(self, submission: Submission) -> bool:
        """Return whether nobody is creating the batch of a submission that was just read."""
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
        """Write a submission durably, over its earlier state."""
        content = asdict(submission)
        content["requests"] = {key.hex(): n for key, n in submission.requests.items()}
        content["version"] = 1
        self._folder.write(f"{submission.name}.json", json.dumps(content).encode())

    @contextlib.asynccontextmanager
    async def in_creation(
        self, submission: Submission, *, beat_s: float = BEAT_S
    ) -> AsyncIterator[None]:
        """Write a submission, and show others that its batch is being created until the block ends.

        Args:
            submission: without a batch's id.
            beat_s: seconds between two writes.
        """
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
        """Return a submission as it is now; None if it is gone.

        Raises:
            TeacherStopped: it is damaged, so that what was handed in with it would be paid for again.
        """
        try:
            content = json.loads(self._folder.read_whole(f"{name}.json"))
            requests = {bytes.fromhex(key): int(n) for key, n in content["requests"].items()}
            fields = {field: content[field] for field in _FIELDS}
            fields |= {field: content.get(field, "") for field in ("process", "beat")}
            return Submission(**fields, requests=requests)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TeacherStopped(
                f"{self._folder.root}/{name}.json says which requests were handed in as a batch, and is "
                f"damaged: {error!r}. They are paid for, and would be asked again. Restore the file, or "
                "remove it to ask again."
            ) from error

    def open_at(self, model: str, endpoint: str, since: float) -> dict[bytes, Submission]:
        """Return the requests that wait in batches of one endpoint, by answer key.

        Args:
            model: the model's name at the endpoint.
            endpoint: the endpoint's name.
            since: Unix time; batches handed in before do not count, nor those of which endpoints keep no
                results any more.

        Raises:
            TeacherStopped: a submission is damaged.
        """
        waiting: dict[bytes, Submission] = {}
        for name in self.names():
            found = self.load(name)
            if found is not None and not found.is_forgotten and found.is_of(model, endpoint, since):
                waiting |= dict.fromkeys(found.requests, found)
        return waiting

    def recall(
        self, model: str, endpoint: str, since: float, seen: set[str]
    ) -> dict[bytes, Submission]:
        """Return the requests that wait in batches of one endpoint, of new submissions alone.

        Whether the endpoint still has the results of an old one, it tells itself; an old one of another
        endpoint or model is removed.

        Args:
            model, endpoint, since: as of `open_at`.
            seen: names of the submissions that are known; the new ones are added.

        Raises:
            TeacherStopped: a submission is damaged.
        """
        new = [name for name in self.names() if name not in seen]
        waiting: dict[bytes, Submission] = {}
        for found in filter(None, map(self.load, new)):
            if found.is_of(model, endpoint, since):
                for key in found.requests:
                    waiting.setdefault(key, found)
            elif found.is_forgotten:
                self.remove(found)
        seen.update(new)
        return waiting

    def place_of(self, submission: Submission) -> str:
        """Return path or URL of a submission's file."""
        return f"{self._folder.root}/{submission.name}.json"

    def names(self) -> list[str]:
        """Return the names of all submissions, sorted."""
        return [file.removesuffix(".json") for file in sorted(self._folder.sizes(_NAME.fullmatch))]


_FIELDS = ("name", "model", "endpoint", "created_at", "host", "pid", "batch_id")
