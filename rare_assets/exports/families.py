"""Find which documents belong together, and which split they are in.

A family is the passages of one parent, documents of the same text, near-duplicates, and what these tie
together. Each parent draws a split by a hash of the seed and its own id alone; a family of several
parents goes to the split nearest to training that any of them drew. So no state is kept, no order
matters, and as a corpus grows a document moves only ever towards training, and only where a new
document ties it to one there: what a model was trained on is never a test later.

Near-duplicates are found by MinHash (Broder, "On the resemblance and containment of documents", 1997)
with banded signatures, and each pair is verified by its exact overlap (Jaccard) before it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.exports.options import SPLITS, ExportOptions
from rare_assets.exports.words import word_sets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]

# A pair at the default overlap of 0.8 shares one of these bands with a probability of 0.9999.
_BANDS, _ROWS = 40, 7
_BAND_NAMES = [f"band_{number}" for number in range(_BANDS)]
# In a crowded band a document is compared with so many before it, and with the first.
_NEIGHBOURS = 3
_BATCH = 10_000
# So many held-out documents are compared with a whole batch of others at once; more with fewer.
_HELD_OUT, _LEAST_BATCH = 2_500, 500
_PAIRS = 250_000
# Sketches of another polars may hash words otherwise.
SKETCH_VERSION = f"1/{pl.__version__}"


def sketch(documents: pl.DataFrame) -> pl.DataFrame:
    """Return what comparing a document takes: a row a document, in their order.

    Args:
        documents: `doc_id, text, title, text_hash`, and `parent_id` where the table has it.

    Returns:
        `doc_id, title, parent, text_hash, words: list[u32]` and `band_0 .. band_39: u64` (null in a
        text without words).

    >>> texts = ["Salt melts ice on the road.", "Ice on the road melts: salt!", "Grass grows."]
    >>> ids = ["a", "b", "c"]
    >>> documents = pl.DataFrame({"doc_id": ids, "title": ids, "text_hash": ids, "text": texts})
    >>> families(sketch(documents).lazy(), threshold=0.8).tolist()
    [0, 0, 2]
    """
    parent = "parent_id" if "parent_id" in documents.columns else "doc_id"
    plain = documents.select(
        "doc_id",
        "title",
        parent=pl.coalesce(parent, "doc_id"),
        text_hash="text_hash",
    )
    words = word_sets(documents["text"])
    return plain.with_columns(words.alias("words"), *_bands(words))


def assign(sketches: pl.LazyFrame, options: ExportOptions) -> pl.DataFrame:
    """Return `doc_id, title, text_hash, family, split` of every document, in the order given.

    Memory grows by about 100 bytes a document, not with the texts. `family` is the first document of
    the family, as its place.

    Args:
        sketches: of all documents, one after the other.
    """
    labels = families(sketches, options.near_duplicate_threshold)
    named = sketches.select("doc_id", "title", "text_hash", "parent").collect()
    import numpy as np

    drawn = np.array([_draw(parent, options) for parent in named["parent"]], np.int64)
    nearest = np.full(len(labels), len(SPLITS), np.int64)
    np.minimum.at(nearest, labels, drawn)
    return named.select(
        "doc_id",
        "title",
        "text_hash",
        family=pl.Series(labels, dtype=pl.Int64),
        split=pl.Series([SPLITS[number] for number in nearest[labels]], dtype=pl.String),
    )


def families(sketches: pl.LazyFrame, threshold: float) -> Labels:
    """Return for each document the place of the first one of its family, from 0.

    Args:
        sketches: of all documents, as `sketch` makes them.
        threshold: least overlap of two near-duplicates' words (Jaccard), above 0 and at most 1.
    """
    import numpy as np

    keys = sketches.select(pl.col("parent", "text_hash").hash()).with_row_index("row").collect()
    labels = np.arange(keys.height, dtype=np.int64)
    for name in ("parent", "text_hash"):
        first = keys.select(pl.col("row").first().over(name).cast(pl.Int64)).to_series().to_numpy()
        _tie(labels, np.arange(len(labels)), first)
    for name in _BAND_NAMES:
        band = sketches.select(name).collect().to_series()
        for pairs in _candidates(band, labels):
            alike = _verified(sketches, pairs, threshold)
            _tie(labels, alike["a"].to_numpy(), alike["b"].to_numpy())
    return labels


def crossings(assigned: pl.DataFrame, sketches: pl.LazyFrame, threshold: float) -> pl.DataFrame:
    """Return pairs of documents alike in different splits: exact, by a way of its own.

    Every document outside training is compared with every one in another split that shares one of
    its rarest words: two sets that overlap by `threshold` must (prefix filter: Bayardo, Ma, Srikant,
    "Scaling up all pairs similarity search", WWW 2007).

    Args:
        assigned: `doc_id, split`, each document once.
        threshold: least overlap (Jaccard) that counts, above 0 and at most 1.
        sketches: as `sketch` makes them, holding at least those documents.

    Returns:
        `doc_id, split, other, other_split, overlap`.
    """
    known = sketches.select("doc_id", "words").join(assigned.lazy(), on="doc_id")
    held = known.filter(pl.col("split") != "train").collect()
    empty = pl.DataFrame(
        schema={
            "doc_id": pl.String,
            "split": pl.String,
            "other": pl.String,
            "other_split": pl.String,
            "overlap": pl.Float64,
        }
    )
    if held.is_empty():
        return empty
    ranks = (
        held.select(pl.col("words").explode(empty_as_null=False))
        .group_by("words")
        .len()
        .sort("len", "words")
        .with_row_index("rank", offset=1)
        .select("words", "rank")
    )
    posted = _prefix(held, ranks, threshold)
    found = [empty]
    # The more are held out, the more pairs a document makes: fewer of them at once.
    size = max(_LEAST_BATCH, min(_BATCH, _BATCH * _HELD_OUT // held.height))
    for others in _slices(known.select("doc_id", "split", "words"), size):
        pairs = (
            _prefix(others, ranks, threshold)
            .join(posted, on="rank", suffix="_held")
            .filter(pl.col("split") != pl.col("split_held"), _sizes_fit(threshold))
            .select("doc_id", "doc_id_held")
            .unique()
        )
        for some in pairs.iter_slices(_PAIRS):
            both = some.join(others, on="doc_id").join(
                held, left_on="doc_id_held", right_on="doc_id", suffix="_held"
            )
            found.append(
                both.select(
                    doc_id="doc_id_held",
                    split="split_held",
                    other="doc_id",
                    other_split="split",
                    overlap=_overlap("words", "words_held"),
                ).filter(pl.col("overlap") >= threshold - 1e-9)
            )
    return pl.concat(found).unique().sort("doc_id", "other")


def _slices(frame: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    for batch in frame.collect_batches(chunk_size=_BATCH, maintain_order=False):
        yield from batch.iter_slices(size)


def _prefix(documents: pl.DataFrame, ranks: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Return `doc_id, split, n, rank` of the rarest words of each, of which two alike share one.

    Words that no held-out document has are the rarest of all, and are not looked for.
    """
    size = pl.col("words").list.len()
    spare = (size - (size * threshold - 1e-9).ceil() + 1).cast(pl.Int64)
    each = (
        documents.select("doc_id", "split", "words", n=size, spare=spare)
        .explode("words", empty_as_null=False)
        .join(ranks, on="words", how="left")
        .with_columns(pl.col("rank").fill_null(0))
    )
    place = pl.col("rank").rank("ordinal").over("doc_id")
    return each.filter(place <= pl.col("spare"), pl.col("rank") > 0).select(
        "doc_id", "split", "n", "rank"
    )


