"""BM25HardNeg: for each question, documents that BM25 ranks high and that are not its gold document.

`mining` is the operator. `options` has its options and rules, `candidates` what is ranked for a
question, `batch` the choice, `kept` the rows of an earlier mining that still hold, `siblings` passages
of one parent, `stats` the figures.

It does what the operator of this name did in the RARE pipeline of DataFlow's earlier releases, with
the options of sentence-transformers' `mine_hard_negatives`.
"""

from rare_assets.operators.bm25_hard_neg.batch import Considered
from rare_assets.operators.bm25_hard_neg.candidates import BY_GOLD, BY_QUESTION
from rare_assets.operators.bm25_hard_neg.kept import (
    no_longer_held,
    one_a_row,
    searched_with,
    with_all_negatives,
)
from rare_assets.operators.bm25_hard_neg.mining import MinedNegatives, bm25_hard_neg
from rare_assets.operators.bm25_hard_neg.options import (
    DEFAULT_FALLBACK_RANGE_MIN,
    DEFAULT_NEAR_DUPLICATE_THRESHOLD,
    DEFAULT_RELATIVE_MARGIN,
    RULES,
    Query,
    require_ranks,
)
from rare_assets.operators.bm25_hard_neg.stats import GAP_QUANTILES, MiningStats, score_gaps

__all__ = [
    "BY_GOLD",
    "BY_QUESTION",
    "DEFAULT_FALLBACK_RANGE_MIN",
    "DEFAULT_NEAR_DUPLICATE_THRESHOLD",
    "DEFAULT_RELATIVE_MARGIN",
    "GAP_QUANTILES",
    "RULES",
    "Considered",
    "MinedNegatives",
    "MiningStats",
    "Query",
    "bm25_hard_neg",
    "no_longer_held",
    "one_a_row",
    "require_ranks",
    "score_gaps",
    "searched_with",
    "with_all_negatives",
]
