"""Make numbers of words, as the splits and the search for evaluation texts compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.text.words import pieces_in, sets_no_blanks, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SEED = 0x5EED


def word_sets(texts: pl.Series) -> pl.Series:
    """Return the different words of each text, sorted, as `list[u32]`; null where there are none.

    Where a script sets no blanks, `words.pieces_in` has what two texts alike have in common.

    >>> word_sets(pl.Series(["Salt melts ice. ICE melts.", "..."])).list.len().to_list()
    [3, None]
    """
    pieces = [sorted(pieces_in(text)) if sets_no_blanks(text) else None for text in texts]
    numbered = pl.DataFrame(
        {"text": texts, "pieces": pl.Series(pieces, dtype=pl.List(pl.String))}
    ).with_row_index("row")
    sets = (
        numbered.select("row", word=pl.coalesce("pieces", words_of(pl.col("text"))))
        .explode("word", empty_as_null=False, keep_nulls=False)
        .select("row", word=(pl.col("word").hash(_SEED) // 2**32).cast(pl.UInt32))
        .unique()
        .sort("row", "word")
        .group_by("row", maintain_order=True)
        .agg("word")
    )
    return numbered.select("row").join(sets, on="row", how="left", maintain_order="left")["word"]


def runs(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """Return `row, place, run` (a u64 hash) of every `length` words in a row in `row, text`.

    `place` counts words of the row from 0; texts that are shorter have no run. A rolling hash: Karp, Rabin,
    "Efficient randomized pattern-matching algorithms", 1987.

    >>> texts = pl.DataFrame({"row": [0, 1], "text": ["salt melts ice", "So salt melts ice"]})
    >>> found = runs(texts, 3)
    >>> found.select("row", "place").rows()
    [(0, 0), (1, 0), (1, 1)]
    >>> found["run"][0] == found["run"][2]
    True
    """
    import numpy as np

    each = (
        texts.select("row", word=words_of(pl.col("text")))
        .explode("word", empty_as_null=False, keep_nulls=False)
        .select("row", word=pl.col("word").hash(_SEED))
    )
    n = each.height - length + 1
    if n < 1:
        return pl.DataFrame(
            schema={"row": texts.schema["row"], "place": pl.Int64, "run": pl.UInt64}
        )
    numbers: NDArray[np.uint64] = each["word"].to_numpy()
    rolled: NDArray[Any] = np.zeros(n, np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for place in range(length):
            rolled = rolled * factor + numbers[place : place + n]
        # Low bits of sums are poor; buckets go by them.
        rolled ^= rolled >> np.uint64(29)
    within = pl.int_range(pl.len()).over("row")
    return (
        each.select("row", place=within, last=pl.col("row").shift(1 - length))
        .head(n)
        .with_columns(run=pl.Series(rolled))
        .filter(pl.col("row") == pl.col("last"))
        .drop("last")
    )
