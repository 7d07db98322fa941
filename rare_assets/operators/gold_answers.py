"""Tell whether there are references that answers can be compared with, before anything is paid for."""

from __future__ import annotations

import polars as pl

from rare_assets.operators.doc2query import GIVEN, given_question


class NoReferences(ValueError):
    """Raised where answers are to be sampled or judged by references, and no question has one that serves."""


def require_references(questions: pl.DataFrame, rejection_samples: int, *, judges: bool) -> None:
    """Refuse to sample or judge answers where no question has anything to judge them by.

    Args:
        questions: `schemas.Questions`.
        judges: whether a judge is asked about answers.

    Raises:
        NoReferences: says what is missing, and what to do.
    """
    if questions.is_empty() or not (rejection_samples or judges):
        return
    if questions.select(can_tell(judges=judges).any()).item():
        return
    wanted = "rejection_samples" if rejection_samples else "judge_answers"
    written = questions.select(not_blank("reference_answer").is_not_null().any()).item()
    if written:
        raise NoReferences(
            f"{wanted} compares answers with references, and the teacher wrote those of this shard itself: "
            "only a judge can tell whether an answer says the same in other words. Set judge_answers: true, "
            f"or leave {wanted} out; or give the source a `question` beside its `answer`."
        )
    raise NoReferences(
        f"{wanted} compares answers with references, and no question of this shard has one: an `answer` of "
        "the source counts where its row has the `question` that it answers. Add both to the source, have "
        f"the teacher write references (as the packaged doc2query.md does), or leave {wanted} out."
    )


def require_given_answers(documents: pl.DataFrame, rejection_samples: int, *, judges: bool) -> None:
    """Refuse to sample answers, before questions are paid for, where none will have a reference that
    settles them without a judge.

    Args:
        documents: `schemas.Documents`.
        judges: whether a judge is asked about answers.

    Raises:
        NoReferences: says what is missing, and what to do.
    """
    if documents.is_empty() or not rejection_samples or judges:
        return
    given = given_question().is_not_null() & not_blank("answer").is_not_null()
    if not documents.select(given.any()).item():
        raise NoReferences(
            "rejection_samples compares answers with references, and no row of this shard has a `question` "
            "with its `answer`: an `answer` alone belongs to no question, and of references that the teacher "
            "writes only a judge can tell whether an answer says the same. Add a `question` to the source, set "
            "judge_answers: true, or leave rejection_samples out."
        )


def can_tell(*, judges: bool) -> pl.Expr:
    """Return True where it can always be told if an answer to a question is right.

    Args:
        judges: whether a judge is asked, who can tell of any reference; without one only a reference that
            the source gave settles it.

    >>> questions = pl.DataFrame({"reference_answer": ["42", " "], "origin": ["given", "given"]})
    >>> questions.select(can_tell(judges=False)).to_series().to_list()
    [True, False]
    """
    has_reference = not_blank("reference_answer").is_not_null()
    return has_reference & (pl.lit(judges) | pl.col("origin").eq_missing(GIVEN))


def not_blank(column: str) -> pl.Expr:
    """Return a text column with null in place of blank texts."""
    return pl.when(pl.col(column).str.strip_chars() != "").then(pl.col(column))
