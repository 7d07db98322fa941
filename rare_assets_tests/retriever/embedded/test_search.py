"""The best of many scores, in the order that both engines give."""

import numpy as np

from rare_assets.retriever.embedded.search import best


def test_scores_equal_to_five_digits_are_ordered_by_id():
    scores = np.array([1.00001, 2.50000, 1.00004, 0.0, 2.50004, 2.5001], np.float32)

    def numbers(depth):
        return best(scores, np.arange(len(scores)), depth)[0].tolist()

    assert numbers(9) == [5, 1, 4, 0, 2]
    assert numbers(2) == [5, 1]


def test_the_best_are_found_among_many():
    rng = np.random.default_rng(5)
    scores = np.round(rng.gamma(2, 2, 20_000), 2).astype(np.float32) * (rng.random(20_000) < 0.3)
    for depth in (1, 10, 100, 1000):
        numbers, values = best(scores, np.arange(len(scores)), depth)
        expected = sorted(np.flatnonzero(scores), key=lambda n: (-float(f"{scores[n]:.4e}"), n))
        assert numbers.tolist() == expected[:depth]
        assert values.tolist() == scores[expected[:depth]].tolist()


def test_documents_of_equal_score_are_ordered_by_their_place():
    scores = np.array([2, 0, 2, 1, 2], np.float32)
    assert best(scores, np.array([4, 0, 3, 1, 2]), 3)[0].tolist() == [4, 2, 0]
