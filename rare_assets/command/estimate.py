"""What a run would ask of the teacher and what that costs, without a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rare_assets.command.plan import Planner
from rare_assets.corpus.shards import Shard
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.gold_answers import NoReferences
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.stages import documents, hard_negatives, questions, reasoning
from rare_assets.stages.asking import (
    DOCUMENT_TOKENS,
    PROMPT_TOKENS,
    VERDICT_TOKENS,
    Asking,
    AskingConfig,
)
from rare_assets.stages.options import Options, OptionsError
from rare_assets.stages.order import AFTER_DOCUMENTS
from rare_assets.teacher import COMPLETION_TOKENS, Usage


class StageEstimate(NamedTuple):
    """What one stage would ask, all shards together. `bound` is set where some of it is a guess
    upwards, since what is asked about has not been made yet. `cost_usd` is None without a price."""

    stage: str
    shards: int
    requests: int
    reused: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    bound: bool
    models: str


def estimate(
    planner: Planner,
    teacher: TeacherModel,
    shards: list[Shard],
    say: Callable[[str], None] | None = None,
) -> list[StageEstimate]:
    """Estimate what the stages of these shards that ask the teacher would ask, if they were run
    now; `say` is told of stored answers that can't be read.

    Raises:
        TeacherStopped: what is stored can't be told.
    """
    options, templates = planner.options, planner.templates
    asking = {questions.NAME: questions.asking(options.questions, teacher, templates)}
    if options.hard_negatives.judge_relevance:
        asking[hard_negatives.NAME] = hard_negatives.asking(teacher, templates)
    asking[reasoning.NAME] = reasoning.asking(options.reasoning, teacher, templates)
    judge = teacher_of(teacher, "judge").name
    totals = {stage: _Total(stage, whom.teacher) for stage, whom in asking.items()}
    index = planner.index_state()
    # What is made again only because it was asked for asks the same, so that its answers are stored.
    changed = planner.without_redoing()
    for shard in shards:
        stale_documents = changed.documents(shard) is not None
        stages = [] if index is None else [each.stage for each in changed.asked(shard.key, index)]
        if stale_documents or index is None or not planner.tables.exists(questions.NAME, shard.key):
            stages = list(AFTER_DOCUMENTS)
        if questions.NAME in stages or planner.redo_all:
            if stale_documents:
                _guess_questions(totals[questions.NAME], options, shard, judge)
            else:
                found = asyncio.run(_questions(planner, asking[questions.NAME], shard.key, say))
                totals[questions.NAME].count_all(found)
        if stages == [reasoning.NAME] or (planner.redo_all and not stages):
            try:
                found = asyncio.run(_reasoning(planner, asking[reasoning.NAME], shard.key, say))
                totals[reasoning.NAME].count_all(found)
            except NoReferences as error:
                raise OptionsError(f"ops.reasoning.config: {error}") from error
        elif reasoning.NAME in stages:
            stored = planner.tables.provenance_if_whole(questions.NAME, shard.key)
            asked = (
                shard.n_rows * options.questions.num_questions
                if stored is None or questions.NAME in stages
                else stored.n_rows
            )
            _guess_after_questions(totals, options, asked, judge)
    return [total.result() for total in totals.values()]


def _guess_questions(total: _Total, options: Options, shard: Shard, judge: str) -> None:
    """Guess what questions of documents that have yet to be read will ask, from the source's rows."""
    number = options.questions.num_questions
    total.guess(shard.n_rows, DOCUMENT_TOKENS + PROMPT_TOKENS, number * COMPLETION_TOKENS)
    if options.questions.judge_questions:
        total.guess(
            shard.n_rows * number,
            DOCUMENT_TOKENS + PROMPT_TOKENS,
            VERDICT_TOKENS,
            shards=0,
            model=judge,
        )


