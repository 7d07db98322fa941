"""Compare an answer with the gold answer: exactly, once what does not matter has been taken out."""

# ruff: noqa: RUF001 (quotation marks of print are meant)

from __future__ import annotations

import re
from typing import NamedTuple

from rare_assets.operators.mathematics import compare_values, plain_latex
from rare_assets.operators.notation import currencies, normal, tokens

# Begins with all that stands before its first word: from within a row of thousands of marks it would be looked
# for as often.
_LEAD = re.compile(
    r"(?<!\W)\W*(?:(?:so|thus|therefore|hence)\W+)?(?:the\W+)?(?:final\W+|correct\W+|right\W+|best\W+)*"
    r"(?:answer|option|choice)\b(?:\W+is\b)?(?:\W+(?:option|choice)\b)?(?=\W+\w)",
    re.IGNORECASE,
)
# A letter alone, or one set off as options are: "B", "(B)", "B.", "B) text", "B: text"; but no "B+".
_OPTION = re.compile(
    r"[\s(\[{*_\"'“”‘’«»`.,:;•]*([A-Za-z])(?:[\s)\]}*_\"'“”‘’«»`.,:;!?…]*\Z|\s*[).:\]]+(?:[\s*]+(.*))?\Z)",
    re.DOTALL,
)
# One more option in the text of an option: "(A) and (C)".
_ANOTHER = re.compile(
    r"(?<![^\s,;/*])[(\[]?([A-Ja-j])[)\]]|\A(?:and|or|&)\W+([A-Ja-j])\W*\Z", re.IGNORECASE
)
# An option about others: "D) Both (A) and (B)".
_ABOUT_OTHERS = re.compile(r"(?:both|all|none|neither|either|only)\b", re.IGNORECASE)
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
# Dates and spans of years, which are formulas as well: 2024-01-05 is 2024/01/05.
_DATE = re.compile(r"\d{1,4}([-/])\d{1,2}\1\d{1,4}|(?:1\d|20)\d\d[-/]\d\d(?:\d\d)?")


def answers_agree(given: str, gold: str) -> bool:
    """Return True if two answers are the same but for their form.

    Case, punctuation, articles, white space and a lead-in ("The answer is") do not count; numbers
    are compared by value ("3.0" is "3", "1,000" is "1000"); an option's letter stands for the whole
    option ("B" agrees with "(B)" and "B. Helium", but "C. Helium" does not agree with "B. Helium");
    formulas are compared by value, too (`\\boxed{\\frac{3}{4}}` is "0.75"), and signs that say something
    count ("-x" is not "x", "p < 0.05" not "p > 0.05", "AB+" not "AB-"); a yes, no or maybe may go on
    to say why ("Yes, since the trial ended").

    >>> answers_agree("The answer is (B).", "B. Helium"), answers_agree("1,000 J", "1000 j")
    (True, True)
    >>> answers_agree("C. Helium", "B. Helium")
    False
    """
    given, gold = normal(given), normal(gold)
    if _of_other_currencies(given, gold):
        return False
    given, gold = _bare(given), _bare(gold)
    given, gold = _verdict(given, gold), _verdict(gold, given)
    if compare_values(given, gold):
        return True
    a, b = _read(given), _read(gold)
    # The letter of "(C) -5" is no factor.
    is_option = any(form.letter and form.words for form in (a, b))
    if not is_option and _of_other_values(given, gold):
        return False
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
    plain = _LEAD.sub("", plain_latex(text.strip()), count=1)
    return plain_latex(plain).lstrip(" :").strip()


def _of_other_currencies(given: str, gold: str) -> bool:
    """Return True if both texts have signs of currencies, and not the same."""
    a, b = currencies(given), currencies(gold)
    return bool(a and b) and a != b


def _of_other_values(given: str, gold: str) -> bool:
    """Return True if both texts are formulas, whatever their case, and their values differ."""
    if _DATE.fullmatch(given) and _DATE.fullmatch(gold):
        return False
    return compare_values(given.casefold(), gold.casefold()) is False


def _verdict(text: str, other: str) -> str:
    """Return the verdict that a text begins with, where the other is a verdict alone; else the text."""
    if other.casefold().strip(" .!*") not in _VERDICTS:
        return text
    first = _VERDICT_FIRST.match(text)
    return first[1] if first and first[1].casefold() in _VERDICTS else text


def _read(plain: str) -> _Form:
    option = _OPTION.match(plain)
    if option is None or _names_another(option[1], option[2] or ""):
        return _Form(None, _words(plain))
    return _Form(option[1].upper(), _words(option[2] or ""))


def _names_another(letter: str, text: str) -> bool:
    """Return True if what follows an option's letter is one more option, in the same case."""
    if _ABOUT_OTHERS.match(text):
        return False
    others = [match[1] or match[2] for match in _ANOTHER.finditer(text)]
    return any(other != letter and other.isupper() == letter.isupper() for other in others)


def _words(text: str) -> tuple[str, ...]:
    words = [_number(token) for token in tokens(text)]
    return tuple(word for word in words if word not in _ARTICLES)


def _number(token: str) -> str:
    if not any(character.isdecimal() for character in token) or token.lstrip("-.")[:1].isalpha():
        return token
    if token.count(".") > 1:
        return ".".join(part.lstrip("0") or "0" for part in token.split("."))
    sign, digits = ("-", token[1:]) if token.startswith("-") else ("", token)
    whole, _, fraction = digits.replace(",", "").partition(".")
    value = (whole.lstrip("0") or "0") + (f".{rest}" if (rest := fraction.rstrip("0")) else "")
    return value if value == "0" else sign + value
