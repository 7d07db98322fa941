"""Which texts repeat an earlier one but for a few words: in memory and time linear in their number.

Two texts are near-duplicates if their word sets overlap by at least a threshold (Jaccard: words in
common over words in either). Such a pair shares a word among the rarest few of each text (prefix
filter: Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007), so only texts that
do are compared. Where very many share one, each is compared with its nearest `NEIGHBOURS` alone, in
the order of their rarest words: a shard of one template with 10,000 names stays cheap.
"""

from __future__ import annotations

import polars as pl

NEIGHBOURS = 30


def near_duplicates(texts: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Find the texts that repeat an earlier one.

    Args:
        texts: `words: list[str]`, each word once, and any other columns; order tells what is earlier.
        threshold: least overlap (Jaccard) that counts, above 0 and at most 1.

    Returns:
        The rows that do, with `row` (place among `texts`) and `repeats` (place of an earlier text
        that is alike).
    """
    numbered = texts.with_row_index("row").filter(pl.col("words").list.len() > 0)
    sets = _rarest_first(numbered)
    first = sets.group_by("words").agg(pl.col("row").min().alias("repeats"))
    same = sets.join(first, on="words").filter(pl.col("row") > pl.col("repeats"))
    distinct = sets.join(same, on="row", how="anti").sort("words")
    similar = _similar(distinct, threshold)
    repeats = pl.concat([same.select("row", "repeats"), similar])
    earliest = repeats.group_by("row").agg(pl.col("repeats").min())
    return numbered.join(earliest, on="row").sort("row")


def _rarest_first(numbered: pl.DataFrame) -> pl.DataFrame:
    """Return `row, words`: each text's words as numbers, the rarest of the shard first."""
    each = numbered.select("row", "words").explode("words")
    by_rarity = each.group_by("words").len().sort("len", "words").with_row_index("word")
    return (
        each.join(by_rarity.select("words", "word"), on="words")
        .group_by("row")
        .agg(words=pl.col("word").sort())
    )


def _similar(distinct: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Return `row, repeats` of the pairs that overlap enough, among texts of different word
    sets."""
    size = pl.col("words").list.len()
    # A text of n words can spare floor((1 - t) * n) of them: one among its n + 1 rarest is common.
    spare = (size - (size * threshold - 1e-9).ceil()).cast(pl.Int64)
    posted = (
        distinct.select(
            "row", place=pl.int_range(pl.len()), word=pl.col("words").list.head(spare + 1)
        )
        .explode("word")
        .sort("word", "place")
    )
    sharing = posted["word"].value_counts()["count"].max()
    furthest = min(NEIGHBOURS, int(sharing) - 1) if isinstance(sharing, int) else 0
    none = posted.clear().select("row", repeats="row")
    # One step at a time: all pairs at once would be the memory of the whole.
    return pl.concat(
        [
            none,
            *(
                _overlapping(
                    posted.select("row", other=pl.col("row").shift(step).over("word")).drop_nulls(),
                    distinct,
                    threshold,
                )
                for step in range(1, furthest + 1)
            ),
        ]
    )


def _overlapping(pairs: pl.DataFrame, sets: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Return `row, repeats` of those pairs `row, other` whose word sets overlap enough."""
    ordered = pairs.select(
        row=pl.max_horizontal("row", "other"), repeats=pl.min_horizontal("row", "other")
    ).unique()
    compared = ordered.join(sets.select("row", "words"), on="row").join(
        sets.select(repeats="row", earlier="words"), on="repeats"
    )
    common = pl.col("words").list.set_intersection("earlier").list.len()
    either = pl.col("words").list.len() + pl.col("earlier").list.len() - common
    return compared.filter(common >= either * threshold - 1e-9).select("row", "repeats")
