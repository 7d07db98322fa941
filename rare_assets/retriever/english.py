"""Turn English text into index terms: the same terms, in the same order, as Lucene's EnglishAnalyzer.

Lucene's chain is StandardTokenizer (Unicode word boundaries, UAX #29), possessive 's cut, lower case, stop
words, Porter stemmer. Both engines must see the same terms, or their scores differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

# Lucene's EnglishAnalyzer.ENGLISH_STOP_WORDS_SET.
# fmt: off
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is",
    "it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there",
    "these", "they", "this", "to", "was", "will", "with",
))
# fmt: on
MAX_TOKEN_LENGTH = 255
_POSSESSIVE_MARKS = "'\N{RIGHT SINGLE QUOTATION MARK}\N{FULLWIDTH APOSTROPHE}"
# Some 50 MB of short words.
_MEMO_SIZE = 1 << 18
_MEMO_CHUNK_LENGTH = 64
# They never join the letters and digits beside them when they stand before the first or after the last.
_OUTER_MARKS = '.,;:!?()[]"'


def english_terms(text: str) -> list[str]:
    """Return the terms of a text in order, without stop words; a term that repeats is repeated.

    A piece of text between two white spaces is analyzed once in a process and remembered.

    Example:
        >>> english_terms("The lake's ice is melting")
        ['lake', 'ic', 'melt']
    """
    terms_of = analyzed()
    return [term for chunk in chunks(text) for term in terms_of[chunk]]


def chunks(text: str) -> list[str]:
    """Cut a text at white space, which no term spans: the terms of a text are those of its chunks."""
    # This one white space joins digits and letters (UAX #29 ExtendNumLet).
    return text.split(" ") if "\N{NARROW NO-BREAK SPACE}" in text else text.split()


def chunk_terms(chunk: str) -> tuple[str, ...]:
    """Return the terms of one chunk, without looking into what is remembered."""
    stem = _stemmer()
    terms = []
    for token in tokens(chunk):
        if len(token) >= 2 and token[-1] in "sS" and token[-2] in _POSSESSIVE_MARKS:
            token = token[:-2]
        token = lower(token)
        if token not in STOP_WORDS:
            terms.append(stem(token))
    return tuple(terms)


class Memo(dict[str, tuple[str, ...]]):
    """Terms by chunk, filled on demand and bounded in size.

    Args:
        analyze: returns the terms of a chunk.
    """

    def __init__(self, analyze: Callable[[str], tuple[str, ...]]) -> None:
        self._analyze = analyze

    def __missing__(self, chunk: str) -> tuple[str, ...]:
        terms = self._analyze(chunk)
        if len(chunk) <= _MEMO_CHUNK_LENGTH:
            if len(self) >= _MEMO_SIZE:
                self.clear()
            self[chunk] = terms
        return terms


@functools.cache
def analyzed() -> Memo:
    """Return what this process has analyzed."""
    return Memo(chunk_terms)


def lower(token: str) -> str:
    """Return a token in lower case, character by character without rules of context, as Lucene does."""
    return token.lower() if token.isascii() else "".join(char.lower()[0] for char in token)


def tokens(chunk: str) -> list[str]:
    """Return a chunk's tokens as Lucene's StandardTokenizer cuts them."""
    bare = chunk.strip(_OUTER_MARKS)
    if bare.isascii() and bare.isalnum() and len(bare) <= MAX_TOKEN_LENGTH:
        # Most of any English text: the rules leave it whole.
        return [bare]
    return [chunk[start:end] for start, end in spans(chunk)]


def spans(chunk: str) -> list[tuple[int, int]]:
    """Return the start and the end of each token of a chunk.

    >>> spans("ice-cold")
    [(0, 3), (4, 8)]
    """
    tokenizer = _tokenizer()
    found = []
    position = 0
    while match := tokenizer.search(chunk, position):
        if match.end() - match.start() > MAX_TOKEN_LENGTH:
            match = tokenizer.match(chunk, match.start(), match.start() + MAX_TOKEN_LENGTH)
        found.append(match.span())
        position = match.end()
    return found


@functools.cache
def _tokenizer():  # type: ignore[no-untyped-def]  # regex has no types
    """Return the word boundary rules of UAX #29 as one pattern, with Lucene's kinds of token."""
    import regex

    # A base character takes the marks and joiners that follow it (rule WB4).
    x = r"[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}]*+"
    # Later Unicode versions have these marks among the letters; Lucene's does not.
    no_letter = r"\u00B8\u02E5-\u02EB\u055A\u058A\u070F\uA708-\uA716"
    letter = rf"[[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]--[{no_letter}]]{x}"
    hebrew = rf"\p{{WB=Hebrew_Letter}}{x}"
    digit = rf"[\p{{WB=Numeric}}\uFF10-\uFF19]{x}"
    katakana = rf"\p{{WB=Katakana}}{x}"
    joint = rf"\p{{WB=ExtendNumLet}}{x}"
    between_letters = rf"[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{x}"
    between_digits = rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{x}"
    letters = (
        rf"{letter}(?:{between_letters}{letter}|(?<={hebrew})\"{x}{hebrew})*(?:(?<={hebrew})'{x})?"
    )
    digits = rf"{digit}(?:{between_digits}{digit})*"
    run = rf"(?:(?:{katakana})+|(?:{letters}|{digits})+)"
    word = rf"(?:{joint})*{run}(?:(?:{joint})+{run})*(?:{joint})*"

    x_in_emoji = r"[[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}]--[\uFE0E\uFE0F]]*"
    # The later Unicode versions took these symbols out of Extended_Pictographic; Lucene has them in.
    symbols = (
        r"\u2388\u2600-\u2605\u2607-\u2612\u2616-\u2685\u2690-\u2705\u270E\u2710\u2711\u2765-\u2767"
        r"\U0001F000-\U0001F0FF\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F16F\U0001F1AD\U0001F1AE"
        r"\U0001F260-\U0001F265\U0001F300-\U0001F3FA\U0001F400-\U0001F53D\U0001F546-\U0001F64F"
        r"\U0001F680-\U0001F6FF\U0001F774-\U0001F77F\U0001F7D5-\U0001F7FF\U0001F8AE-\U0001F8FF"
        r"\U0001FA00-\U0001FBEF"
    )
    pictograph = rf"[{symbols}\p{{Extended_Pictographic}}[\p{{Emoji}}--[\p{{WB=Regional_Indicator}}0-9#*\p{{Emoji_Modifier}}]]]"
    one_emoji = (
        rf"(?:(?:\u200D*\p{{Emoji_Modifier_Base}}{x_in_emoji})?\p{{Emoji_Modifier}}{x_in_emoji}"
        rf"|\u200D*{pictograph}{x_in_emoji}\uFE0F?)"
    )
    emoji = (
        rf"{one_emoji}(?:[\U000E0020-\U000E007E]+\U000E007F|(?:(?:\u200D|(?<=\u200D)){one_emoji})*)"
        rf"|[#*]{x_in_emoji}\uFE0F?\u20E3{x_in_emoji}"
        rf"|[0-9]{x_in_emoji}\uFE0F?\u20E3{x_in_emoji}(?!{letter}|{digit}|{joint}|{between_digits}{digit})"
        rf"|(?:\p{{WB=Regional_Indicator}}{x}){{2}}"
    )
    south_east_asian = rf"(?:\p{{Line_Break=Complex_Context}}{x})+"
    single = rf"[\p{{Script=Han}}\p{{Script=Hiragana}}]{x}"
    return regex.compile(rf"{emoji}|{word}|{south_east_asian}|{single}", regex.V1)


