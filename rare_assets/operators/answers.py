"""Tell a whole answer of the teacher from one that is not, whatever was asked, and make rejects of the latter."""

from __future__ import annotations

from typing import Any

import polars as pl

from rare_assets.operators.refusals import is_refusal
from rare_assets.teacher import (
    Answer,
    Outcome,
    Parts,
    Unusable,
    is_degenerate,
    part,
    prose,
    unfinished,
)

# What an ask took, in columns that rows and rejects share.
COSTS = ("prompt_tokens", "completion_tokens", "attempts")

# Rejects that another answer of the teacher could not mend: nothing was asked, or it was answered.
NOT_RETRYABLE = (
    "too_short",
    "unsuitable_document",
    "duplicate_question",
    "not_mined",
    "gold_text_missing",
    "wrong_answer_retried",
)


def retryable(rejects: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rejects that another answer could mend.

    Args:
        rejects: `schemas.TeacherRejects`, of which `reason` is looked at.
    """
    return rejects.filter(~pl.col("reason").is_in(NOT_RETRYABLE))


def require_whole(answer: Answer) -> Parts:
    """Return chain and text of an answer that is whole; refuse any other.

    Where a server took all for the chain, an <answer> part in it counts as text.

    Raises:
        Unusable: `refused`, `content_filter`, `cut`, `empty` or `degenerate`.
    """
    if answer.refusal:
        raise Unusable("refused", answer.refusal)
    if (stopped := unfinished(answer)) is not None:
        raise stopped
    parts = prose(part(answer))
    if parts.unclosed:
        raise Unusable("cut", "the chain of reasoning is not closed")
    if not answer.content.strip():
        if not parts.text and "<answer>" not in parts.chain.lower():
            raise Unusable("empty", "the answer has no content")
        parts = parts if parts.text else Parts("", parts.chain)
    if is_refusal(parts.text):
        raise Unusable("refused", parts.text)
    if is_degenerate(parts.chain) or is_degenerate(parts.text):
        raise Unusable("degenerate", "the answer says the same again and again")
    return parts


def costs(outcome: Outcome[Any]) -> dict[str, int]:
    """Return the tokens and attempts that an ask took, by the names in `COSTS`."""
    return {column: getattr(outcome, column) for column in COSTS}


def reject(outcome: Outcome[Any], model: str) -> dict[str, Any]:
    """Return the columns of `schemas.TeacherRejects`, without ids, of an ask that came to nothing.

    `detail` is the last answer as it came or, if it said nothing, what was wrong.
    """
    answer = outcome.answer
    said = (answer.raw or answer.refusal) if answer else None
    return {
        "reason": outcome.reason or "unusable",
        "detail": said or outcome.detail,
        "model": answer.model if answer else model,
        **costs(outcome),
    }


def free_reject(reason: str, detail: str, model: str) -> dict[str, Any]:
    """Return the columns of `schemas.TeacherRejects`, without ids, of what has no cost of its own.

    >>> free_reject("too_short", "3 words, min_words is 20", "a-model")["prompt_tokens"]
    0
    """
    return {
        "reason": reason,
        "detail": detail,
        "model": model,
        **dict.fromkeys(COSTS, 0),
    }
