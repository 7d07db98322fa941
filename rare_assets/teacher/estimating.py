"""Estimate what asking would cost, without asking: look up stored answers, and count the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

from rare_assets.teacher import wire
from rare_assets.teacher.attempts import settled
from rare_assets.teacher.batch.handed_in import HandedIn
from rare_assets.teacher.batch.submissions import Submissions
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
    from rare_assets.teacher.endpoint_teacher import Answers
    from rare_assets.teacher.store.folder import Folder

T = TypeVar("T")

CHUNK = 1_000
# Where no stored answer tells how long this model's answers are.
COMPLETION_TOKENS = 300


class EstimatingTeacher:
    """A teacher that sends nothing; after `ask_all`, `usage` holds an estimate.

    Stored answers are used. An ask without one counts as one request, or as its `may_take` requests where
    answers are sampled until one agrees. Prompt tokens are counted as four bytes each; completion tokens are
    as many as in the stored answers on average (300 without any), and at most the ask's `max_tokens`.
    Answers that will be unusable and asked for again are not foreseen.

    Args:
        model: the model's name; only its stored answers count.
        store: where answers are looked up.
        prices: for the cost, which is None without the model's price.
        refresh: count every ask as a request.
        retry_rejects: count asks without a usable stored answer as requests.
        batch: cost by the Batch API's price.
        window: tokens that prompt and answer may have together; None: not checked.
        batches: where batches are kept that are handed in: what waits in them is paid for, and no request.
            None: they are not looked at.
        endpoint: whose batches count, by its `endpoint_name`.

    Attributes:
        usage: the estimate, once `ask_all` is done.
        waiting: answers that wait in batches.
        too_long: asks that would be sent and do not fit the window.
        longest: tokens of the longest of them.
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
        batches: Folder | None = None,
        endpoint: str = "",
    ) -> None:
        submissions = Submissions(batches) if batches is not None and not refresh else None
        self._handed_in = HandedIn(submissions, model, endpoint, since=0.0)
        self._window = window
        self.waiting = 0
        self.too_long = 0
        self.longest = 0
        self.model = model
        free = 0.0 if prices.price(model) is not None else None
        self.usage = Usage(cost_usd=free, reused_cost_usd=free)
        self._store = store
        self._prices = prices
        self._refresh = refresh
        self._retry_rejects = retry_rejects
        self._batch = batch

    async def window(self) -> int | None:
        """Return the window that was given, in tokens."""
        return self._window

    async def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """Yield an Outcome for each ask, in order; the reason is `not_asked` for those that would be sent, or
        wait in a batch.

        Raises:
            TeacherStopped: a file that says what was handed in is damaged.
        """
        await self._handed_in.look_up()
        bounds: list[int | None] = []
        for chunk in _chunks(asks):
            for ask, outcome, answered in await self._stored(chunk, use, max_attempts):
                if outcome is None:
                    times = max(1, ask.may_take - answered)
                    times -= self._count_waiting(ask, range(answered, answered + times))
                    bounds += [ask.max_tokens] * times
                    self.usage.requests += times
                    for _ in range(times):
                        self._count_prompt(ask)
                    yield Outcome(ask, None, None, 0, 0, 0, NOT_ASKED)
                else:
                    yield outcome
        self.usage.answers_unreadable = self._store.unreadable
        self.usage.completion_tokens += sum(map(self._completion_tokens, bounds))
        usage = self.usage
        usage.cost_usd = self._cost(usage.prompt_tokens, usage.completion_tokens)
        usage.reused_cost_usd = self._cost(
            usage.reused_prompt_tokens, usage.reused_completion_tokens
        )

    async def _stored(
        self, asks: list[Ask], use: Use[T], max_attempts: int
    ) -> list[tuple[Ask, Outcome[T] | None, int]]:
        """Return each ask, its Outcome if stored answers decide it, and the number of these answers."""
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
                self.usage.cut_prompts += answer.cut_prompt
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

    def _count_waiting(self, ask: Ask, attempts: Iterable[int]) -> int:
        if self._handed_in.is_empty:
            return 0
        keys = (wire.answer_key(self.model, ask, attempt) for attempt in attempts)
        waiting = sum(key in self._handed_in for key in keys)
        self.waiting += waiting
        return waiting

    def _count_prompt(self, ask: Ask) -> None:
        prompt = estimated_prompt_tokens(ask)
        self.usage.prompt_tokens += prompt
        whole = prompt + (ask.max_tokens or 0)
        if self._window is not None and whole > self._window:
            self.too_long += 1
            self.longest = max(self.longest, whole)

    def say_waiting(self) -> str | None:
        """Return a sentence for people about answers that wait in batches; None if none do."""
        if not self.waiting:
            return None
        return f"{self.waiting:,} answers wait in batches that are handed in: they are paid for."

    def say_too_long(self) -> str | None:
        """Return a sentence for people about prompts that do not fit the window; None if all do."""
        if not self.too_long or self._window is None:
            return None
        return (
            f"{self.too_long:,} of {self.usage.requests:,} prompts do not fit the window of {self.model}, "
            f"{self._window:,} tokens: the longest takes about {self.longest:,}. {advice(self._window)}"
        )

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        return self._prices.cost(self.model, prompt_tokens, completion_tokens, batch=self._batch)

    def _completion_tokens(self, max_tokens: int | None) -> int:
        reused = self.usage.answers_reused
        usual = self.usage.reused_completion_tokens // reused if reused else COMPLETION_TOKENS
        return min(usual, max_tokens or usual)


def _chunks(asks: Iterable[Ask]) -> Iterator[list[Ask]]:
    rest = iter(asks)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
