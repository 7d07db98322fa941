r"""Answers in mathematics: the value that a text writes down, whatever its notation.

Only a text that is a formula and nothing else has a value: numbers, + - * /, powers, roots, pi, and a
few variables. math-verify and SymPy do far more, and are not used here: they take 90 MB, read the last
number out of any sentence ("12 apples" agrees with "12 pears"), and `10^{10^{10}}` keeps them busy
for good.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeAlias

Number: TypeAlias = Fraction | float | complex

_LONGEST = 300
# Beyond these, exact powers take too long or too much memory.
_MOST_EXPONENT = 64
_MOST_BITS = 4096
# Values of variables at which two formulas are compared.
_PLACES = (Fraction(7, 3), Fraction(-5, 11), Fraction(13, 17))
_WRAPPER = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textrm|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\{"
)
_GONE = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|q?quad)(?![A-Za-z])|\\[,;:! ()\[\]]|[$~]"
)
_REPLACED = (
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\N{DEGREE SIGN}"), ""),
    (re.compile(r"\\(?:times|cdot|ast)|[\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}]"), "*"),
    (re.compile(r"\\div|\N{DIVISION SIGN}"), "/"),
    (re.compile(r"\N{MINUS SIGN}|\N{EN DASH}"), "-"),
    (re.compile(r"\N{GREEK SMALL LETTER PI}|(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"\N{SQUARE ROOT}|(?<![A-Za-z\\])sqrt(?![A-Za-z])"), r"\\sqrt "),
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\%"), "%"),
)
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|,|\\,|\N{THIN SPACE}|\N{NARROW NO-BREAK SPACE})\d{3})+)(?![\d,])"
)
_LEXEME = re.compile(
    r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3}(?![\dA-Za-z]))?|\\[A-Za-z]+|[A-Za-z]|[-+*/^(){}\[\]=%])"
)


def plain_latex(text: str) -> str:
    r"""Return a text with what LaTeX wraps around it taken off.

    >>> plain_latex(r"\boxed{\text{(C)}}"), plain_latex("1{,}000")
    ('(C)', '1,000')
    """
    text = text.replace("{,}", ",").replace("\\ ", " ")
    while (match := _WRAPPER.search(text)) is not None:
        end = _closing(text, match.end())
        if end is None:
            break
        text = text[: match.start()] + text[match.end() : end] + text[end + 1 :]
    return text.strip().strip("$").strip()


def compare_values(one: str, other: str) -> bool | None:
    r"""Return whether two formulas have the same value; None where a text is none, or too much for this.

    >>> compare_values(r"\dfrac{3}{4}", "0.75"), compare_values(r"\sqrt{8}", r"2\sqrt2"), compare_values("2x", "x+x")
    (True, True, True)
    >>> compare_values("-x", "x"), compare_values("x", "Helium")
    (False, None)
    """
    try:
        formulas = [_Formula(text) for text in (one, other)]
        names = sorted(formulas[0].variables | formulas[1].variables)
        if len(names) > len(_PLACES):
            return None
        for shift in range(len(_PLACES) if names else 1):
            places = [*_PLACES[shift:], *_PLACES[:shift]]
            values = dict(zip(names, places, strict=False))
            if not _close(*(formula.value(values) for formula in formulas)):
                return False
    except (ArithmeticError, ValueError, RecursionError):
        return None
    return True


def _closing(text: str, start: int) -> int | None:
    """Return where the brace closes that was opened before `start`; None if it does not."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return None


def _close(one: Number, other: Number) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return cmath.isclose(complex(one), complex(other), rel_tol=1e-9, abs_tol=1e-12)


class _Formula:
    """A text as tokens. Raises ValueError if it is no formula; so does `value`."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValueError("too long for a formula")
        text = _THOUSANDS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), plain_latex(text))
        text = _GONE.sub(" ", text).strip().rstrip(".")
        for pattern, replacement in _REPLACED:
            text = pattern.sub(replacement, text)
        if re.search(r"(?<![A-Za-z\\])[A-Za-z]{2,}", text):
            raise ValueError("words")
        # An equation has a value if it gives one to a variable: x = 5.
        text = re.sub(r"\A\s*[A-Za-z]\s*=", "", text)
        self._tokens: list[str] = []
        place = 0
        while text[place:].strip():
            match = _LEXEME.match(text, place)
            if match is None:
                raise ValueError("no formula")
            self._tokens.append(match[1])
            place = match.end()
        if not self._tokens:
            raise ValueError("empty")
        self.variables = {symbol for symbol in self._tokens if symbol.isalpha()}
        self._values: Mapping[str, Fraction] = {}
        self._at = 0

    def value(self, values: Mapping[str, Fraction]) -> Number:
        """Return the value, with these of the variables."""
        self._values, self._at = values, 0
        result = self._sum()
        if self._next is not None:
            raise ValueError(f"{self._next} at its end")
        return result

    @property
    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *wanted: str) -> str | None:
        symbol = self._next
        if symbol not in wanted:
            return None
        self._at += 1
        return symbol

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            raise ValueError(f"{symbol} is missing")

    def _sum(self) -> Number:
        result = self._product()
        while operator := self._take("+", "-"):
            other = self._product()
            result = result + other if operator == "+" else result - other
        return result

    def _product(self) -> Number:
        result = self._signed()
        while True:
            if operator := self._take("*", "/"):
                other = self._signed()
                result = result * other if operator == "*" else result / other
            elif self._take("%"):
                result = result / 100
            elif self._next is not None and re.match(r"[A-Za-z(\\{]", self._next):
                result = result * self._power()
            else:
                return result

    def _signed(self) -> Number:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        return -self._power() if negative else self._power()

    def _power(self) -> Number:
        base = self._mixed()
        return _raised(base, self._exponent()) if self._take("^") else base

    def _exponent(self) -> Number:
        return self._signed()

    def _mixed(self) -> Number:
        r"""Return an atom, or a whole number with a fraction behind it: 2\frac{1}{2}."""
        is_whole = (self._next or "").isdigit()
        result = self._atom()
        if is_whole and self._next == "\\frac":
            return result + self._atom()
        return result

    def _atom(self) -> Number:
        symbol = self._next
        if symbol is None:
            raise ValueError("nothing follows")
        self._at += 1
        if symbol in ("(", "{"):
            result = self._sum()
            self._expect(")" if symbol == "(" else "}")
            return result
        if symbol == "\\frac":
            over = self._group()
            return over / self._group()
        if symbol == "\\sqrt":
            degree: Number = Fraction(2)
            if self._take("["):
                degree = self._sum()
                self._expect("]")
            return _raised(self._group(), 1 / degree)
        if symbol == "\\pi":
            return math.pi
        if symbol.isalpha():
            return self._values.get(symbol, Fraction(1))
        if symbol[0].isdigit() or symbol[0] == ".":
            return Fraction(symbol)
        raise ValueError(f"{symbol} is no number")

    def _group(self) -> Number:
        r"""Return what a command is applied to: a group, or one digit of \frac12."""
        symbol = self._next or ""
        if symbol.isdigit() and len(symbol) > 1:
            self._tokens[self._at : self._at + 1] = list(symbol)
        return self._atom()


def _raised(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator == 1 and abs(exponent) <= _MOST_EXPONENT:
            if bits * abs(exponent) > _MOST_BITS:
                raise ValueError("too large")
            return base ** int(exponent)
    return complex(base) ** complex(exponent)
