"""Texts as the quality checks compare them: words, stems, sentences, runs of words. In any language.

No list of stop words or endings of one language is used. Words shorter than five letters are left
out where only content counts, which leaves out most function words of European languages, and a
word is cut to its first five letters in place of a stemmer (Can et al., "Information retrieval on
Turkish texts", JASIST 59(3), 2008, find that about as good as a real one). In scripts that set no
blanks between words (Chinese, Japanese, Thai, ...) each character is a word and there are no stems:
checks that need those don't judge such texts.
"""

from __future__ import annotations

import polars as pl

NO_BLANKS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{NO_BLANKS}]|[\p{{L}}\p{{M}}\p{{N}}--[{NO_BLANKS}]]+"
_LONG_WORD = rf"[\p{{L}}\p{{M}}--[{NO_BLANKS}]]{{5,}}"
_STEM_LETTERS = 5


def words(text: pl.Expr) -> pl.Expr:
    """The words of a text in order, lower case."""
    return text.str.to_lowercase().str.extract_all(_WORD)


def word_set(text: pl.Expr) -> pl.Expr:
    """The words of a text, each cut to a stem and named once."""
    return _stems(words(text))


def content_stems(text: pl.Expr) -> pl.Expr:
    """The stems of a text's longer words, each named once."""
    return _stems(text.str.to_lowercase().str.extract_all(_LONG_WORD))


def sentences(text: pl.Expr) -> pl.Expr:
    """A text's sentences; they end after full stops, question and exclamation marks, and lines."""
    # The second kind are the marks of Chinese and Japanese, which no blank follows.
    marks = r"([.!?])\s+|([\x{3002}\x{FF01}\x{FF1F}])|\n+"
    ends = text.str.replace_all(marks, "${1}${2}\u001e")
    return ends.str.split("\u001e").list.eval(pl.element().filter(pl.element().str.contains(r"\w")))


def has_no_blanks(text: pl.Expr) -> pl.Expr:
    """Whether most of a text is in a script that sets no blanks between words."""
    return text.str.count_matches(f"[{NO_BLANKS}]") * 2 > text.str.count_matches(r"\p{L}")


def runs(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """Every run of `length` words in a row: `row, words: list[str]` in, `row, run: str` out, words
    joined by a blank."""
    each = texts.select("row", "words").explode("words")
    within = pl.col("row").shift(1 - length) == pl.col("row")
    run = pl.concat_str([pl.col("words").shift(-place) for place in range(length)], separator=" ")
    return each.select("row", run=pl.when(within).then(run)).drop_nulls()


def _stems(found: pl.Expr) -> pl.Expr:
    return found.list.eval(pl.element().str.head(_STEM_LETTERS).unique(maintain_order=True))
