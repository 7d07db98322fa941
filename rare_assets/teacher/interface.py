"""What a teacher is asked and what it gives back, whichever model answers.

An `Ask` is one question to the model; `Teacher.ask_all` answers many of them, tries again where an
answer can't be used, and yields one `Outcome` per ask in the order of completion. Every answer that
was paid for is in durable storage before it counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

# Reason of an Outcome that only an estimate has: the ask would have been sent.
NOT_ASKED = "not_asked"
# Reasons of an Outcome that no answer was stored for: the endpoint failed, and may answer next time.
ENDPOINT_FAULTS = ("endpoint_error", "rate_limited")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the teacher.

    Everything but `key` is content: asks of equal content share their stored answers, whatever
    their key. `sample` tells apart several answers wanted to the same messages.
    """

    key: str
    messages: tuple[Mapping[str, str], ...]
    schema: type[BaseModel] | None = None
    sample: int = 0
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    may_take: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the teacher, as it came.

    `thinking` is a chain that the endpoint sent apart; a chain inside `content` stays there
    (`teacher.reading.part` parts them). `attempt` counts from 0. `reused` means it came from storage,
    `estimated` that the endpoint did not say, or not credibly, how many tokens it took, `cut_prompt`
    that it read so few tokens that it can't have seen the whole prompt.
    """

    content: str
    thinking: str | None
    finish_reason: str
    refusal: str | None
    model: str
    prompt_tokens: int
    completion_tokens: int
    attempt: int
    latency_s: float
    reused: bool
    estimated: bool = False
    cut_prompt: bool = False
    unstored: bool = False

    @property
    def blank(self) -> bool:
        """Whether nothing was answered: no text, no chain, no refusal."""
        return not (self.content.strip() or (self.thinking or "").strip() or self.refusal)

    @property
    def raw(self) -> str:
        """The whole answer as one text, a chain sent apart in think tags before the content."""
        if self.thinking:
            return f"<think>\n{self.thinking}\n</think>\n{self.content}"
        return self.content


class Unusable(Exception):
    """Raised by a `Use` for an answer that can't be used: another attempt is worth its price.

    `reason` is one of a few fixed snake_case words, `detail` says more for a person, `advice` is a
    sentence that the next attempt tells the teacher. Without it the same is asked again, as where
    answers are sampled.
    """

    def __init__(self, reason: str, detail: str = "", advice: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.advice = advice


# Turns an answer into a value, at once or after asking elsewhere (another model's judgement, say).
Use: TypeAlias = Callable[[Ask, Answer], T | Awaitable[T]]


class TeacherStopped(Exception):
    """The teacher can't or may not go on: endpoint dead or misconfigured, or a limit reached.

    The message says what is wrong and what to do. Everything answered so far is kept, the next
    run goes on from there.
    """


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of one ask: `value` if an attempt was usable, else `reason` and `detail`.

    Token counts are of all attempts together; `answer` is the last one received (None if the
    endpoint refused every request for this ask).
    """

    ask: Ask
    value: T | None
    answer: Answer | None
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    reason: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class Usage:
    """Running totals of a teacher: what was asked, reused, retried, and what it cost.

    `cost_usd` and `reused_cost_usd` are None while the model's price is unknown. `estimated` are
    new answers whose tokens the endpoint did not say, of all that were `answered`; `cut_prompts` are
    answers, stored ones too, to prompts that the endpoint did not read whole. `latencies_s` has one entry a new answer (a
    bounded sample of them in very long runs). `answers_unreadable` are those found lost in damaged
    files of stored answers.
    """

    requests: int = 0
    answered: int = 0
    answers_reused: int = 0
    retries: int = 0
    rate_limited: int = 0
    estimated: int = 0
    cut_prompts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused_prompt_tokens: int = 0
    reused_completion_tokens: int = 0
    cost_usd: float | None = None
    reused_cost_usd: float | None = None
    latencies_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    answers_unreadable: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together, side by side on one storage: of `seconds` and `answers_unreadable` the larger."""
        sums = {
            each.name: _sum(getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        }
        for name in ("seconds", "answers_unreadable"):
            sums[name] = max(getattr(self, name), getattr(other, name))
        return Usage(**sums)


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a running `ask_all`, given at most every few seconds."""

    done: int
    in_flight: int
    usage: Usage


class Teacher(Protocol):
    """Answers asks, many at a time."""

    @property
    def model(self) -> str:
        """The model's name, as configured."""

    @property
    def usage(self) -> Usage:
        """Totals since this teacher was opened."""

    def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """Answer every ask; yield an Outcome as each is done, in any order.

        `asks` is read lazily, so memory is bounded by the number in flight. `use` turns an answer
        into a value or raises `Unusable`, which asks again (attempts run alongside the others) up
        to `max_attempts` answers; after the last, the Outcome carries its reason. A `use` that gives
        an awaitable may ask this very teacher; the other asks go on meanwhile. TeacherStopped
        raised by it stops them all.

        Raises:
            TeacherStopped: see there; raised once what is in flight has been stored.
        """
