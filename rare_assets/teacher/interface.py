"""What a teacher is asked and what it returns, whichever model answers.

An `Ask` is one question to the model. `Teacher.ask_all` answers many of them, asks again where an answer
can't be used, and yields one `Outcome` for each ask as it is done. Every answer that was paid for is on
durable storage before it counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from rare_assets.text.encodings import without_halves

T = TypeVar("T")

# Reason of an Outcome that only an estimate has: the ask would have been sent.
NOT_ASKED = "not_asked"
# Reasons of an Outcome that no answer was stored for: the endpoint failed, and may answer next time.
ENDPOINT_FAULTS = ("endpoint_error", "rate_limited")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the teacher.

    Asks that are equal in all but `key` and `may_take` share their stored answers.

    Attributes:
        key: names the ask for the caller; not sent.
        messages: of the chat, each with `role` and `content`.
        schema: model that the answer's JSON must fit; None for free text.
        sample: number of the answer, where several answers to the same messages are wanted.
        temperature, seed: of the sampling; None leaves them to the endpoint.
        max_tokens: most tokens of an answer; None leaves it to the endpoint.
        may_take: answers that it may take until one agrees; only an estimate counts with it.

    Example:
        >>> Ask("salt", ({"role": "user", "content": "Why does salt melt ice?"},), max_tokens=200).sample
        0
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
    """One answer of the teacher, as it came, in characters that can be stored (see `without_halves`).

    Attributes:
        content: what the model wrote; a chain of thought inside of it stays there (`part` takes it out).
        thinking: chain of thought that the endpoint sent apart; None without.
        finish_reason: the endpoint's word for why the model stopped; see `is_whole`.
        refusal: what the model said in refusing; None if it did not.
        model: the model's name, as the endpoint gives it.
        prompt_tokens, completion_tokens: as the endpoint counts them.
        attempt: number of the attempt, from 0.
        latency_s: seconds from the request to the answer.
        reused: it came from storage.
        estimated: the endpoint gave no credible number of tokens, so they are estimated.
        cut_prompt: the endpoint read so few tokens that it can't have seen the whole prompt.
        unstored: it is not worth keeping, since the endpoint has not answered anything with text yet.
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

    def __post_init__(self) -> None:
        # JSON can hold half a character, and no table.
        for name in ("content", "thinking", "finish_reason", "refusal", "model"):
            if text := getattr(self, name):
                object.__setattr__(self, name, without_halves(text))

    @property
    def blank(self) -> bool:
        """True if the answer has no text, no chain of thought and no refusal."""
        return not (self.content.strip() or (self.thinking or "").strip() or self.refusal)

    @property
    def raw(self) -> str:
        """The whole answer as one text: a chain that was sent apart stands in think tags before the content."""
        if self.thinking:
            return f"<think>\n{self.thinking}\n</think>\n{self.content}"
        return self.content


class Unusable(Exception):
    """An answer can't be used, and another attempt is worth its price; a `Use` raises it.

    Args:
        reason: one of a few fixed snake_case words.
        detail: says more for people.
        advice: a sentence that the next attempt tells the teacher. None: the same is asked again, as where
            answers are sampled.
    """

    def __init__(self, reason: str, detail: str = "", advice: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.advice = advice


# Turns an answer into a value, at once or after asking another model to judge it, say.
Use: TypeAlias = Callable[[Ask, Answer], T | Awaitable[T]]


class TeacherStopped(Exception):
    """The teacher can't go on: the endpoint is dead or misconfigured, or a limit is reached.

    The message says what is wrong and what to do. All answers so far are kept, and the next run goes on
    from there.
    """


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of one ask.

    Attributes:
        ask: what was asked.
        value: what `use` made of the answer; None if no answer could be used.
        answer: the last one received; None if the endpoint refused every request for this ask.
        attempts: number of attempts, stored ones included.
        prompt_tokens, completion_tokens: of all attempts together.
        reason: why there is no value, in a snake_case word; None if there is one.
        detail: says more for people.
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
    """Running totals of a teacher: what was asked, reused and retried, and what it cost.

    Attributes:
        requests: requests sent, whatever came of them.
        answered: new answers.
        answers_reused: answers that came from storage.
        retries: new answers after an unusable one.
        rate_limited: requests that the endpoint throttled.
        estimated: new answers whose tokens are estimated, since the endpoint did not count them.
        cut_prompts: answers, stored ones too, to prompts that the endpoint did not read whole.
        prompt_tokens, completion_tokens: of new answers.
        reused_prompt_tokens, reused_completion_tokens: of answers from storage.
        cost_usd: of new answers, in US dollars; None if the model's price is unknown.
        reused_cost_usd: what the answers from storage have cost; None likewise.
        latencies_s: seconds of each new answer; a sample of 10,000 in longer runs.
        seconds: in which the teacher was asked.
        answers_unreadable: answers found lost in damaged files of the store.
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
        """Return the sum for two teachers that ran at the same time on one storage.

        Of `seconds` and `answers_unreadable` it is the larger one.
        """
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
    """How far an `ask_all` is: asks done, requests in flight, totals so far."""

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
        """Totals since this teacher was made."""

    def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """Answer every ask; yield an Outcome as each is done, in any order.

        Args:
            asks: read lazily, so that memory is bounded by the number in flight.
            use: turns an answer into a value, or raises `Unusable`, so that it is asked again. It may return
                an awaitable, which may ask this very teacher; the other asks go on meanwhile. If it
                raises TeacherStopped, all asks stop.
            max_attempts: answers to one ask; if the last one is unusable, the Outcome has its reason.
            progress: called every few seconds.

        Raises:
            TeacherStopped: the teacher can't go on; raised once what is in flight is stored.
        """
