"""What a run would ask of the teacher and what that costs, without a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rare_assets.command.plan import Planner
from rare_assets.corpus.shards import Shard
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.gold_answers import NoReferences
from rare_assets.resources.configurable import TeacherModel
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
    totals = {
        stage: _Total(stage, whom, options.in_batches(stage)) for stage, whom in asking.items()
    }
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
                _guess_questions(totals[questions.NAME], options, shard)
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
            _guess_after_questions(totals, options, asked)
    return [total.result() for total in totals.values()]


def _guess_questions(total: _Total, options: Options, shard: Shard) -> None:
    """Guess what questions of documents that have yet to be read will ask, from the source's rows."""
    number = options.questions.num_questions
    total.shards += 1
    total.guess(shard.n_rows, DOCUMENT_TOKENS + PROMPT_TOKENS, number * COMPLETION_TOKENS)
    if options.questions.judge_questions:
        total.guess_verdicts(shard.n_rows * number, DOCUMENT_TOKENS + PROMPT_TOKENS)


def _guess_after_questions(totals: Mapping[str, _Total], options: Options, asked: int) -> None:
    """Guess what negatives and reasoning of so many questions will ask at most."""
    negatives = options.hard_negatives.num_neg
    if hard_negatives.NAME in totals:
        totals[hard_negatives.NAME].shards += 1
        totals[hard_negatives.NAME].guess_verdicts(
            asked * negatives, DOCUMENT_TOKENS + PROMPT_TOKENS
        )
    # Where answers are sampled, all that may be asked for.
    answers = asked * options.reasoning.n * max(1, options.reasoning.rejection_samples)
    total = totals[reasoning.NAME]
    total.shards += 1
    total.guess(answers, (1 + negatives) * DOCUMENT_TOKENS + PROMPT_TOKENS, COMPLETION_TOKENS)
    if options.reasoning.judge_answers:
        total.guess_verdicts(answers, PROMPT_TOKENS)


async def _questions(
    planner: Planner, asking: Asking, shard: str, say: Callable[[str], None] | None
) -> dict[str, Usage]:
    options = planner.options.questions
    rows = planner.tables.load(documents.NAME, shard).collect()
    operator = questions.operator(rows, options, asking)
    async with asking.estimating(**_how(options, say)) as asked:
        await operator(asked.teacher, asked.judge)
        _say(say, shard, asked.teacher.say_waiting())
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
        _say(say, shard, asked.teacher.say_waiting())
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
    """The sum over the shards of one stage, with what each model costs by the way it is asked.

    Args:
        stage: its name.
        asking: whom it asks.
        batch: through the Batch API.
    """

    def __init__(self, stage: str, asking: Asking, batch: bool) -> None:
        self.stage = stage
        self.asking = asking
        self.batch = batch
        self.prices = asking.teacher.load_prices()
        self.usages: dict[str, Usage] = {}
        self.shards = 0
        self.bound = False

    def count_all(self, usages: Mapping[str, Usage]) -> None:
        """Count what a shard would ask of each model."""
        self.shards += 1
        for model, usage in usages.items():
            self._count(model, usage)

    def guess(self, requests: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Count requests to the teacher, of so many tokens each."""
        name = self.asking.teacher.name
        self._guess(name, requests, prompt_tokens, completion_tokens, self.batch)

    def guess_verdicts(self, requests: int, prompt_tokens: int) -> None:
        """Count requests to the judge, of so many tokens each."""
        batch = self.batch and not self.asking.judges_apart(self.batch)
        self._guess(self.asking.judging.name, requests, prompt_tokens, VERDICT_TOKENS, batch)

    def _guess(
        self, model: str, requests: int, prompt_tokens: int, completion_tokens: int, batch: bool
    ) -> None:
        self.bound = True
        prompt, completion = requests * prompt_tokens, requests * completion_tokens
        cost = self.prices.cost(model, prompt, completion, batch=batch)
        usage = Usage(
            requests=requests,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=cost,
        )
        self._count(model, usage)

    def _count(self, model: str, usage: Usage) -> None:
        counted = self.usages.get(model)
        self.usages[model] = usage if counted is None else counted + usage

    def result(self) -> StageEstimate:
        asked = {model: usage for model, usage in self.usages.items() if usage.requests}
        usages = self.usages.values()
        costs = [usage.cost_usd for usage in asked.values()]
        known = [cost for cost in costs if cost is not None]
        return StageEstimate(
            self.stage,
            self.shards,
            sum(usage.requests for usage in usages),
            sum(usage.answers_reused for usage in usages),
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(known) if len(known) == len(costs) else None,
            self.bound,
            " and ".join(asked) or self.asking.teacher.name,
        )
