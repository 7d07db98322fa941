"""One ask on its way to an outcome, attempt by attempt: the same whether asked online or in batches."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeVar

from rare_assets.resources.teacher import wire
from rare_assets.resources.teacher.interface import Answer, Ask, Outcome, Unusable, Use

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Work:
    """An ask with what it has come to so far; `key` is that of its present attempt, `first_key` that
    of its first one, under which the ask is claimed with all its attempts. `unusable` says what was
    wrong with the last answer, None if it was used."""

    ask: Ask
    key: bytes
    first_key: bytes = b""
    attempt: int = 0
    answer: Answer | None = None
    unusable: Unusable | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __post_init__(self) -> None:
        self.first_key = self.first_key or self.key

    async def judge(
        self, answer: Answer, use: Use[T], model: str, max_attempts: int
    ) -> Outcome[T] | None:
        """The outcome with this answer; None if it can't be used and one more attempt is left,
        whose key is then set. Errors of `use` but Unusable pass through."""
        self.answer = answer
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.attempt += 1
        self.unusable = None
        try:
            value = await settled(use(self.ask, answer))
        except Unusable as unusable:
            self.unusable = unusable
            if self.attempt >= max_attempts:
                return self.failed(unusable.reason, unusable.detail)
            self.key = wire.answer_key(model, self.ask, self.attempt)
            return None
        return self._outcome(value, None, None)

    def failed(self, reason: str, detail: str) -> Outcome[Any]:
        """The outcome without a value."""
        return self._outcome(None, reason, detail)

    def _outcome(self, value: T | None, reason: str | None, detail: str | None) -> Outcome[T]:
        return Outcome(
            ask=self.ask,
            value=value,
            answer=self.answer,
            attempts=self.attempt,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            reason=reason,
            detail=detail,
        )


async def settled(value: T | Awaitable[T]) -> T:
    """What a `Use` gave, once it is there."""
    return await value if isawaitable(value) else value


def reusable(record: Mapping[str, Any] | None, since: float, ask: Ask | None) -> Answer | None:
    """A stored answer to `ask`, unless there is none, it is older than `since`, or it can't be read."""
    if record is None or record.get("answered_at", 0.0) < since:
        return None
    try:
        return wire.answer_from_record(record, ask)
    except KeyError:
        return None
