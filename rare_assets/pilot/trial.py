"""One configuration of a pilot: the operators over the sample, their answers stored, their tables not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import polars as pl

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.judge import Judge, with_verdicts
from rare_assets.operators.reason_distill import reason_distill
from rare_assets.pilot.configuration import Configuration
from rare_assets.pilot.corpus import Sample
from rare_assets.resources.configurable import TeacherModel, judges_apart, teacher_of
from rare_assets.retriever import IndexState, Retriever
from rare_assets.schemas import HardNegatives, HardNegativesRejects, Produced
from rare_assets.stages.asking import AskingConfig
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

# The stages that ask, in their order; hard_negatives only where its judge does.
STAGES = ("questions", "hard_negatives", "reasoning")


@dataclass
class StageUse:
    """What a stage's answers took, whether they were paid now or are stored from earlier.

    `cost_usd` and `paid_usd` are None where the model's price is unknown; `latencies_s` has one entry an
    answer, as it took when it was asked for.
    """

    answers: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    paid_usd: float | None = 0.0
    latencies_s: list[float] = field(default_factory=list)

    def add(self, usage: Usage, latencies_s: Iterable[float]) -> None:
        """Count what a teacher was asked."""
        self.answers += usage.answered + usage.answers_reused
        self.requests += usage.requests
        self.prompt_tokens += usage.prompt_tokens + usage.reused_prompt_tokens
        self.completion_tokens += usage.completion_tokens + usage.reused_completion_tokens
        self.paid_usd = _sum(self.paid_usd, usage.cost_usd)
        self.cost_usd = _sum(self.cost_usd, _sum(usage.cost_usd, usage.reused_cost_usd))
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
        produced["questions"] = await self._questions()
        produced["hard_negatives"] = await self._hard_negatives(produced["questions"].rows, index)
        produced["reasoning"] = await self._reasoning()

    async def _questions(self) -> Produced:
        _, options, teacher, templates = self._configuration
        teacher, config = teacher_of(teacher, "questions"), options.questions
        return await self._ask(
            "questions",
            lambda model, judge: doc2query(
                self._sample.documents,
                model,
                templates=templates,
                judge=judge if config.judge_questions else None,
                **config.operator_options(teacher),
            ),
            teacher,
            config,
            judges=config.judge_questions,
        )

    async def _hard_negatives(self, questions: pl.DataFrame, index: Retriever) -> Produced:
        config = self._configuration.options.hard_negatives
        if questions.is_empty():
            return Produced(HardNegatives.create_empty(), HardNegativesRejects.create_empty())
        mine = partial(
            bm25_hard_neg,
            questions,
            index,
            documents=self._sample.families,
            **config.operator_options(),
        )
        if not config.judge_relevance:
            return mine().produced
        mined = await self._ask(
            "hard_negatives",
            lambda _, judge: with_verdicts(
                lambda is_relevant: mine(is_relevant=is_relevant), judge
            ),
            teacher_of(self._configuration.teacher, "judge"),
        )
        return mined.produced

    async def _reasoning(self) -> Produced:
        _, options, teacher, templates = self._configuration
        teacher = teacher_of(teacher, "reasoning")
        config, produced = options.reasoning, self.trial.produced
        return await self._ask(
            "reasoning",
            lambda model, judge: reason_distill(
                produced["questions"].rows,
                self._sample.documents,
                produced["hard_negatives"].rows,
                model,
                templates=templates,
                judge=judge if config.judge_answers else None,
                **config.operator_options(teacher),
            ),
            teacher,
            config,
            judges=config.judge_answers,
        )

    async def _ask(
        self,
        stage: str,
        operator: Callable[[Teacher, Judge], Awaitable[T]],
        teacher: TeacherModel,
        config: AskingConfig | None = None,
        *,
        judges: bool = False,
    ) -> T:
        """Run an operator with the stage's teacher, and count what its answers took; where it has a judge
        of another model, its verdicts, too.

        Always online, whatever `mode` says: in batches a pilot would take days.
        """
        templates = self._configuration.templates
        judging = teacher_of(self._configuration.teacher, "judge")
        apart = judges and judges_apart(judging, teacher)
        longest = (judging if apart else teacher).max_tokens(None)
        how: dict[str, Any] = {}
        if config is not None:
            how = {"refresh": config.refresh, "retry_rejects": config.retry_rejects}
        if self._stopped:
            async with AsyncExitStack() as opened:
                stored = verdicts = await opened.enter_async_context(
                    teacher.estimating(say=self._say)
                )
                if apart:
                    verdicts = await opened.enter_async_context(judging.estimating(say=self._say))
                return await operator(stored, Judge(verdicts, templates, max_tokens=longest))
        use = self.trial.use.setdefault(stage, StageUse())
        how |= {"ledger": self._ledger(stage), "say": self._say}
        async with AsyncExitStack() as opening:
            watched = asked = Watched(await opening.enter_async_context(teacher.open(**how)))
            if apart:
                asked = Watched(await opening.enter_async_context(judging.open(**how)))
            try:
                return await operator(watched, Judge(asked, templates, max_tokens=longest))
            finally:
                use.add(watched.usage, watched.latencies_s)
                if apart:
                    use.add(asked.usage, asked.latencies_s)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
