"""Texts as the quality checks compare them: words, stems, sentences, runs of words. In any language.

What a word is, `rare_assets.text.words` says. No list of stop words or endings of one language is used:
short words are left out where only content counts, and a word is cut to its first five letters in
place of a stemmer (Can et al., "Information retrieval on Turkish texts", JASIST 59(3), 2008, find
that about as good as a real one).
"""

from __future__ import annotations

import polars as pl

from rare_assets.text.words import content_words_of, words_of

_STEM_LETTERS = 5
# Full stops that no blank has to follow: Chinese and Japanese, Hindi, Urdu, Khmer, Burmese, Ethiopic.
_STANDING_STOPS = r"\x{3002}\x{FF01}\x{FF1F}\x{FF61}\x{0964}\x{0965}\x{06D4}\x{17D4}\x{17D5}\x{104A}\x{104B}\x{1362}"


def word_set(text: pl.Expr) -> pl.Expr:
    """Return the words of each text, cut to stems of five letters and named once, as
    `list[str]`."""
    return _stems(words_of(text))


def content_stems(text: pl.Expr) -> pl.Expr:
    """Return the stems of each text's longer words, each named once, as `list[str]`."""
    return _stems(content_words_of(text))


def sentences(text: pl.Expr) -> pl.Expr:
    """Split each text into a list of sentences: after full stops, question and exclamation marks,
    lines."""
    marks = rf"([.!?\x{{061F}}])\s+|([{_STANDING_STOPS}])|\n+"
    ends = text.str.replace_all(marks, "${1}${2}\u001e")
    return ends.str.split("\u001e").list.eval(pl.element().filter(pl.element().str.contains(r"\w")))


def runs(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """Return every run of `length` words in a row: `row, words: list[str]` in, `row, run: str` out,
    words joined by a blank."""
    each = texts.select("row", "words").explode("words")
    within = pl.col("row").shift(1 - length) == pl.col("row")
    run = pl.concat_str([pl.col("words").shift(-place) for place in range(length)], separator=" ")
    return each.select("row", run=pl.when(within).then(run)).drop_nulls()


def _stems(found: pl.Expr) -> pl.Expr:
    return found.list.eval(pl.element().str.head(_STEM_LETTERS).unique(maintain_order=True))
