"""Hard negatives: the options of a shard's mining."""

from typing import Literal, Self

import dagster as dg
from pydantic import Field, model_validator

from rare_assets.operators.bm25_hard_neg import (
    DEFAULT_FALLBACK_RANGE_MIN,
    DEFAULT_RELATIVE_MARGIN,
    require_ranks,
)
from rare_assets.stages.provenance import DEFAULT_GROWTH


class HardNegativesConfig(dg.Config):
    """Which passages of the ranking become negatives; names as sentence-transformers has them."""

    num_neg: int = Field(3, ge=1, description="Negatives per question.")
    query: Literal["question", "scenario_question"] = Field(
        "question", description="What is searched with: the question, or scenario and question."
    )
    range_min: int = Field(0, ge=0, description="Best ranks that are skipped.")
    range_max: int = Field(100, ge=1, description="Worst rank that is considered.")
    max_score: float | None = Field(None, description="Highest BM25 score of a negative.")
    min_score: float | None = Field(None, description="Lowest BM25 score of a negative.")
    absolute_margin: float | None = Field(
        None, description="How far below the gold document's score a negative must be."
    )
    relative_margin: float = Field(
        DEFAULT_RELATIVE_MARGIN,
        ge=0,
        le=1,
        description="A negative scores at most (1 - relative_margin) of the gold document's score. "
        "0: no bound.",
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
        "relative_margin, else off.",
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
        return self
