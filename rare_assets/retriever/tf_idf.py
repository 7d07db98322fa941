"""Choose the terms that a text is about, by one rule for both engines."""

from __future__ import annotations

from collections.abc import Mapping

from rare_assets.retriever.interface import BEST_TERMS


def best_terms(counts: Mapping[str, int], idf: Mapping[str, float]) -> list[str]:
    """Return the terms of which tf * idf is highest, in that order; of equal ones the first letters first.

    Args:
        counts: how often the text has each of its terms.
        idf: of these terms, 0 of those that the index lacks: they are left out.

    Example:
        >>> best_terms({"lake": 2, "the": 3, "sea": 1}, {"lake": 1.5, "the": 0.0, "sea": 3.0})
        ['lake', 'sea']
    """
    weights = [times * idf[term] for term, times in counts.items()]
    # Only what may be equal to the last one is put in order.
    least = sorted(weights)[-BEST_TERMS] - 2e-6 if len(weights) > BEST_TERMS else 0.0
    rated = [
        (-round(weight, 6), term)
        for term, weight in zip(counts, weights, strict=True)
        if weight > 0 and weight >= least
    ]
    return [term for _, term in sorted(rated)[:BEST_TERMS]]