@functools.cache
def _stemmer() -> Callable[[str], str]:
    """Return Porter's stemmer, with those of his rules that Lucene has and Snowball's `porter` lacks.

    Source: M. Porter, "An Algorithm for Suffix Stripping", 1980.
    """
    import regex
    import Stemmer

    # The cache inside PyStemmer would only repeat ours.
    snowball = Stemmer.Stemmer("porter", 0).stemWord
    # Porter's measure m > 0: a vowel, then a consonant. A y is a vowel only after a consonant.
    has_measure = regex.compile(r"(?:[aeiou]|(?<=[^aeiouy]|^y)y)[^aeiou]").search

    # Snowball keeps these consonants double before -ed and -ing, Porter's rule takes one off.
    doubled = regex.compile(r"(.*(?:[aeiou]|[^aeiouy]y).*([chjkqvwx]))\2(?:ed|ing)s?").fullmatch
    # What Porter's first step alone takes off a word: the later rules come before any other step.
    first_step_only = regex.compile(r"[iy](?:e?s|(?:ed|ing)s?)?").fullmatch

    def stem(word: str) -> str:
        if len(word) < 3:
            return word
        if word.endswith(("ed", "ing", "eds", "ings")) and (single := doubled(word)):
            word = single[1]
        stemmed: str = snowball(word)
        if stemmed.endswith(("bli", "logi")) and first_step_only(word[len(stemmed) - 1 :]):
            if stemmed.endswith("bli") and has_measure(stemmed[:-3]):
                return str(snowball(stemmed[:-1] + "e"))
            if stemmed.endswith("logi") and has_measure(stemmed[:-4]):
                return stemmed[:-1]
        return stemmed

    return stem