def _sizes_fit(threshold: float) -> pl.Expr:
    smaller = pl.min_horizontal("n", "n_held")
    return smaller >= pl.max_horizontal("n", "n_held") * threshold - 1e-9


def _overlap(a: str, b: str) -> pl.Expr:
    common = pl.col(a).list.set_intersection(b).list.len()
    either = pl.col(a).list.len() + pl.col(b).list.len() - common
    return pl.when(either > 0).then(common / either).otherwise(0.0)


def _draw(parent: str, options: ExportOptions) -> int:
    """Return the split that a parent draws: 0 for training."""
    digest = hashlib.blake2b(f"{options.split_seed}:{parent}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < options.test_share:
        return 2
    return 1 if share < options.test_share + options.validation_share else 0


def _bands(words: pl.Series) -> list[pl.Series]:
    """Return the bands of each document: equal values in a band make two documents candidates."""
    import numpy as np

    lengths = words.list.len().fill_null(0).to_numpy().astype(np.int64)
    filled = lengths > 0
    found = np.zeros((_BANDS, len(words)), np.uint64)
    if filled.any():
        values = words.explode(empty_as_null=False, keep_nulls=False).to_numpy()
        ends = np.cumsum(lengths[filled])
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        random = np.random.default_rng(20)
        with np.errstate(over="ignore"):
            for band in range(_BANDS):
                mixed = np.zeros(len(starts), np.uint64)
                for factor, shift in random.integers(0, 2**31, (_ROWS, 2), dtype=np.uint32):
                    turned = values * (factor * np.uint32(2) + np.uint32(1)) + shift
                    least = np.minimum.reduceat(turned, starts).astype(np.uint64)
                    mixed = (mixed ^ least) * np.uint64(0x9E3779B97F4A7C15)
                    mixed ^= mixed >> np.uint64(31)
                found[band][filled] = mixed
    missing = pl.Series(~filled)
    return [
        pl.Series(name, band, dtype=pl.UInt64).set(missing, None)
        for name, band in zip(_BAND_NAMES, found, strict=True)
    ]


def _candidates(band: pl.Series, labels: Labels) -> Iterable[pl.DataFrame]:
    """Return pairs `a, b` of documents of one value that are not in one family yet."""
    import numpy as np

    listed = pl.DataFrame({"value": band}).with_row_index("a").drop_nulls().sort("value", "a")
    place = pl.int_range(pl.len()).over("value")
    for step in range(_NEIGHBOURS + 1):
        other = (
            pl.col("a").first().over("value")
            if step == 0
            else pl.when(place > step).then(pl.col("a").shift(step))
        )
        pairs = listed.select(pl.col("a").cast(pl.Int64), b=other.cast(pl.Int64)).drop_nulls()
        a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
        apart = np.flatnonzero(labels[a] != labels[b])
        for start in range(0, len(apart), _PAIRS):
            chosen = apart[start : start + _PAIRS]
            yield pl.DataFrame({"a": a[chosen], "b": b[chosen]})


def _verified(sketches: pl.LazyFrame, pairs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    needed = pl.concat([pairs["a"], pairs["b"]]).unique()
    sets = (
        sketches.select("words")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64))
        .join(needed.to_frame("row").lazy(), on="row", how="semi")
        .collect(engine="streaming")
    )
    both = pairs.join(sets, left_on="a", right_on="row").join(
        sets, left_on="b", right_on="row", suffix="_b"
    )
    return both.filter(_overlap("words", "words_b") >= threshold - 1e-9).select("a", "b")


def _tie(labels: Any, a: Any, b: Any) -> None:
    """Make one family of each pair: every label is the least place that it leads to."""
    import numpy as np

    while True:
        first, second = labels[a], labels[b]
        apart = first != second
        if not apart.any():
            return
        a, b, first, second = a[apart], b[apart], first[apart], second[apart]
        np.minimum.at(labels, np.maximum(first, second), np.minimum(first, second))
        while True:
            further = labels[labels]
            if (further == labels).all():
                break
            labels[:] = further