def _guess_after_questions(
    totals: Mapping[str, _Total], options: Options, asked: int, judge: str
) -> None:
    """Guess what negatives and reasoning of so many questions will ask at most."""
    negatives = options.hard_negatives.num_neg
    if hard_negatives.NAME in totals:
        totals[hard_negatives.NAME].guess(
            asked * negatives, DOCUMENT_TOKENS + PROMPT_TOKENS, VERDICT_TOKENS
        )
    # Where answers are sampled, all that may be asked for.
    answers = asked * options.reasoning.n * max(1, options.reasoning.rejection_samples)
    total = totals[reasoning.NAME]
    total.guess(answers, (1 + negatives) * DOCUMENT_TOKENS + PROMPT_TOKENS)
    if options.reasoning.judge_answers:
        total.guess(answers, PROMPT_TOKENS, VERDICT_TOKENS, shards=0, model=judge)


async def _questions(
    planner: Planner, asking: Asking, shard: str, say: Callable[[str], None] | None
) -> dict[str, Usage]:
    options = planner.options.questions
    rows = planner.tables.load(documents.NAME, shard).collect()
    operator = questions.operator(rows, options, asking)
    async with asking.estimating(**_how(options, say)) as asked:
        await operator(asked.teacher, asked.judge)
        if planner.options.reasoning.max_context_tokens is None:
            num_neg = planner.options.hard_negatives.num_neg
            _say(say, shard, foreseen(rows, await asked.teacher.window(), num_neg))
        return asked.usage_by_model


async def _reasoning(
    planner: Planner, asking: Asking, shard: str, say: Callable[[str], None] | None
) -> dict[str, Usage]:
    options = planner.options.reasoning
    tables = planner.tables
    operator = reasoning.operator(
        tables.load(questions.NAME, shard).collect(),
        tables.load(documents.NAME, shard).collect(),
        tables.load(hard_negatives.NAME, shard).collect(),
        options,
        asking,
    )
    async with asking.estimating(**_how(options, say)) as asked:
        await operator(asked.teacher, asked.judge)
        _say(say, shard, asked.teacher.say_too_long())
        return asked.usage_by_model


def _say(say: Callable[[str], None] | None, shard: str, line: str | None) -> None:
    if say is not None and line is not None:
        say(f"{shard}: {line}")


def _how(options: AskingConfig, say: Callable[[str], None] | None) -> dict[str, Any]:
    return {
        "refresh": options.refresh,
        "retry_rejects": options.retry_rejects,
        "batch": options.mode == "batch",
        "say": say,
    }


class _Total:
    """The sum over the shards of one stage."""

    def __init__(self, stage: str, teacher: TeacherModel) -> None:
        self.stage = stage
        self.teacher = teacher
        self.usages: dict[str, Usage] = {}
        self.shards = 0
        self.bound = False

    def count_all(self, usages: Mapping[str, Usage]) -> None:
        """Count what a shard would ask of each model."""
        self.shards += 1
        for model, usage in usages.items():
            self._count(model, usage)

    def _count(self, model: str, usage: Usage) -> None:
        total = self.usages.setdefault(model, Usage())
        total.requests += usage.requests
        total.answers_reused += usage.answers_reused
        total.prompt_tokens += usage.prompt_tokens
        total.completion_tokens += usage.completion_tokens

    def guess(
        self,
        requests: int,
        prompt_tokens: int,
        completion_tokens: int = COMPLETION_TOKENS,
        shards: int = 1,
        model: str | None = None,
    ) -> None:
        self.bound = True
        self.shards += shards
        self._count(
            model or self.teacher.name,
            Usage(
                requests=requests,
                prompt_tokens=requests * prompt_tokens,
                completion_tokens=requests * completion_tokens,
            ),
        )

    def result(self) -> StageEstimate:
        prices, usages = self.teacher.load_prices(), self.usages.values()
        costs = [
            prices.cost(model, usage.prompt_tokens, usage.completion_tokens)
            for model, usage in self.usages.items()
            if usage.requests
        ]
        known = [cost for cost in costs if cost is not None]
        models = [model for model, usage in self.usages.items() if usage.requests]
        return StageEstimate(
            self.stage,
            self.shards,
            sum(usage.requests for usage in usages),
            sum(usage.answers_reused for usage in usages),
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(known) if len(known) == len(costs) else None,
            self.bound,
            " and ".join(models) or self.teacher.name,
        )
