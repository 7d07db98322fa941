"""Near-duplicates against a comparison of every pair with every other."""

import random

import polars as pl
import pytest

from rare_assets.checks.near_duplicates import NEIGHBOURS, near_duplicates


def every_pair(texts: list[list[str]], threshold: float) -> dict[int, set[int]]:
    """Place of each text that repeats an earlier one -> places of all that it repeats."""
    found = {}
    sets = [set(words) for words in texts]
    for row, words in enumerate(sets):
        repeated = {
            earlier
            for earlier, others in enumerate(sets[:row])
            if words and len(words & others) >= threshold * len(words | others)
        }
        if repeated:
            found[row] = repeated
    return found


def as_found(texts, threshold):
    frame = pl.DataFrame({"words": texts}, schema={"words": pl.List(pl.String)})
    found = near_duplicates(frame, threshold)
    return dict(found.select("row", "repeats").iter_rows())


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_what_comparing_all_pairs_finds(threshold, seed):
    draw = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(2_000)]
    texts: list[list[str]] = []
    for _ in range(300):
        if texts and draw.random() < 0.4:
            # A variant of an earlier text: some words left out, some put in.
            words = set(draw.choice(texts))
            words -= set(draw.sample(sorted(words), min(len(words), draw.randrange(4))))
            words |= set(draw.sample(vocabulary, draw.randrange(3)))
        else:
            words = set(draw.choices(vocabulary, k=draw.randrange(1, 25)))
        texts.append(sorted(words))
    expected, found = every_pair(texts, threshold), as_found(texts, threshold)
    assert len(expected) > 5
    assert found.keys() == expected.keys()
    assert all(repeats in expected[row] for row, repeats in found.items())


def test_identical_texts_are_all_found_however_many():
    texts = [["why", "does", "it", "rain"]] * 5_000 + [["how"]]
    assert as_found(texts, 0.8) == dict.fromkeys(range(1, 5_000), 0)


def test_a_template_is_compared_within_its_neighbourhood():
    """Word sets of a template with one word that differs: 9 of 11 words in common, above 0.8."""
    template = [f"t{number}" for number in range(9)]
    texts = [[*template, f"name{number:05}"] for number in range(10 * NEIGHBOURS)]
    found = as_found(texts, 0.8)
    assert sorted(found) == list(range(1, len(texts)))


def test_blank_and_empty_input_repeat_nothing():
    assert as_found([], 0.8) == {}
    assert as_found([[], [], ["a"]], 0.8) == {}
