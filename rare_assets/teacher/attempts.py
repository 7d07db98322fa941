"""Lead one ask to its outcome, attempt by attempt, online and in batches alike."""

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
    """The store of answers, as far as attempts use it."""

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]: ...

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None: ...


@dataclass(slots=True, eq=False)
class Attempts:
    """The attempts at one ask so far.

    Attributes:
        ask: what is asked.
        key: of the present attempt.
        first_key: of the first attempt; the ask is claimed under it, with all its attempts.
        stored: attempts whose answer is stored, so that the next one is stored under this number.
        lost: attempts that brought nothing to store, so that no key is theirs.
        answer: the last one; None before the first.
        prompt_tokens, completion_tokens: of all attempts together.
        unusable: what was wrong with the last answer; None if it was used.
        spent: no more may be asked for. Answers that are stored already are still looked at, since a
            usable one counts whatever its number.
        passed: stored answers that do not count as attempts (`retry_rejects`).
        earlier: stored answers by key that are asked for again (`refresh`), in the order of their attempts.
    """

    ask: Ask
    key: bytes
    first_key: bytes = b""
    stored: int = 0
    lost: int = 0
    answer: Answer | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unusable: Unusable | None = None
    spent: bool = False
    passed: int = 0
    earlier: dict[bytes, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_key = self.first_key or self.key

    async def judge(
        self, answer: Answer, use: Use[T], model: str, max_attempts: int
    ) -> Outcome[T] | None:
        """Return the outcome with this answer, or None if it can't be used.

        After None, `key` is that of the next attempt, and `spent` tells whether it may only be looked up.
        Errors of `use` other than Unusable pass through.
        """
        self.answer = answer
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        if answer.unstored:
            self.lost += 1
        else:
            self.stored += 1
        self.unusable = None
        try:
            value = await settled(use(self.ask, answer))
        except Unusable as unusable:
            self.unusable = unusable
            self.spent = self.made >= max_attempts + self.passed
            self.key = wire.answer_key(model, self.ask, self.stored)
            return None
        return self._outcome(value, None, None)

    def forget_faults(self) -> None:
        """Forget the faults of the last attempt: they tell nothing of the next one."""

    @property
    def made(self) -> int:
        """Number of attempts so far; also the number, from 0, of the next one."""
        return self.stored + self.lost

    def lose(self, max_attempts: int) -> bool:
        """Count an attempt that brought an HTTP status in place of an answer; False if it was the last one
        that may be made."""
        self.lost += 1
        return self.made < max_attempts + self.passed

    @property
    def sent(self) -> Ask:
        """The ask as it is sent: after an unusable answer it ends with what was wrong with that answer.

        Its key stays that of the ask itself, since the advice follows from the stored answers before.
        """
        advice = self.unusable.advice if self.unusable is not None else None
        if advice is None:
            return self.ask
        *before, last = self.ask.messages
        told = {**last, "content": f"{last['content']}\n\n{_AGAIN.format(advice)}"}
        return replace(self.ask, messages=(*before, told))

    def given_up(self) -> Outcome[Any]:
        """Return the outcome where no answer could be used."""
        assert self.unusable is not None
        return self.failed(self.unusable.reason, self.unusable.detail)

    def passes(self, record: Mapping[str, Any], before: float) -> None:
        """Do not count a stored answer from before this Unix time as an attempt."""
        self.passed += record.get("answered_at", 0.0) < before

    def sets_aside(self, record: Mapping[str, Any] | None) -> None:
        """Keep a stored answer for `fall_back`, although a new one is asked for."""
        if record is not None:
            self.earlier.setdefault(self.key, record)

    async def fall_back(self, use: Use[T], store: Records, model: str) -> Outcome[T]:
        """Return the outcome of an ask to which no new answer could be used.

        Its value is that of the first earlier answer that can be used; this answer is then stored as the
        one to use from now on. Without any, the outcome has no value.
        """
        for attempt in count() if self.earlier else ():
            key = wire.answer_key(model, self.ask, attempt)
            record = self.earlier.get(key)
            if record is None and attempt >= self.stored:
                record = (await store.get([key])).get(key)
            if record is None and attempt >= self.stored:
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
        """Return the outcome without a value."""
        return self._outcome(None, reason, detail)

    def _outcome(self, value: T | None, reason: str | None, detail: str | None) -> Outcome[T]:
        return Outcome(
            ask=self.ask,
            value=value,
            answer=self.answer,
            attempts=self.made,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            reason=reason,
            detail=detail,
        )


async def settled(value: T | Awaitable[T]) -> T:
    """Return what a `Use` gave; wait for it if it is awaitable."""
    return await value if isawaitable(value) else value


def reusable(record: Mapping[str, Any] | None, since: float, ask: Ask | None) -> Answer | None:
    """Return a stored answer to `ask`; None if there is none, it is older than `since`, or it can't be read."""
    if record is None or max(record.get(at, 0.0) for at in ("answered_at", KEPT_AT)) < since:
        return None
    try:
        return wire.answer_from_record(record, ask)
    except KeyError:
        return None
