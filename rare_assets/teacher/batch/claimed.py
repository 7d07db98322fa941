"""Keep the claims of a run in batches, by the keys that its asks wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rare_assets.teacher.store.claims import Claims, WaitingSaid


class ClaimedKeys:
    """The claims of one run. A claim covers an ask with all its attempts, by the key of the first one.

    Args:
        claims: of the teacher.
        say: called with a sentence for people about who is waited for.

    Attributes:
        owned: keys that this run has claimed, each with its ask's first key.
        elsewhere: keys that others have claimed, each with its ask's first key.
    """

    def __init__(self, claims: Claims, say: Callable[[str], None]) -> None:
        self._claims = claims
        self._said = WaitingSaid(say)
        self.owned: dict[bytes, bytes] = {}
        self.elsewhere: dict[bytes, bytes] = {}

    async def claim(self, first: Mapping[bytes, bytes]) -> list[bytes]:
        """Claim keys, each given with its ask's first key; returns those that are this run's now.

        Raises:
            TeacherStopped: nothing can be claimed, since the storage can't be written or read.
        """
        theirs = await self._claims.acquire(list(first.values()))
        mine = [key for key in first if first[key] not in theirs]
        self.owned.update((key, first[key]) for key in mine)
        self.elsewhere.update((key, one) for key, one in first.items() if one in theirs)
        return mine

    async def freed(self) -> list[bytes]:
        """Return the keys that others are done with, and take them out of `elsewhere`."""
        first = dict(self.elsewhere)
        taken = await self._claims.taken(first.values())
        self._said.note(taken)
        free = [key for key in first if first[key] not in taken]
        for key in free:
            self.elsewhere.pop(key, None)
        return free

    def release(self, key: bytes) -> None:
        """Give up the claim of a key, if there is one, and take the key out of `elsewhere`."""
        self.elsewhere.pop(key, None)
        if key in self.owned:
            self._claims.release([self.owned.pop(key)])

    def release_all(self) -> None:
        """Give up all claims."""
        owned, self.owned = list(self.owned.values()), {}
        if owned:
            self._claims.release(owned)
