"""Stop asking a teacher whose answers can't be used, before they cost more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rare_assets.teacher.interface import Answer, Unusable
from rare_assets.teacher.ledger import Ledger

_SHOWN = 3
_SHOWN_LENGTH = 300


class Brake:
    """Stop after a number of new answers of which none could be used.

    The ledger counts them, for all steps that share it: the shards of one `rare-assets run` or backfill. The
    first usable answer takes the brake off.

    Args:
        ledger: counts usable and unusable answers.
        most: unusable answers until it stops; 0: never.
        halt: called with one message for people.
        name: the endpoint, for people.
        redact: takes the API key out of what is shown.
    """

    def __init__(
        self,
        ledger: Ledger,
        most: int,
        *,
        halt: Callable[[str], None],
        name: str,
        redact: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._most = most
        self._halt = halt
        self._name = name
        self._redact = redact
        self._off = most == 0
        self._looked = False
        self._last: deque[str] = deque(maxlen=_SHOWN)

    def holds(self) -> bool:
        """Return whether nothing may be sent, since earlier answers were all unusable."""
        if self._off or self._looked:
            return False
        self._looked = True
        return self._decide(*self._ledger.judged())

    def judged(self, answer: Answer, unusable: Unusable | None) -> None:
        """Count a new answer; `unusable` tells why it could not be used, None if it could."""
        if self._off:
            return
        if unusable is None:
            self._off = True
            self._ledger.judged(usable=1)
            return
        raw = self._redact(answer.raw or answer.refusal or "")
        shown = raw[:_SHOWN_LENGTH] + ("..." if len(raw) > _SHOWN_LENGTH else "")
        self._last.append(f"{unusable.reason} (finish_reason {answer.finish_reason}): {shown!r}")
        self._decide(*self._ledger.judged(unusable=1))

    def _decide(self, usable: int, unusable: int) -> bool:
        self._off = self._off or usable > 0
        if self._off or unusable < self._most:
            return False
        last = "".join(f"\n  {each}" for each in self._last)
        self._halt(
            f"{self._name} gave {unusable} answers in a row of which none can be used, so nothing "
            "more is asked (RARE_MAX_UNUSABLE_ANSWERS). Check RARE_MODEL, the prompts and the options "
            f"of the run.{' The last answers:' if last else ''}{last}"
        )
        return True
