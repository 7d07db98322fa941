"""One ask on its way to an outcome, attempt by attempt: the same whether asked online or in batches."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from itertools import count
from typing import Any, Protocol, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.interface import Answer, Ask, Outcome, Unusable, Use

T = TypeVar("T")

# When a stored answer was found to be better than one that was asked for anew.
KEPT_AT = "kept_at"
_AGAIN = "An earlier answer to this could not be used. {} Answer again, without that fault."


class Records(Protocol):
    """The stored answers as an attempt needs them."""

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]: ...

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None: ...


@dataclass(slots=True, eq=False)
class Work:
    """An ask with what it has come to so far; `key` is that of its present attempt, `first_key` that
    of its first one, under which the ask is claimed with all its attempts. `unusable` says what was
    wrong with the last answer, None if it was used."""

    ask: Ask
    key: bytes
    first_key: bytes = b""
    attempt: int = 0
    # Attempts that brought nothing to store, so that no key is theirs.
    lost: int = 0
    answer: Answer | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    # Why the last answer could not be used, and whether no more may be asked for: then only answers
    # that are stored already are looked at, since a usable one wins whatever the number of attempts.
    unusable: Unusable | None = None
    spent: bool = False
    # Stored answers that do not count as attempts (`retry_rejects`).
    passed: int = 0
    # Stored answers with their keys that are asked for anew (`refresh`), in the order of their attempts.
    earlier: dict[bytes, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_key = self.first_key or self.key

    async def judge(
        self, answer: Answer, use: Use[T], model: str, max_attempts: int
    ) -> Outcome[T] | None:
        """The outcome with this answer; None if it can't be used: then `key` is that of the next
        attempt, and `spent` says whether that may only be looked up. Errors of `use` but Unusable
        pass through."""
        self.answer = answer
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        if answer.unstored:
            self.lost += 1
        else:
            self.attempt += 1
        self.unusable = None
        try:
            value = await settled(use(self.ask, answer))
        except Unusable as unusable:
            self.unusable = unusable
            self.spent = self.attempts >= max_attempts + self.passed
            self.key = wire.answer_key(model, self.ask, self.attempt)
            return None
        return self._outcome(value, None, None)

    @property
    def attempts(self) -> int:
        """Attempts made so far; the number, from 0, of the next."""
        return self.attempt + self.lost

    def lose(self, max_attempts: int) -> bool:
        """Count an attempt that a status came back for in place of an answer; False if it was the
        last that may be made."""
        self.lost += 1
        return self.attempts < max_attempts + self.passed

    @property
    def sent(self) -> Ask:
        """The ask as it is sent: after an answer that can't be used it ends with what was wrong with it.

        Its key is that of the ask itself, since what is told follows from the stored answers before.
        """
        advice = self.unusable.advice if self.unusable is not None else None
        if advice is None:
            return self.ask
        *before, last = self.ask.messages
        told = {**last, "content": f"{last['content']}\n\n{_AGAIN.format(advice)}"}
        return replace(self.ask, messages=(*before, told))

    def given_up(self) -> Outcome[Any]:
        """The outcome where no answer could be used."""
        assert self.unusable is not None
        return self.failed(self.unusable.reason, self.unusable.detail)

    def passes(self, record: Mapping[str, Any], before: float) -> None:
        """Take a stored answer from before this time for none of the attempts that may be made."""
        self.passed += record.get("answered_at", 0.0) < before

    def sets_aside(self, record: Mapping[str, Any] | None) -> None:
        """Keep a stored answer that is not to be used, for the case that no new one can be."""
        if record is not None:
            self.earlier.setdefault(self.key, record)

    async def fall_back(self, use: Use[T], store: Records, model: str) -> Outcome[T]:
        """The outcome where no new answer could be used: with the first of the earlier answers that
        can, which then takes the place of the new one for good; else without a value."""
        attempts = count() if self.earlier else ()
        for attempt in attempts:
            key = wire.answer_key(model, self.ask, attempt)
            record = self.earlier.get(key)
            if record is None and attempt >= self.attempt:
                record = (await store.get([key])).get(key)
            if record is None and attempt >= self.attempt:
                break
            answer = reusable(record, 0.0, self.ask)
            if answer is None:
                continue
            try:
                value = await settled(use(self.ask, answer))
            except Unusable:
                continue
            await store.put(key, {**(record or {}), KEPT_AT: time.time()})
            self.answer = answer
            return self._outcome(value, None, None)
        return self.given_up()

    def failed(self, reason: str, detail: str) -> Outcome[Any]:
        """The outcome without a value."""
        return self._outcome(None, reason, detail)

    def _outcome(self, value: T | None, reason: str | None, detail: str | None) -> Outcome[T]:
        return Outcome(
            ask=self.ask,
            value=value,
            answer=self.answer,
            attempts=self.attempts,
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
    if record is None or max(record.get(at, 0.0) for at in ("answered_at", KEPT_AT)) < since:
        return None
    try:
        return wire.answer_from_record(record, ask)
    except KeyError:
        return None
