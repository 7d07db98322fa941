"""What a run would ask of the teacher and what that costs, without a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from rare_assets.assets.asking import judge_of
from rare_assets.command.plan import Planner
from rare_assets.corpus.source import Shard
from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.reason_distill import NoReferences, reason_distill
from rare_assets.resources.configurable import TeacherModel, judges_apart, teacher_of
from rare_assets.stages.asking import (
    DOCUMENT_TOKENS,
    PROMPT_TOKENS,
    VERDICT_TOKENS,
    AskingConfig,
)
from rare_assets.stages.options import OptionsError
from rare_assets.teacher import COMPLETION_TOKENS, EstimatingTeacher, Usage


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
    """What the stages of these shards that ask the teacher would ask, if they were run now; `say` is
    told of stored answers that can't be read.

    Raises:
        TeacherStopped: what is stored can't be told.
    """
    options = planner.options
    asking = ["questions", "reasoning"]
    if options.hard_negatives.judge_relevance:
        asking.insert(1, "hard_negatives")
    judge = teacher_of(teacher, "judge")
    teachers = {
        "questions": teacher_of(teacher, "questions"),
        "hard_negatives": judge,
        "reasoning": teacher_of(teacher, "reasoning"),
    }
    totals = {stage: _Total(stage, teachers[stage]) for stage in asking}
    index = planner.index_state()
    # What is made again only because it was asked for asks the same, so that its answers are stored.
    changed = planner.without_redoing()
    for shard in shards:
        stale_documents = changed.documents(shard) is not None
        stages = [] if index is None else [each.stage for each in changed.asked(shard.key, index)]
        if stale_documents or index is None or not planner.tables.exists("questions", shard.key):
            stages = ["questions", "hard_negatives", "reasoning"]
        if "questions" in stages or planner.redo_all:
            if stale_documents:
                number = options.questions.num_questions
                totals["questions"].guess(
                    shard.n_rows, DOCUMENT_TOKENS + PROMPT_TOKENS, number * COMPLETION_TOKENS
                )
                if options.questions.judge_questions:
                    totals["questions"].guess(
                        shard.n_rows * number,
                        DOCUMENT_TOKENS + PROMPT_TOKENS,
                        VERDICT_TOKENS,
                        shards=0,
                        model=judge.name,
                    )
            else:
                found = asyncio.run(
                    _questions(planner, teachers["questions"], judge, shard.key, say)
                )
                totals["questions"].count_all(found)
        if stages == ["reasoning"] or (planner.redo_all and not stages):
            try:
                found = asyncio.run(
                    _reasoning(planner, teachers["reasoning"], judge, shard.key, say)
                )
                totals["reasoning"].count_all(found)
            except NoReferences as error:
                raise OptionsError(f"ops.reasoning.config: {error}") from error
        elif "reasoning" in stages:
            questions = planner.tables.provenance_if_whole("questions", shard.key)
            asked = (
                shard.n_rows * options.questions.num_questions
                if questions is None or "questions" in stages
                else questions.n_rows
            )
            negatives = options.hard_negatives.num_neg
            if "hard_negatives" in totals:
                totals["hard_negatives"].guess(
                    asked * negatives, DOCUMENT_TOKENS + PROMPT_TOKENS, VERDICT_TOKENS
                )
            # Where answers are sampled, all that may be asked for.
            answers = asked * options.reasoning.n * max(1, options.reasoning.rejection_samples)
            totals["reasoning"].guess(answers, (1 + negatives) * DOCUMENT_TOKENS + PROMPT_TOKENS)
            if options.reasoning.judge_answers:
                totals["reasoning"].guess(
                    answers, PROMPT_TOKENS, VERDICT_TOKENS, shards=0, model=judge.name
                )
    return [total.result() for total in totals.values()]


async def _questions(
    planner: Planner,
    teacher: TeacherModel,
    judge: TeacherModel,
    shard: str,
    say: Callable[[str], None] | None,
) -> dict[str, Usage]:
    options = planner.options.questions
    async with _foreseeing(options, teacher, judge, say) as (estimating, judging, usages):
        await doc2query(
            planner.tables.load("documents", shard).collect(),
            estimating,
            templates=planner.templates,
            judge=judge_of(judge, judging, planner.templates) if options.judge_questions else None,
            **options.operator_options(teacher),
        )
        if planner.options.reasoning.max_context_tokens is None:
            documents = planner.tables.load("documents", shard).collect()
            num_neg = planner.options.hard_negatives.num_neg
            _say(say, shard, foreseen(documents, await estimating.window(), num_neg))
        return usages()


def _say(say: Callable[[str], None] | None, shard: str, line: str | None) -> None:
    if say is not None and line is not None:
        say(f"{shard}: {line}")


async def _reasoning(
    planner: Planner,
    teacher: TeacherModel,
    judge: TeacherModel,
    shard: str,
    say: Callable[[str], None] | None,
) -> dict[str, Usage]:
    options = planner.options.reasoning
    async with _foreseeing(options, teacher, judge, say) as (estimating, judging, usages):
        await reason_distill(
            planner.tables.load("questions", shard).collect(),
            planner.tables.load("documents", shard).collect(),
            planner.tables.load("hard_negatives", shard).collect(),
            estimating,
            templates=planner.templates,
            judge=judge_of(judge, judging, planner.templates) if options.judge_answers else None,
            **options.operator_options(teacher),
        )
        _say(say, shard, estimating.say_too_long())
        return usages()


@asynccontextmanager
async def _foreseeing(
    options: AskingConfig,
    teacher: TeacherModel,
    judge: TeacherModel,
    say: Callable[[str], None] | None,
) -> AsyncIterator[tuple[EstimatingTeacher, EstimatingTeacher, Callable[[], dict[str, Usage]]]]:
    """What stands for a stage's teacher and its judge, and what they would be asked, by model."""
    how: dict[str, Any] = {
        "refresh": options.refresh,
        "retry_rejects": options.retry_rejects,
        "say": say,
    }
    async with (
        teacher.estimating(batch=options.mode == "batch", **how) as estimating,
        judge.estimating(**how) as verdicts,
    ):

        def usages() -> dict[str, Usage]:
            if judge.name == teacher.name:
                return {teacher.name: estimating.usage + verdicts.usage}
            return {teacher.name: estimating.usage, judge.name: verdicts.usage}

        # One that judges by the same model is counted with what it judges.
        yield estimating, verdicts if judges_apart(judge, teacher) else estimating, usages


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
