"""One configuration of a pilot: the operators over the sample, their answers stored, their tables not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl

from rare_assets.pilot.configuration import Configuration
from rare_assets.pilot.corpus import Sample
from rare_assets.retriever import IndexState, Retriever
from rare_assets.schemas import HardNegatives, HardNegativesRejects, Produced
from rare_assets.stages import hard_negatives, questions, reasoning
from rare_assets.stages.asking import Asking, AskingConfig, Operator
from rare_assets.teacher import (
    Answer,
    Ask,
    Ledger,
    Outcome,
    Progress,
    Teacher,
    Usage,
    Use,
)

T = TypeVar("T")


@dataclass
class StageUse:
    """What a stage's answers took, whether they were paid now or are stored from earlier.

    `cost_usd` and `paid_usd` are None where the model's price is unknown; `latencies_s` has one entry an
    answer, as it took when it was asked for. `online_usd` is the part of the cost that a run in batches
    asks for online, too.
    """

    answers: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    paid_usd: float | None = 0.0
    latencies_s: list[float] = field(default_factory=list)
    online_usd: float | None = 0.0

    def add(self, usage: Usage, latencies_s: Iterable[float], *, online: bool = False) -> None:
        """Count what a teacher was asked; `online`: whatever the mode."""
        self.answers += usage.answered + usage.answers_reused
        self.requests += usage.requests
        self.prompt_tokens += usage.prompt_tokens + usage.reused_prompt_tokens
        self.completion_tokens += usage.completion_tokens + usage.reused_completion_tokens
        self.paid_usd = _sum(self.paid_usd, usage.cost_usd)
        cost = _sum(usage.cost_usd, usage.reused_cost_usd)
        self.cost_usd = _sum(self.cost_usd, cost)
        if online:
            self.online_usd = _sum(self.online_usd, cost)
        self.latencies_s += latencies_s


@dataclass
class Trial:
    """What a configuration made of the sample; `problem` says why it did not come to its end.

    Tables that it did not come to are empty. `seconds` is the time of this pilot, stored answers taking
    none of it.
    """

    name: str
    configuration: Configuration | None
    produced: dict[str, Produced] = field(default_factory=dict)
    use: dict[str, StageUse] = field(default_factory=dict)
    state: IndexState | None = None
    seconds: float = 0.0
    problem: str | None = None


class Watched:
    """A teacher that notes how long each answer took, stored ones too."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.latencies_s: list[float] = []

    @property
    def model(self) -> str:
        """The model's name, as configured."""
        return self._teacher.model

    @property
    def usage(self) -> Usage:
        """Totals since the teacher was opened."""
        return self._teacher.usage

    async def ask_all(
        self,
        asks: Iterable[Ask],
        use: Use[T],
        *,
        max_attempts: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """Answer every ask; see `Teacher`."""

        def noted(ask: Ask, answer: Answer) -> T | Awaitable[T]:
            self.latencies_s.append(answer.latency_s)
            return use(ask, answer)

        outcomes = self._teacher.ask_all(asks, noted, max_attempts=max_attempts, progress=progress)
        async for outcome in outcomes:
            yield outcome


class Trying:
    """Sends a sample through one configuration, stage after stage.

    Args:
        configuration: model, prompts and options.
        sample: what is asked about.
        ledger: where the limits are counted, by stage: the same for all configurations.
        say: told in a sentence what is waited for.
    """

    def __init__(
        self,
        configuration: Configuration,
        sample: Sample,
        ledger: Callable[[str], Ledger],
        say: Callable[[str], None],
    ) -> None:
        self._configuration = configuration
        self._sample = sample
        self._ledger = ledger
        self._say = say
        self.trial = Trial(configuration.name, configuration)
        self._stopped = False

    async def run(self, index: Retriever, state: IndexState) -> None:
        """Ask, mine and ask. After an error, `trial` has what the stored answers give."""
        trial, started = self.trial, time.monotonic()
        trial.state = state
        try:
            await self._all_stages(index)
        except Exception:
            self._stopped = True
            # The first error is the one to tell.
            with suppress(Exception):
                await self._all_stages(index)
            raise
        finally:
            trial.seconds = time.monotonic() - started

    async def _all_stages(self, index: Retriever) -> None:
        produced = self.trial.produced
        made = produced[questions.NAME] = await self._questions()
        produced[hard_negatives.NAME] = await self._hard_negatives(made.rows, index)
        produced[reasoning.NAME] = await self._reasoning()

    async def _questions(self) -> Produced:
        _, options, teacher, templates = self._configuration
        config = options.questions
        asking = questions.asking(config, teacher, templates)
        operator = questions.operator(self._sample.documents, config, asking)
        return await self._ask(questions.NAME, asking, operator, config)

    async def _hard_negatives(self, asked: pl.DataFrame, index: Retriever) -> Produced:
        _, options, teacher, templates = self._configuration
        config = options.hard_negatives
        if asked.is_empty():
            return Produced(HardNegatives.create_empty(), HardNegativesRejects.create_empty())
        mine = hard_negatives.mining(asked, index, self._sample.families, config)
        if not config.judge_relevance:
            return mine().produced
        asking = hard_negatives.asking(teacher, templates)
        mined = await self._ask(hard_negatives.NAME, asking, hard_negatives.operator(mine))
        return mined.produced

    async def _reasoning(self) -> Produced:
        _, options, teacher, templates = self._configuration
        config, produced = options.reasoning, self.trial.produced
        asking = reasoning.asking(config, teacher, templates)
        operator = reasoning.operator(
            produced[questions.NAME].rows,
            self._sample.documents,
            produced[hard_negatives.NAME].rows,
            config,
            asking,
        )
        return await self._ask(reasoning.NAME, asking, operator, config)

    async def _ask(
        self,
        stage: str,
        asking: Asking,
        operator: Operator[T],
        config: AskingConfig | None = None,
    ) -> T:
        """Run an operator with the stage's teacher, and count what its answers took; where it has a judge
        of another model, its verdicts, too.

        Always online, whatever `mode` says: in batches a pilot would take days.
        """
        if self._stopped:
            async with asking.estimating(say=self._say) as stored:
                return await operator(stored.teacher, stored.judge)
        how: dict[str, Any] = {"ledger": self._ledger(stage), "say": self._say}
        if config is not None:
            how |= {"refresh": config.refresh, "retry_rejects": config.retry_rejects}
            how["judge_apart"] = asking.judges_apart(config.mode == "batch")
        use = self.trial.use.setdefault(stage, StageUse())
        async with asking.opened(Watched, **how) as asked:
            try:
                return await operator(asked.teacher, asked.judge)
            finally:
                use.add(asked.teacher.usage, asked.teacher.latencies_s)
                if asked.judging is not asked.teacher:
                    use.add(asked.judging.usage, asked.judging.latencies_s, online=True)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
