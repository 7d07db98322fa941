"""What asking would cost, found out without asking: stored answers are looked up, the rest is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.attempts import settled
from rare_assets.teacher.interface import (
    NOT_ASKED,
    Ask,
    Outcome,
    Progress,
    Unusable,
    Usage,
    Use,
)
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.tokens import estimated_prompt_tokens
from rare_assets.teacher.window import advice

if TYPE_CHECKING:
    from rare_assets.teacher.online import Answers

T = TypeVar("T")

CHUNK = 1_000
# Where no stored answer tells how long this model's answers are.
COMPLETION_TOKENS = 300


class EstimatingTeacher:
    """A teacher that sends nothing: an operator run with it leaves an estimate in `usage`.

    Stored answers are used as they would be. Each ask without one counts as one request, or as many as
    it may take where answers are sampled until one agrees: prompt
    tokens by four characters a token, completion tokens as in the stored answers (300 without any,
    at most the ask's `max_tokens`). Answers that will have to be asked for again are not foreseen.

    Args:
        model: the model's name, which decides which stored answers count.
        store: where answers are looked up.
        prices: for the cost; without the model's price it stays None.
        refresh: count every ask as a request.
        retry_rejects: count asks without a usable stored answer as requests.
        batch: cost by the Batch API's price.
        window: tokens that prompt and answer may have together, to count what does not fit.
    """

    def __init__(
        self,
        model: str,
        store: Answers,
        prices: Prices,
        *,
        refresh: bool = False,
        retry_rejects: bool = False,
        batch: bool = False,
        window: int | None = None,
    ) -> None:
        self._window = window
        # Asks that would be sent and do not fit the window, and the tokens of the longest of them.
        self.too_long = 0
        self.longest = 0
        self.model = model
        self.usage = Usage()
        self._store = store
        self._prices = prices
        self._refresh = refresh
        self._retry_rejects = retry_rejects
        self._batch = batch

    async def window(self) -> int | None:
        """The window that it counts by."""
        return self._window

    async def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """An Outcome for each ask, in order; those that would be sent have the reason `not_asked`."""
        bounds: list[int | None] = []
        for chunk in _chunks(asks):
            for ask, outcome, answered in await self._stored(chunk, use, max_attempts):
                if outcome is None:
                    times = max(1, ask.may_take - answered)
                    bounds += [ask.max_tokens] * times
                    self.usage.requests += times
                    for _ in range(times):
                        self._count_prompt(ask)
                    yield Outcome(ask, None, None, 0, 0, 0, NOT_ASKED)
                else:
                    yield outcome
        self.usage.answers_unreadable = self._store.unreadable
        self.usage.completion_tokens += sum(map(self._completion_tokens, bounds))
        self.usage.cost_usd = self._prices.cost(
            self.model, self.usage.prompt_tokens, self.usage.completion_tokens, batch=self._batch
        )

    async def _stored(
        self, asks: list[Ask], use: Use[T], max_attempts: int
    ) -> list[tuple[Ask, Outcome[T] | None, int]]:
        """Each ask with its Outcome as far as stored answers decide it, else None, and their number."""
        found: dict[int, Outcome[T] | None] = dict.fromkeys(range(len(asks)))
        open_asks = [] if self._refresh else list(range(len(asks)))
        tokens = [(0, 0)] * len(asks)
        answered = [0] * len(asks)
        given_up: dict[int, Outcome[T]] = {}
        for attempt in count():
            if not open_asks:
                break
            keys = {i: wire.answer_key(self.model, asks[i], attempt) for i in open_asks}
            records = await self._store.get(list(keys.values()))
            open_asks = []
            for i, key in keys.items():
                if key not in records:
                    # A further attempt would be sent, if it may be.
                    if attempt >= max_attempts and not self._retry_rejects:
                        found[i] = given_up[i]
                    continue
                answer = wire.answer_from_record(records[key], asks[i])
                self.usage.answers_reused += 1
                answered[i] += 1
                self.usage.reused_prompt_tokens += answer.prompt_tokens
                self.usage.reused_completion_tokens += answer.completion_tokens
                tokens[i] = (
                    tokens[i][0] + answer.prompt_tokens,
                    tokens[i][1] + answer.completion_tokens,
                )
                ask, so_far = asks[i], (attempt + 1, *tokens[i])
                try:
                    found[i] = Outcome(ask, await settled(use(ask, answer)), answer, *so_far)
                except Unusable as unusable:
                    open_asks.append(i)
                    given_up[i] = Outcome(
                        ask, None, answer, *so_far, unusable.reason, unusable.detail
                    )
        return [(ask, found[i], answered[i]) for i, ask in enumerate(asks)]

    def _count_prompt(self, ask: Ask) -> None:
        prompt = estimated_prompt_tokens(ask)
        self.usage.prompt_tokens += prompt
        whole = prompt + (ask.max_tokens or 0)
        if self._window is not None and whole > self._window:
            self.too_long += 1
            self.longest = max(self.longest, whole)

    def say_too_long(self) -> str | None:
        """What to tell a user where prompts do not fit the window; None if all do."""
        if not self.too_long or self._window is None:
            return None
        return (
            f"{self.too_long:,} of {self.usage.requests:,} prompts do not fit the window of {self.model}, "
            f"{self._window:,} tokens: the longest takes about {self.longest:,}. {advice(self._window)}"
        )

    def _completion_tokens(self, max_tokens: int | None) -> int:
        reused = self.usage.answers_reused
        usual = self.usage.reused_completion_tokens // reused if reused else COMPLETION_TOKENS
        return min(usual, max_tokens or usual)


def _chunks(asks: Iterable[Ask]) -> Iterator[list[Ask]]:
    rest = iter(asks)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
