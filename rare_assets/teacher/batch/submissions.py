"""Which batches have been handed in and what they hold, on durable storage beside the answers.

A submission is written before its batch is created and once more when the batch's id is known, and
removed when all its answers are stored. So a run that is killed at any moment leaves what the next
one needs to pick its batches up again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from rare_assets.files.processes import is_running
from rare_assets.teacher.store.answer_files import Folder

logger = logging.getLogger(__name__)

_NAME = re.compile(r"batch-[0-9a-f]{16}\.json")
# After so long without a batch's id, a writer on another machine counts as gone.
_CREATION_S = 900.0
_IN_CREATION: set[str] = set()


@dataclass(frozen=True, slots=True)
class Submission:
    """One batch: the requests it holds (answer key -> attempt) and, once created, its id."""

    name: str
    model: str
    endpoint: str
    created_at: float
    host: str
    pid: int
    requests: Mapping[bytes, int]
    batch_id: str | None = None

    @classmethod
    def new(cls, model: str, endpoint: str, requests: Mapping[bytes, int]) -> Submission:
        """A submission of this process, its batch not yet created."""
        name = f"batch-{secrets.token_hex(8)}"
        now = round(time.time(), 3)
        return cls(name, model, endpoint, now, socket.gethostname(), os.getpid(), dict(requests))

    def created(self, batch_id: str) -> Submission:
        """The same, its batch created."""
        return replace(self, batch_id=batch_id)

    @contextlib.contextmanager
    def in_creation(self) -> Iterator[None]:
        """Mark the batch as being created by this process."""
        _IN_CREATION.add(self.name)
        try:
            yield
        finally:
            _IN_CREATION.discard(self.name)

    @property
    def may_be_in_creation(self) -> bool:
        """Whether somebody may be creating the batch at this moment."""
        if self.batch_id is not None or time.time() - self.created_at > _CREATION_S:
            return False
        if self.host != socket.gethostname():
            return True
        if self.pid == os.getpid():
            return self.name in _IN_CREATION
        return is_running(self.pid)


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

    def remove(self, submission: Submission) -> None:
        """Forget a submission; does nothing if it is gone already."""
        self._folder.delete(f"{submission.name}.json")

    def load(self, name: str) -> Submission | None:
        """One submission as it stands now; None if it is gone."""
        try:
            content = json.loads(self._folder.read_whole(f"{name}.json"))
            requests = {bytes.fromhex(key): int(n) for key, n in content["requests"].items()}
            fields = {field: content[field] for field in _FIELDS}
            return Submission(**fields, requests=requests)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s/%s.json is no submission: %r", self._folder.root, name, error)
            return None

    def names(self) -> list[str]:
        """Every submission's name."""
        return [file.removesuffix(".json") for file in sorted(self._folder.sizes(_NAME.fullmatch))]


_FIELDS = ("name", "model", "endpoint", "created_at", "host", "pid", "batch_id")
