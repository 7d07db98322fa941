"""Count words and cut texts into them, in any language: the one place that knows what a word is.

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
_ASCII = bytes(range(128))
# White space as `str.split` knows it: in ASCII as one letter a character, and what lies beyond.
_MARKS = bytes(0x20 if chr(code).isspace() else 0x78 for code in range(256))
_WIDE_BLANKS = frozenset(filter(str.isspace, map(chr, range(128, 0x3001))))
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
    """Count the words of a text, at least 1 if it is not blank.

    A word is what stands between two white spaces, as word processors count; where a script sets
    none, it is a word of the language.

    >>> count_words("Brine freezes at -21 degrees."), count_words("水在零度结冰")
    (5, 5)
    """
    if not sets_no_blanks(text):
        return len(text.split())
    chunks = text.split()
    unspaced = [chunk for chunk in chunks if sets_no_blanks(chunk)]
    found = len(_segments(" ".join(unspaced)))
    return max(len(chunks) - len(unspaced) + found, 1)  # a lone mark is one


def count_units(text: str) -> int:
    """Count the words of a text, each character as one where a script sets no blanks.

    >>> count_units("水在零度结冰")
    6
    """
    if not sets_no_blanks(text):
        return len(text.split())
    spaced, characters = _split_unspaced("  ", text)
    return len(spaced.split()) + characters


class SpacedWords:
    """Count words between two white spaces anywhere in a text, of which no word is made a string.

    >>> SpacedWords("Water hammer is a wave.").between(6, 15)
    2
    """

    def __init__(self, text: str) -> None:
        for blank in _WIDE_BLANKS.intersection(_beyond_ascii(text)):
            text = text.replace(blank, " ")
        # A blank or an x for each character.
        self._marks = text.encode("ascii", "replace").translate(_MARKS)

    def between(self, start: int, end: int) -> int:
        """Return the number of words of `text[start:end]`."""
        return self._marks.count(b" x", start, end) + self._marks.startswith(b"x", start, end)


def words_in(text: str) -> list[str]:
    """Return the words of a text in order, lower case, without the punctuation between them.

    >>> words_in("Brine, of course, freezes at -21 degrees.")
    ['brine', 'of', 'course', 'freezes', 'at', '21', 'degrees']
    """
    text = text.lower()
    if text.isascii():  # the same, three times as fast
        return text.translate(_ASCII_BLANKS).split()
    return _segments(text) if sets_no_blanks(text) else _find_words(text)


def characters_in(text: str) -> list[str]:
    """Return the letters and digits of a text in order, lower case, each with its marks."""
    return _find_characters(text.lower())


def pieces_in(text: str) -> frozenset[str]:
    """Return the pieces that a text shares with one that says the same: words, lower case.

    Where a script sets no blanks, one changed letter makes a dictionary cut what stands around it
    into other words. So each two neighbouring letters are a piece there; each three in scripts of few
    letters (Thai and its like), in which any two long texts have most pairs in common.

    >>> sorted(pieces_in("Brine freezes")), len(pieces_in("水在零度结冰"))
    (['brine', 'freezes'], 5)
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
    """Return the longer words of a text in order, lower case: most short ones only join others.

    >>> content_words_in("Why does brine freeze at a lower temperature?")
    ['brine', 'freeze', 'lower', 'temperature']
    """
    return _find_content_words(" ".join(words_in(text)))


def sets_no_blanks(text: str) -> bool:
    """Return True if a text, or some of it, is in a script that sets no blanks between words."""
    return not text.isascii() and _find_unspaced(_beyond_ascii(text)) is not None


def _beyond_ascii(text: str) -> str:
    """Return the characters of a text that are not ASCII."""
    if text.isascii():
        return ""
    found = text.encode("utf-8", "surrogatepass").translate(None, _ASCII)
    return found.decode("utf-8", "surrogatepass")


def number_of_words(text: pl.Expr) -> pl.Expr:
    """Return `count_words` of each text, as `i64`."""

    def count(texts: pl.Series) -> pl.Series:
        counts = texts.str.count_matches(r"\S+").cast(pl.Int64)
        return _patched(texts, counts, count_words)

    return text.map_batches(count, pl.Int64)


def words_of(text: pl.Expr) -> pl.Expr:
    """Return `words_in` of each text, as `list[str]`."""
    return text.map_batches(lambda texts: _lists(texts, _WORD, words_in), _LISTS)


def content_words_of(text: pl.Expr) -> pl.Expr:
    """Return `content_words_in` of each text, as `list[str]`."""
    return text.map_batches(lambda texts: _lists(texts, _CONTENT_WORD, content_words_in), _LISTS)


def characters_of(text: pl.Expr) -> pl.Expr:
    """Return `characters_in` of each text, as `list[str]`."""
    return text.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]\p{M}*")


def mostly_unspaced(text: pl.Expr) -> pl.Expr:
    """Return True where most of a text is in a script that sets no blanks between words."""
    return text.str.count_matches(f"[{UNSPACED_SCRIPTS}]") * 2 > text.str.count_matches(r"\p{L}")


def _lists(texts: pl.Series, spaced: str, unspaced: Callable[[str], list[str]]) -> pl.Series:
    """Find the words of each text: by a pattern where blanks are set, by a function where none
    are."""
    return _patched(texts, texts.str.to_lowercase().str.extract_all(spaced), unspaced)


def _patched(texts: pl.Series, found: pl.Series, unspaced: Callable[[str], Any]) -> pl.Series:
    """Return what was found, and what a function finds instead where no blanks are set."""
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
