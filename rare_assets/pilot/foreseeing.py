"""What a configuration will ask about a sample, found out before the first request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from rare_assets.operators.doc2query import given_question
from rare_assets.pilot.configuration import Configuration
from rare_assets.pilot.corpus import Sample
from rare_assets.resources.configurable import teacher_of
from rare_assets.retriever import Retriever
from rare_assets.schemas import Produced
from rare_assets.stages import hard_negatives, questions, reasoning
from rare_assets.stages.asking import PROMPT_TOKENS, VERDICT_TOKENS, Asking, AskingConfig, Operator
from rare_assets.stages.options import Options
from rare_assets.teacher import COMPLETION_TOKENS, Usage, text_tokens


class Foreseen(NamedTuple):
    """Requests to send, stored answers, and what the requests take; `is_bound` where the questions that
    they are about have yet to be asked for. `cost_usd` is None without a price."""

    requests: int
    stored: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    is_bound: bool

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        cost = "unknown, no price" if self.cost_usd is None else f"about ${self.cost_usd:.4f}"
        return (
            f"{self.stored:,} answers are stored, {'at most' if self.is_bound else 'exactly'} "
            f"{self.requests:,} requests to send (beside those for answers that can't be used): about "
            f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens, cost {cost}"
        )


async def foresee(configuration: Configuration, sample: Sample, index: Retriever) -> Foreseen:
    """Count what is stored and what would be sent. Sends nothing.

    Raises:
        NoReferences: answers are to be sampled against references, and there are none.
    """
    _, options, teacher, templates = configuration
    documents = sample.documents
    writer = teacher_of(teacher, questions.NAME).name
    # By model, since each has a price of its own.
    totals: defaultdict[str, Usage] = defaultdict(Usage)
    asked = await _foreseen(
        questions.asking(options.questions, teacher, templates),
        options.questions,
        lambda asking: questions.operator(documents, options.questions, asking),
        totals,
    )
    is_bound = (
        any(total.requests for total in totals.values()) or options.hard_negatives.judge_relevance
    )
    if is_bound:
        wanted = _wanted(documents, options.questions.min_words, options.questions.num_questions)
        _guess_reasoning(
            options,
            documents,
            max(wanted, asked.rows.height),
            totals[teacher_of(teacher, reasoning.NAME).name],
            totals[teacher_of(teacher, "judge").name],
        )
    elif asked.rows.height:
        mine = hard_negatives.mining(asked.rows, index, sample.families, options.hard_negatives)
        mined = mine().produced.rows
        await _foreseen(
            reasoning.asking(options.reasoning, teacher, templates),
            options.reasoning,
            lambda asking: reasoning.operator(
                asked.rows, documents, mined, options.reasoning, asking
            ),
            totals,
        )
    prices = teacher.load_prices()
    costs = [
        prices.cost(model, total.prompt_tokens, total.completion_tokens)
        for model, total in totals.items()
        if total.requests or model == writer
    ]
    known = [cost for cost in costs if cost is not None]
    return Foreseen(
        sum(total.requests for total in totals.values()),
        sum(total.answers_reused for total in totals.values()),
        sum(total.prompt_tokens for total in totals.values()),
        sum(total.completion_tokens for total in totals.values()),
        sum(known) if len(known) == len(costs) else None,
        is_bound,
    )


async def _foreseen(
    asking: Asking,
    config: AskingConfig,
    operator: Callable[[Asking], Operator[Produced]],
    totals: defaultdict[str, Usage],
) -> Produced:
    """Run an operator on stored answers alone, and add what it would ask to the totals."""
    how = {"refresh": config.refresh, "retry_rejects": config.retry_rejects}
    async with asking.estimating(**how) as stored:
        produced = await operator(asking)(stored.teacher, stored.judge)
        for model, usage in stored.usage_by_model.items():
            totals[model] += usage
    return produced


def _wanted(documents: pl.DataFrame, min_words: int, num_questions: int) -> int:
    """Return how many questions the sample will have at most."""
    given = documents.select(given_question().is_not_null().sum()).item()
    long_enough = documents.filter(given_question().is_null(), pl.col("n_words") >= min_words)
    return int(given) + long_enough.height * num_questions


def _guess_reasoning(
    options: Options, documents: pl.DataFrame, questions: int, answered: Usage, judged: Usage
) -> None:
    """Count at most what questions that are not there yet will have asked about them."""
    mean = sum(map(text_tokens, documents["text"])) // max(documents.height, 1)
    negatives, reasoning = options.hard_negatives, options.reasoning
    answers = questions * reasoning.n * max(1, reasoning.rejection_samples)
    longest = min(COMPLETION_TOKENS, reasoning.max_tokens or COMPLETION_TOKENS)
    guesses = [(answered, answers, (1 + negatives.num_neg) * mean + PROMPT_TOKENS, longest)]
    if negatives.judge_relevance:
        guesses.append(
            (judged, questions * negatives.num_neg, mean + PROMPT_TOKENS, VERDICT_TOKENS)
        )
    if reasoning.judge_answers:
        guesses.append((judged, answers, PROMPT_TOKENS, VERDICT_TOKENS))
    for total, requests, prompt, completion in guesses:
        total.requests += requests
        total.prompt_tokens += requests * prompt
        total.completion_tokens += requests * completion
