"""Know which asks wait in a batch: they are paid for, and asking online would pay for them again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from rare_assets.teacher.batch.submissions import Submission, Submissions
from rare_assets.teacher.interface import TeacherStopped


class HandedIn:
    """What waits in the batches of one endpoint.

    Args:
        submissions: of the storage; None if nobody hands in batches.
        model: the model's name at the endpoint.
        endpoint: the endpoint's name.
        since: Unix time; batches handed in before do not count.
    """

    def __init__(
        self, submissions: Submissions | None, model: str, endpoint: str, since: float
    ) -> None:
        self._submissions = submissions
        self._model = model
        self._endpoint = endpoint
        self._since = since
        self._looking: asyncio.Future[dict[bytes, Submission]] | None = None
        self._waiting: dict[bytes, Submission] = {}

    async def look_up(self) -> None:
        """Look the batches up; does so once, since a judge of answers asks for each verdict by itself."""
        if self._submissions is None:
            return
        if self._looking is None:
            where = (self._model, self._endpoint, self._since)
            self._looking = asyncio.ensure_future(
                asyncio.to_thread(self._submissions.open_at, *where)
            )
        # One run that is closed takes the look-up from no other.
        self._waiting = await asyncio.shield(self._looking)

    @property
    def is_empty(self) -> bool:
        """True if nothing was found to wait."""
        return not self._waiting

    def __contains__(self, key: bytes) -> bool:
        """Return whether the answer of this key was found to wait."""
        return key in self._waiting

    def require_none_of(self, keys: Iterable[bytes]) -> None:
        """Raise TeacherStopped if answers of these keys wait in a batch: they are paid for."""
        asked = list(keys)
        found = [self._waiting[key] for key in asked if key in self._waiting]
        if found and self._submissions is not None:
            first = found[0]
            raise TeacherStopped(
                f"{len(found):,} of the first {len(asked):,} asks wait in batch {first.batch_id or first.name} at "
                f"{self._endpoint}, handed in {time.ctime(first.created_at)}: their answers are paid for. "
                "Run with mode=batch to fetch them, or with refresh to ask anew, or remove "
                f"{self._submissions.place_of(first)} if the batch is gone."
            )
