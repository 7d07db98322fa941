"""Compare an answer with the gold answer: exactly, once what does not matter has been taken out."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from rare_assets.operators.mathematics import plain_latex, same_value

# Begins with all that stands before its first word: from within a row of thousands of marks it would be looked
# for as often.
_LEAD = re.compile(
    r"(?<!\W)\W*(?:(?:so|thus|therefore|hence)\W+)?(?:the\W+)?(?:final\W+|correct\W+|right\W+|best\W+)*"
    r"(?:answer|option|choice)\b(?:\W+is\b)?(?:\W+(?:option|choice)\b)?(?=\W+\w)",
    re.IGNORECASE,
)
# A letter alone, or one set off as options are: "B", "(B)", "B.", "B) text", "B: text".
_OPTION = re.compile(r"\W*([A-Za-z])(?:\W*\Z|\s*[).:\]]+(?:[\s*]+(.*))?\Z)", re.DOTALL)
_TOKEN = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+|[^\W_]+|%")
# Words that are a whole answer to whether something holds, in the languages that they were tried in.
_VERDICTS = frozenset(
    [
        "yes",
        "no",
        "maybe",
        "true",
        "false",
        "ja",
        "nein",
        "vielleicht",
        "oui",
        "non",
        "peut-être",
        "sí",
        "si",
        "quizás",
        "sì",
        "forse",
        "sim",
        "não",
        "talvez",
        "да",
        "нет",
        "はい",
        "いいえ",
        "是",
        "否",
        "不是",
        "对",
        "错",
    ]
)
_VERDICT_FIRST = re.compile(
    r"\W*([\w-]+)\s*[,.;:!\N{EM DASH}\N{EN DASH}-]\s*(?!(?:but|and|or)\b)\S", re.I
)
_ARTICLES = frozenset({"a", "an", "the"})


def answers_agree(given: str, gold: str) -> bool:
    """Return True if two answers are the same but for their form.

    Case, punctuation, articles, white space and a lead-in ("The answer is") do not count; numbers
    are compared by value ("3.0" is "3", "1,000" is "1000"); an option's letter stands for the whole
    option ("B" agrees with "(B)" and "B. Helium", but "C. Helium" does not agree with "B. Helium");
    formulas are compared by value, too (`\\boxed{\\frac{3}{4}}` is "0.75"); a yes, no or maybe may go on
    to say why ("Yes, since the trial ended").

    >>> answers_agree("The answer is (B).", "B. Helium"), answers_agree("1,000 J", "1000 j")
    (True, True)
    >>> answers_agree("C. Helium", "B. Helium")
    False
    """
    given, gold = _bare(given), _bare(gold)
    given, gold = _verdict(given, gold), _verdict(gold, given)
    if same_value(given, gold):
        return True
    a, b = _read(given), _read(gold)
    if a.letter and b.letter:
        return a.letter == b.letter and (not a.words or not b.words or a.words == b.words)
    if a.letter or b.letter:
        # One names the option by letter and text, the other by its text alone.
        return bool(a.words) and a.words == b.words
    return bool(a.words) and a.words == b.words


class _Form(NamedTuple):
    letter: str | None
    words: tuple[str, ...]


def _bare(text: str) -> str:
    """Return a text without a lead-in and what LaTeX wraps around it."""
    plain = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").strip()
    return plain_latex(_LEAD.sub("", plain_latex(plain), count=1)).lstrip(" :").strip()


def _verdict(text: str, other: str) -> str:
    """Return the verdict that a text begins with, where the other is a verdict alone; else the text."""
    if other.casefold().strip(" .!*") not in _VERDICTS:
        return text
    first = _VERDICT_FIRST.match(text)
    return first[1] if first and first[1].casefold() in _VERDICTS else text


def _read(plain: str) -> _Form:
    option = _OPTION.match(plain)
    if option is None:
        return _Form(None, _words(plain))
    return _Form(option[1].upper(), _words(option[2] or ""))


def _words(text: str) -> tuple[str, ...]:
    words = [_number(token) for token in _TOKEN.findall(text.casefold())]
    return tuple(word for word in words if word not in _ARTICLES)


def _number(token: str) -> str:
    if not any(character.isdecimal() for character in token) or token.lstrip("-.")[:1].isalpha():
        return token
    sign, digits = ("-", token[1:]) if token.startswith("-") else ("", token)
    whole, _, fraction = digits.replace(",", "").partition(".")
    value = (whole.lstrip("0") or "0") + (f".{rest}" if (rest := fraction.rstrip("0")) else "")
    return value if value == "0" else sign + value
