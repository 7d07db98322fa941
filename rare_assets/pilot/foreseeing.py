"""What a configuration will ask about a sample, found out before the first request."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.operators.doc2query import doc2query, given_question
from rare_assets.operators.judge import Judge
from rare_assets.operators.reason_distill import reason_distill
from rare_assets.pilot.configuration import Configuration
from rare_assets.pilot.corpus import Sample
from rare_assets.resources.configurable import teacher_of
from rare_assets.retriever import Retriever
from rare_assets.stages.asking import PROMPT_TOKENS, VERDICT_TOKENS
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
    writer, reasoner, judge = (
        teacher_of(teacher, "questions"),
        teacher_of(teacher, "reasoning"),
        teacher_of(teacher, "judge"),
    )
    judging = judge.max_tokens(None)
    # By model, since each has a price of its own.
    totals: defaultdict[str, Usage] = defaultdict(Usage)
    is_bound = False
    asking = options.questions
    how: dict[str, Any] = {"refresh": asking.refresh, "retry_rejects": asking.retry_rejects}
    async with writer.estimating(**how) as estimating, judge.estimating(**how) as verdicts:
        questions = await doc2query(
            documents,
            estimating,
            templates=templates,
            judge=Judge(verdicts, templates, max_tokens=judging)
            if asking.judge_questions
            else None,
            **asking.operator_options(writer),
        )
        totals[writer.name] += estimating.usage
        totals[judge.name] += verdicts.usage
    wanted = _wanted(documents, asking.min_words, asking.num_questions)
    if any(total.requests for total in totals.values()) or options.hard_negatives.judge_relevance:
        asked = max(wanted, questions.rows.height)
        _guess_reasoning(options, documents, asked, totals[reasoner.name], totals[judge.name])
        is_bound = True
    elif questions.rows.height:
        mine = partial(bm25_hard_neg, questions.rows, index, documents=sample.families)
        negatives = mine(**options.hard_negatives.operator_options()).produced.rows
        answering = options.reasoning
        how = {"refresh": answering.refresh, "retry_rejects": answering.retry_rejects}
        async with reasoner.estimating(**how) as estimating, judge.estimating(**how) as verdicts:
            await reason_distill(
                questions.rows,
                documents,
                negatives,
                estimating,
                templates=templates,
                judge=Judge(verdicts, templates, max_tokens=judging)
                if answering.judge_answers
                else None,
                **answering.operator_options(reasoner),
            )
            totals[reasoner.name] += estimating.usage
            totals[judge.name] += verdicts.usage
    prices = teacher.load_prices()
    costs = [
        prices.cost(model, total.prompt_tokens, total.completion_tokens)
        for model, total in totals.items()
        if total.requests or model == writer.name
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


def _wanted(documents: pl.DataFrame, min_words: int, num_questions: int) -> int:
    """Questions that the sample will have at most."""
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
