"""Write powers and formulas, which a page tells by tags, so that they keep their meaning in a line of text."""

from __future__ import annotations

import re
from typing import Any

# A power stands directly behind a number, a sign of few letters, or a bracket; a note's number behind a word.
_SUP = re.compile(
    r"<sup(?:\s[^<>]{0,100})?>((?:</?(?:i|em|b|var|strong|span)(?:\s[^<>]{0,100})?>|[^<]){1,60}?)</sup>"
    r"(?!\s{0,9}(?:\u2044|&frasl;|/\s{0,9}<sub))",
    re.IGNORECASE,
)
_TAGS = re.compile(r"<[^<>]{0,200}>")
# As much as is looked at before a power.
_BEFORE = 120
_BASE = re.compile(r"(?:[^\W_]|[)\]}])$")
_WORD = re.compile(r"[^\W\d_]{4,}$")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d$")
_NUMBER = re.compile(r"[-+\u2212\u2013]?\d+(?:\.\d+)?")
_SIGN = re.compile(r"[-+\u2212\u2013]")
_LETTER = re.compile(r"[^\W\d_]")
_EXPRESSION = re.compile(
    r"(?=.*[-+\u2212\u2013/*·]|\d+[^\W\d_]$)[-+\u2212\u2013/*·()\w\s.^{}]{2,30}"
)
_NO_POWER = re.compile(
    r"\d+\s*[-\u2013\u2212]\s*\d+|\d+(?:st|nd|rd|th|er|e|o|a|ère|ème)|[*†]+|[-\u2013\u2212+*/·]*\*",
    re.IGNORECASE,
)
# Ordinals of other languages: 2e, XIXe, no, 1a.
_ORDINAL = re.compile(r"(?:[\dIVXLCM]e|[\dNn][oº]|\da)$")

_FORMULA_MARKS = {
    "msup": "^",
    "msub": "_",
    "msubsup": "_^",
    "mfrac": "/",
    "munder": "_",
    "munderover": "_^",
}
# Of a formula nested deeper only the text is written.
_DEPTH = 100
_FORMULA = re.compile(r"<(/?)([a-zA-Z-]+)[^<>]*?(/?)>|([^<]+)")


def with_powers(page: str) -> str:
    """Return a page with `^` for the tags of its powers; notes' numbers, ordinals and links stay."""
    if "<sup" not in page and "<SUP" not in page:
        return page
    parts: list[str] = []
    end = 0
    for found in _SUP.finditer(page):
        power = _power(page[max(0, found.start() - _BEFORE) : found.start()], found[1])
        if power:
            parts += (page[end : found.start()], power)
            end = found.end()
    return "".join([*parts, page[end:]])


def _power(before: str, inner: str) -> str:
    """Return a power as it is written in a line, nothing where it is none."""
    before = _TAGS.sub("", before.rpartition("</sup>")[2])
    exponent = " ".join(_TAGS.sub("", inner).replace("&minus;", "\u2212").split())
    if not _BASE.search(before) or _WORD.search(before) or _ORDINAL.search(before[-1:] + exponent):
        return ""
    if before[-1] in ")]}" and _LONG_WORD.search(
        before[before.rfind("([{"[")]}".index(before[-1])]) + 1 :]
    ):
        return ""
    if _LETTER.fullmatch(exponent):
        return f"^{exponent}"
    if _NUMBER.fullmatch(exponent):
        return "" if _YEAR.search(before) and exponent.isdecimal() else f"^{exponent}"
    if _EXPRESSION.fullmatch(exponent) and not _NO_POWER.fullmatch(exponent):
        return f"^{{{exponent}}}"
    return f"^{exponent}" if _SIGN.fullmatch(exponent) else ""


def in_a_line(node: Any) -> str:
    """Return MathML as a line, with `^`, `_` and `/` for what stands above or below."""
    # Of each open tag its name and its parts: a part is a text, and whether it is more than one token.
    opened: list[tuple[str, list[tuple[str, bool]]]] = [("math", [])]
    for closing, name, empty, text in _FORMULA.findall(node.html):
        if len(opened) > _DEPTH:
            return str(node.text)
        if text:
            if text.strip():
                opened[-1][1].append((" ".join(text.split()), False))
        elif not closing and not empty:
            opened.append((name.lower(), []))
        elif closing and len(opened) > 1:
            tag, parts = opened.pop()
            if not tag.startswith("annotation"):
                opened[-1][1].append(_joined(tag, parts))
    return "".join(text for text, _ in opened[0][1]).strip()


def _joined(tag: str, parts: list[tuple[str, bool]]) -> tuple[str, bool]:
    marks = _FORMULA_MARKS.get(tag)
    if marks and len(parts) == len(marks) + 1:
        first, *others = (f"({text})" if is_long else text for text, is_long in parts)
        return first + "".join(
            f"{mark}{text}" for mark, text in zip(marks, others, strict=True)
        ), True
    text = "".join(part for part, _ in parts) + (" " if tag == "mtd" else "")
    return text, len(parts) > 1 or any(is_long for _, is_long in parts)
