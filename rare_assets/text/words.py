"""What a word is, in any language: the one place that counts words and cuts texts into them.

Most scripts set a blank between words. Those that set none (Chinese, Japanese, Thai, Lao, Khmer,
Burmese, ...) are told by Unicode's line breaking classes: in them a line may break where there is no
blank. Their words are found by ICU, which has the rules for word boundaries of UAX #29 and a
dictionary of each of these languages. A text that sets blanks is never given to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import regex

# A letter of a script that sets no blanks, or a mark that stands in their place: Tibetan's tsheg,
# Ethiopic's wordspace.
_find_unspaced = regex.compile(
    r"[[\p{Line_Break=Ideographic}\p{Line_Break=Nonstarter}\p{Line_Break=Complex_Context}"
    r"\p{Line_Break=Conditional_Japanese_Starter}\p{Line_Break=Aksara}\p{Line_Break=Aksara_Start}]"
    r"&&\p{L}]|[\u0F0B\u0F0C\u1361]",
    regex.V1,
).search
_split_unspaced = regex.compile(
    r"[\p{Line_Break=Ideographic}\p{Line_Break=Nonstarter}\p{Line_Break=Complex_Context}"
    r"\p{Line_Break=Conditional_Japanese_Starter}\p{Line_Break=Aksara}\p{Line_Break=Aksara_Start}]",
    regex.V1,
).subn
_find_letter_of_few = regex.compile(r"\p{Line_Break=Complex_Context}").search
_find_non_ascii = regex.compile(r"[^\x00-\x7F]+").findall
# A word's marks belong to it, and so do joiners within it (Persian, Hindi).
_WORD = r"[\p{L}\p{M}\p{N}_][\p{L}\p{M}\p{N}_\x{200C}\x{200D}]*"
_find_words = regex.compile(_WORD.replace(r"\x{200C}\x{200D}", "\u200c\u200d")).findall
_find_characters = regex.compile(r"[\p{L}\p{N}]\p{M}*").findall
_find_letter = regex.compile(r"[\p{L}\p{N}_]").search
_LISTS = pl.List(pl.String)
_ASCII_BLANKS = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}

# Words that carry content are longer than those that only join them: five letters or more; two
# characters that each mean something, as in Chinese; four in Thai and its like.
_CONTENT_WORD = r"[\p{L}\p{M}]{5,}"
_find_content_words = regex.compile(
    r"[\p{Han}\p{Katakana}\p{Line_Break=Nonstarter}]{2,}|\p{Line_Break=Complex_Context}{4,}"
    r"|[[\p{L}\p{M}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=Complex_Context}]]{5,}",
    regex.V1,
).findall
# The same letters, as far as Polars' patterns can tell.
UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# Where texts of a column may set no blanks: the scripts from Thai on, but for punctuation and symbols.
_MAYBE_UNSPACED = r"[\x{0E00}-\x{1FFF}\x{2E80}-\x{3FFFF}]"


def count_words(text: str) -> int:
    """Number of words of a text, at least 1 if it is not blank.

    A word is what stands between two white spaces, as word processors count; where a script sets
    none, it is a word of the language.
    """
    chunks = text.split()
    if not sets_no_blanks(text):
        return len(chunks)
    unspaced = [chunk for chunk in chunks if sets_no_blanks(chunk)]
    found = len(_segments(" ".join(unspaced)))
    return max(len(chunks) - len(unspaced) + found, 1)  # a lone mark is one


def count_units(text: str) -> int:
    """Return the number of words, each character counted as one where a script sets no blanks."""
    if not sets_no_blanks(text):
        return len(text.split())
    spaced, characters = _split_unspaced("  ", text)
    return len(spaced.split()) + characters


def words_in(text: str) -> list[str]:
    """The words of a text in order, lower case, without the punctuation between them."""
    text = text.lower()
    if text.isascii():  # the same, three times as fast
        return text.translate(_ASCII_BLANKS).split()
    return _segments(text) if sets_no_blanks(text) else _find_words(text)


def characters_in(text: str) -> list[str]:
    """The letters and digits of a text in order, lower case, each with its marks."""
    return _find_characters(text.lower())


def pieces_in(text: str) -> frozenset[str]:
    """The set of what a text has in common with a text that says the same: words, lower case.

    Where a script sets no blanks, one changed letter makes a dictionary cut what stands around it
    into other words. So each two neighbouring letters are a piece there; each three in scripts of few
    letters (Thai and its like), in which any two long texts have most pairs in common.
    """
    if not sets_no_blanks(text):
        return frozenset(words_in(text))
    pieces: set[str] = set()
    for run in _find_words(text.lower()):
        if not sets_no_blanks(run):
            pieces.add(run)
            continue
        length = 3 if _find_letter_of_few(run) else 2
        pieces.update(run[at : at + length] for at in range(max(len(run) - length, 0) + 1))
    return frozenset(pieces)


def content_words_in(text: str) -> list[str]:
    """The longer words of a text in order, lower case, where most only join others if they are short."""
    return _find_content_words(" ".join(words_in(text)))


def sets_no_blanks(text: str) -> bool:
    """Whether a text, or some of it, is in a script that sets no blanks between words."""
    return not text.isascii() and _find_unspaced("".join(_find_non_ascii(text))) is not None


def number_of_words(text: pl.Expr) -> pl.Expr:
    """`count_words` of each text."""

    def count(texts: pl.Series) -> pl.Series:
        counts = texts.str.count_matches(r"\S+").cast(pl.Int64)
        return _patched(texts, counts, count_words)

    return text.map_batches(count, pl.Int64)


def words_of(text: pl.Expr) -> pl.Expr:
    """`words_in` of each text."""
    return text.map_batches(lambda texts: _lists(texts, _WORD, words_in), _LISTS)


def content_words_of(text: pl.Expr) -> pl.Expr:
    """`content_words_in` of each text."""
    return text.map_batches(lambda texts: _lists(texts, _CONTENT_WORD, content_words_in), _LISTS)


def characters_of(text: pl.Expr) -> pl.Expr:
    """The letters and digits of each text in order, lower case, each with its marks."""
    return text.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]\p{M}*")


def mostly_unspaced(text: pl.Expr) -> pl.Expr:
    """Whether most of each text is in a script that sets no blanks between words."""
    return text.str.count_matches(f"[{UNSPACED_SCRIPTS}]") * 2 > text.str.count_matches(r"\p{L}")


def _lists(texts: pl.Series, spaced: str, unspaced: Callable[[str], list[str]]) -> pl.Series:
    """Words of each text: by a pattern where blanks are set, by a function where none are."""
    return _patched(texts, texts.str.to_lowercase().str.extract_all(spaced), unspaced)


def _patched(texts: pl.Series, found: pl.Series, unspaced: Callable[[str], Any]) -> pl.Series:
    """What was found, and what a function finds instead where no blanks are set."""
    maybe = texts.str.contains(_MAYBE_UNSPACED)
    if not maybe.any():
        return found
    instead = [
        unspaced(text) if candidate and sets_no_blanks(text) else None
        for text, candidate in zip(texts, maybe, strict=True)
    ]
    patch = pl.Series(texts.name, instead, dtype=found.dtype)
    return pl.select(pl.coalesce(patch, found)).to_series()


def _segments(text: str) -> list[str]:
    from icu4py.breakers import WordBreaker

    return [part for part in WordBreaker(text, "root") if _find_letter(part)]
