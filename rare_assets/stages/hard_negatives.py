"""Hard negatives: the options of a shard's mining, what it is made from, and its operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import dagster as dg
import polars as pl
from pydantic import Field, model_validator

from rare_assets.operators.bm25_hard_neg import (
    DEFAULT_FALLBACK_RANGE_MIN,
    DEFAULT_NEAR_DUPLICATE_THRESHOLD,
    DEFAULT_RELATIVE_MARGIN,
    MinedNegatives,
    Query,
    bm25_hard_neg,
    require_ranks,
)
from rare_assets.operators.bm25_hard_neg.siblings import SameParent
from rare_assets.operators.judge import with_verdicts
from rare_assets.operators.templates import Templates
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.stages import documents, questions
from rare_assets.stages.asking import Asking, Operator
from rare_assets.stages.provenance import GROWTH, MINED_FROM, options_of

if TYPE_CHECKING:
    from rare_assets.retriever import IndexState, Retriever

NAME = "hard_negatives"
UPSTREAMS = (documents.NAME, questions.NAME)
PROMPT = "judge_relevance"
# Only its judge does, where one is wanted.
ASKS = False
# The share that the corpus may grow by until negatives are mined anew.
DEFAULT_GROWTH = 0.2
# Questions at most that are mined to estimate what the judge will be asked: one in so many of a shard.
ESTIMATED_QUESTIONS = 1_000


class HardNegativesConfig(dg.Config):
    """Which passages of the ranking become negatives; names as sentence-transformers has them."""

    num_neg: int = Field(3, ge=1, description="Negatives per question.")
    query: Query = Field(
        "question",
        description="What is searched with: the question; scenario and question; the gold document's best "
        "terms (gold); or question and gold both, their ranks fused (fused). Where the question does not "
        "find its gold document, its terms are searched with in any case.",
    )
    range_min: int = Field(0, ge=0, description="Best ranks that are skipped.")
    range_max: int = Field(100, ge=1, description="Worst rank that is considered.")
    max_score: float | None = Field(None, description="Highest BM25 score of a negative.")
    min_score: float | None = Field(None, description="Lowest BM25 score of a negative.")
    absolute_margin: float | None = Field(
        None, description="How far below the gold document's score a negative must be."
    )
    relative_margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="A negative scores at most (1 - relative_margin) of the gold document's score. "
        f"0: no bound. Default: {DEFAULT_RELATIVE_MARGIN}, and no bound with judge_relevance, since it "
        "keeps out the best ones.",
    )
    fallback_range_min: int | None = Field(
        DEFAULT_FALLBACK_RANGE_MIN,
        ge=0,
        description="Where margins leave too few, as for a gold document that itself ranks low, "
        "passages ranked from here on make up for it. None: such slots stay empty.",
    )
    near_duplicate_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Passages whose words overlap with the gold document's, or a better negative's, "
        "by this share of the smaller are left out. 0: off. Default: 0.8 where there is a "
        "relative_margin or a judge, else off.",
    )
    same_parent: SameParent = Field(
        "allow",
        description="Passages of the gold document's own parent, as of one file: allow leaves out those "
        "that hold the answer by the words they share with it (better with judge_relevance); exclude "
        "leaves out all.",
    )
    sampling_strategy: Literal["top", "random"] = Field(
        "top", description="top: the best that are left; random: a seeded choice among them."
    )
    seed: int = Field(0, description="Seed of the random choice.")
    judge_relevance: bool = Field(
        False,
        description="Ask the teacher of each negative whether it answers the question; one that does "
        "is left out and replaced by the next. Costs a short request a negative, num_neg a question "
        "and one for each that was replaced.",
    )
    relabel: bool = Field(
        False,
        description="Name the passages that the judge finds to answer the question as `extra_positives`, "
        "which training files have as further positives. Needs judge_relevance.",
    )
    remine_after_growth: float = Field(
        DEFAULT_GROWTH,
        ge=0,
        description="Negatives mined earlier with these options are kept, where they still hold, "
        "while the corpus has grown by at most this share since: new ones would be new prompts to "
        "pay for. 0: mine every question anew.",
    )

    @model_validator(mode="after")
    def _require_ranks(self) -> Self:
        require_ranks(self.num_neg, self.range_min, self.range_max)
        if self.relabel and not self.judge_relevance:
            raise ValueError("relabel needs judge_relevance: true, whose verdicts it goes by.")
        return self

    def settled(self) -> dict[str, Any]:
        """Return the options whose default depends on others, as they are meant.

        >>> HardNegativesConfig().settled(), HardNegativesConfig(judge_relevance=True).settled()
        ({'relative_margin': 0.2}, {'relative_margin': 0.0})
        """
        margin = self.relative_margin
        if margin is None:
            margin = 0.0 if self.judge_relevance else DEFAULT_RELATIVE_MARGIN
        return {"relative_margin": margin}

    def operator_options(self) -> dict[str, Any]:
        """Return the options as the operator takes them."""
        options = self.model_dump(exclude={"remine_after_growth", "judge_relevance"})
        if self.near_duplicate_threshold is None and self.judge_relevance:
            options["near_duplicate_threshold"] = DEFAULT_NEAR_DUPLICATE_THRESHOLD
        return options | self.settled()


def asking(teacher: TeacherModel, templates: Templates) -> Asking:
    """Return whom the stage asks, of a deployment's teacher: its judge, where one is wanted."""
    judge = teacher_of(teacher, "judge")
    return Asking(judge, templates, judge)


def made_from(
    questions_hash: str,
    config: HardNegativesConfig,
    index: IndexState,
    templates: Templates,
    teacher: str,
) -> dict[str, str]:
    """Name what `hard_negatives[shard]` is made from, with the state of the index that was searched; the
    judge only where one was asked."""
    inputs = {
        questions.NAME: questions_hash,
        "options": options_of(config),
        "index": index.fingerprint,
        "bm25": index.bm25.fingerprint,
        MINED_FROM: str(index.n_documents),
        GROWTH: str(config.remine_after_growth),
    }
    if config.judge_relevance:
        inputs |= {
            "judge": teacher,
            "judge_prompt": templates.judge_relevance.fingerprint,
        }
    return inputs


def mining(
    asked: pl.DataFrame,
    engine: Retriever,
    passages: pl.DataFrame,
    config: HardNegativesConfig,
    earlier: pl.DataFrame | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Callable[..., MinedNegatives]:
    """Return BM25HardNeg over a shard's questions, which asks nobody unless it is given `is_relevant`.

    Args:
        passages: the shard's documents.
        earlier: negatives mined before, which are kept where they still hold.
    """
    return partial(
        bm25_hard_neg,
        asked,
        engine,
        **config.operator_options(),
        documents=passages,
        earlier=earlier,
        progress=progress,
    )


def estimated(asked: pl.DataFrame) -> pl.DataFrame:
    """Return about 1,000 questions, evenly spread, that are mined for an estimate; the same frame where those are all."""
    if asked.height <= ESTIMATED_QUESTIONS:
        return asked
    return asked.gather_every(-(-asked.height // ESTIMATED_QUESTIONS))


def operator(mine: Callable[..., MinedNegatives]) -> Operator[MinedNegatives]:
    """Return a mining that has the judge look at its negatives.

    Args:
        mine: as `mining` returns it.
    """
    return lambda _, judge: with_verdicts(lambda is_relevant: mine(is_relevant=is_relevant), judge)
