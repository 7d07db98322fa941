"""The terms that a text is about."""

import random

from rare_assets.retriever.tf_idf import best_terms


def test_of_equal_terms_the_first_letters_come_first_and_unknown_ones_never():
    rng = random.Random(3)
    for _ in range(300):
        terms = [f"{rng.choice('abcdefgh')}{n}" for n in range(rng.randint(0, 40))]
        rng.shuffle(terms)
        idf = {term: rng.choice([0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, 3.0]) for term in terms}
        counts = {term: rng.randint(1, 3) for term in terms}
        weights = sorted((-round(counts[t] * idf[t], 6), t) for t in terms if idf[t])
        assert best_terms(counts, idf) == [term for _, term in weights[:12]]
