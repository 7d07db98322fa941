"""What holds for every answer of the teacher, whatever was asked: is it whole, and what if it is not."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from rare_assets.teacher.finish import unfinished
from rare_assets.teacher.interface import Answer, Outcome, Unusable

# What an ask took, in columns that rows and rejects share.
COSTS = ("prompt_tokens", "completion_tokens", "attempts")

# Rejects that another answer of the teacher could not mend: nothing was asked, or it was answered.
NOT_RETRYABLE = (
    "too_short",
    "duplicate_question",
    "not_mined",
    "gold_text_missing",
    "wrong_answer_retried",
)

# A refusal says so at once and says little else.
_REFUSAL_LENGTH = 300
_REFUSAL = re.compile(
    r"""\W*(?:
        (?:i(?:'m|\ am)\ )?(?:(?:so|very|really|truly)\ )?sorry\b[^.!?]*?\bi(?:'m|\ am|\ can|\ could|\ will|\ won't|\ must)
        | (?:i\ (?:must\ )?apologi[sz]e|my\ apologies)\b[^.!?]*?\bi(?:'m|\ am|\ can|\ could|\ will|\ won't|\ must)
        | (?:unfortunately,?\ )?i\ (?:can(?:'t|not|\ not)|could(?:n't|\ not)|won't|will\ not|am\ (?:not\ able|unable)\ to)
          \ (?:\w+\ )?(?:help|assist|answer|provide|comply|fulfil?l|create|write|generate|do|discuss|continue|engage|support|respond)\b
        | i(?:'m|\ am)\ (?:not\ able|unable)\ to\b
        | as\ an?\ (?:ai|artificial\ intelligence|language\ model|large\ language\ model)\b
    )""",
    re.VERBOSE,
)


def retryable(rejects: pl.LazyFrame) -> pl.LazyFrame:
    """Of some rejects (`schemas.TeacherRejects`) those that another answer could mend."""
    return rejects.filter(~pl.col("reason").is_in(NOT_RETRYABLE))


def is_refusal(text: str) -> bool:
    """Whether a text is nothing but the usual sentence that declines to answer."""
    plain = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().split())
    return len(plain) <= _REFUSAL_LENGTH and _REFUSAL.match(plain) is not None


def require_whole(answer: Answer) -> None:
    """Raise Unusable unless there is a whole text: `refused`, `content_filter`, `cut` or `empty`."""
    if answer.refusal:
        raise Unusable("refused", answer.refusal)
    if (stopped := unfinished(answer)) is not None:
        raise stopped
    if not answer.content.strip():
        raise Unusable("empty", "the answer has no content")
    if is_refusal(answer.content):
        raise Unusable("refused", answer.content.strip())


def costs(outcome: Outcome[Any]) -> dict[str, int]:
    """What an ask took, in the columns COSTS."""
    return {column: getattr(outcome, column) for column in COSTS}


def reject(outcome: Outcome[Any], model: str) -> dict[str, Any]:
    """Columns of `schemas.TeacherRejects`, ids excepted, for an ask that came to nothing.

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
    """Columns of `schemas.TeacherRejects`, ids excepted, for what has no cost of its own."""
    return {
        "reason": reason,
        "detail": detail,
        "model": model,
        **dict.fromkeys(COSTS, 0),
    }
