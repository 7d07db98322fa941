"""The options of mining, their ranges, and the rules that leave a candidate out."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rare_assets.operators.bm25_hard_neg.siblings import HOLDS_ANSWER, SAME_PARENT

DEFAULT_RELATIVE_MARGIN = 0.2


DEFAULT_FALLBACK_RANGE_MIN = 20


DEFAULT_NEAR_DUPLICATE_THRESHOLD = 0.8


Query = Literal["question", "scenario_question", "gold", "fused"]


QUERIES_OF = ("question", "scenario_question", "gold", "fused")


# What may leave a candidate out, in the order in which it is tried.
RULES = (
    *(
        "twin_of_gold",
        "same_text",
        SAME_PARENT,
        HOLDS_ANSWER,
        "max_score",
        "min_score",
        "absolute_margin",
        "relative_margin",
    ),
    *("near_duplicate_of_gold", "near_duplicate_of_negative", "judged_relevant", "judge_undecided"),
)


# Elasticsearch's index.max_result_window: no engine is asked for more hits than that.
MAX_DEPTH = 10_000


MARGINS = ("absolute_margin", "relative_margin")


class MiningOptions(NamedTuple):
    """The options of `bm25_hard_neg`, settled: a margin or threshold that is off is None."""

    num_neg: int
    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    fallback_range_min: int | None
    sampling_strategy: str
    seed: int
    near_duplicate_threshold: float | None

    @property
    def has_margin(self) -> bool:
        """Return True if either margin is on."""
        return self.absolute_margin is not None or self.relative_margin is not None


def duplicate_threshold(threshold: float | None, relative_margin: float | None) -> float | None:
    """Return the share of common words that makes a near-duplicate; None where that is off.

    >>> duplicate_threshold(None, 0.2), duplicate_threshold(None, None), duplicate_threshold(0.0, 0.2)
    (0.8, None, None)
    """
    if threshold is None:
        return DEFAULT_NEAR_DUPLICATE_THRESHOLD if relative_margin else None
    return threshold or None


def require_ranks(num_neg: int, range_min: int, range_max: int) -> None:
    """Refuse ranks that can't hold so many negatives.

    Raises:
        ValueError: names the three options and their bounds.
    """
    if range_min < 0 or range_max > MAX_DEPTH or range_max - range_min < num_neg:
        raise ValueError(
            f"range_min={range_min} to range_max={range_max} must hold num_neg={num_neg} ranks or "
            f"more, within 0 to {MAX_DEPTH}."
        )


def check_options(options: MiningOptions, query: str) -> None:
    """Refuse options that are out of their bounds.

    Raises:
        ValueError: names the option.
    """

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(message)

    require(options.num_neg >= 1, f"num_neg must be at least 1, not {options.num_neg}.")
    require_ranks(options.num_neg, options.range_min, options.range_max)
    for name in ("relative_margin", "near_duplicate_threshold"):
        value = getattr(options, name)
        require(value is None or 0 < value <= 1, f"{name} must be between 0 and 1, not {value}.")
    require(
        (options.fallback_range_min or 0) >= 0,
        f"fallback_range_min must be at least 0, not {options.fallback_range_min}.",
    )
    require(
        query in QUERIES_OF,
        f"query must be one of {', '.join(QUERIES_OF)}, not {query!r}.",
    )
    require(
        options.sampling_strategy in ("top", "random"),
        f"sampling_strategy must be 'top' or 'random', not {options.sampling_strategy!r}.",
    )


def score_rule(score: float, gold_score: float, options: MiningOptions) -> str | None:
    """Return the rule that leaves a candidate of this score out; None if none does.

    The margins apply only where the gold document scores above 0.
    """
    if options.max_score is not None and score > options.max_score:
        return "max_score"
    if options.min_score is not None and score < options.min_score:
        return "min_score"
    if gold_score <= 0:
        return None
    if options.absolute_margin is not None and score > gold_score - options.absolute_margin:
        return "absolute_margin"
    if options.relative_margin is not None and score > gold_score * (1 - options.relative_margin):
        return "relative_margin"
    return None
