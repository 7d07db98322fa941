r"""What an answer writes, sign by sign: one spelling for each sign, and the words and signs that count.

Most marks only set words apart. These say something else: a minus, an operator, a comparison, a charge
or grade behind letters ("K+", "AB-"), a power.
"""

# ruff: noqa: RUF001 (dashes and signs that look like others are meant)

from __future__ import annotations

import re
import unicodedata

_POWER = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾]+")
# Between a whole number and the fraction behind it: 1½ would become 11/2.
_MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_ONE_SPELLING = str.maketrans(dict.fromkeys("‐‑‒–−", "-") | {"⁄": "/", "♯": "#"})
_CURRENCIES = "€£¥₹₩₽₺₪₫฿¢₴₦"
# LaTeX's dollar signs stand on either side of a formula, these before a number.
_DOLLAR = re.compile(r"(?<![\d$}])\$(?=\s?\d)")
_QUOTED = re.compile(r"^[ \t]*>[ \t]+(?=[^\W\d])", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*(?:[-+][ \t]+|-(?=[^\W\d_]))", re.MULTILINE)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_COMMAND_SIGNS = {
    **{"lt": "<", "gt": ">", "le": "≤", "leq": "≤", "leqslant": "≤"},
    **{"ge": "≥", "geq": "≥", "geqslant": "≥", "ne": "≠", "neq": "≠", "pm": "±", "mp": "∓"},
    **{"cup": "∪", "cap": "∩", "in": "∈", "notin": "∉", "setminus": "∖", "emptyset": "∅"},
    **{"subset": "⊂", "subseteq": "⊆", "supset": "⊃", "supseteq": "⊇", "varnothing": "∅"},
    **{"neg": "¬", "lnot": "¬", "land": "∧", "wedge": "∧", "lor": "∨", "vee": "∨"},
    **{"sqrt": "√", "infty": "∞", "leftarrow": "←", "leftrightarrow": "↔"},
}
_SIGNS = "<>≤≥≠±∓∪∩∈∉∖∅⊂⊆⊃⊇¬∧∨∀∃√∛∞∂∇∫∑∏←↔↑↓♭‰%"
_SPELLINGS = (
    (re.compile(r"<[-=]{1,3}>"), "↔"),
    (re.compile(r"(?<=\s)<-(?=\s)"), "←"),
    # An arrow to what follows says no more than a comma.
    (re.compile(r"[-=]{1,3}>"), " "),
    (re.compile(r"<="), "≤"),
    (re.compile(r">="), "≥"),
    (re.compile(r"!="), "≠"),
    (re.compile(r"\+/-"), "±"),
    # A power or charge behind letters is written in line as well: cm2, Ca2+.
    (re.compile(r"(?<=[^\W\d_])\^\{?(\d+[+-]?|[+-](?![\w\\({]))\}?"), r"\1"),
    (re.compile(rf"-[${_CURRENCIES}]\s?(?=\d)"), "-"),
    (re.compile(r"([=({\[^<>≤≥≠±]) ?- (?=\S)"), r"\1-"),
    # Where there is but one line it is no item of a list.
    (re.compile(r"\A- (?=\.?\d)(?!.*\n)"), "-"),
    # Their last 0 counts, and is kept as behind a v.
    (
        re.compile(
            r"\b(python|java|node|django|ruby|php|perl|swift|kotlin|scala|go|rust|ubuntu|debian|linux|kernel"
            r"|versions?|releases?|sections?|chapters?|figures?|fig\.|tables?|equations?|eq\.|theorem|lemma"
            r"|exercise|problem|clause)\s(\d{1,9}\.\d{0,9}[1-9]0)(?!\.?\d)",
            re.IGNORECASE,
        ),
        r"\1 v\2",
    ),
)
_TOKEN = re.compile(
    rf"""
    # Numbers of a version, an address or a date.
    (?<![\w.])(?:v\d+(?:\.\d+)+|\d+(?:\.\d+){{2,}})
    | (?<![\w.])-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?
    | -?\.\d+
    | [^\W_]+
    # A minus before what is no number; between words it is a hyphen, between blanks a dash.
    | (?<![^\s(\[{{=^/*$|+{_SIGNS}])-(?=[^\W\d_]|[\\({{√∞])
    # A charge or a grade; "pre- and post-war" has none.
    | (?<=[^\W_])-(?=[)\]}}]|\W*\Z)
    # A plus before a number says nothing if nothing stands directly before it.
    | (?<![^\s(\[{{=^])\+(?!\.?\d) | (?<=[^\s(\[{{=^])\+
    | (?<=[^\W\d_])\#
    | [{_SIGNS}^]
    """,
    re.VERBOSE,
)


def normal(text: str) -> str:
    r"""Return a text in NFKC that keeps its powers, with one spelling for a minus.

    >>> normal("10³"), normal("1½"), normal("\N{MINUS SIGN}3")
    ('10^{3}', '1 1/2', '-3')
    """
    text = _MIXED.sub(" ", _POWER.sub(r"^{\g<0>}", text))
    text = unicodedata.normalize("NFKC", text).translate(_ONE_SPELLING)
    return _QUOTED.sub("", text)


def currencies(text: str) -> frozenset[str]:
    """Return the currency signs of a normal text.

    >>> sorted(currencies("$5 or €4")), sorted(currencies("$x = 5$"))
    (['$', '€'], [])
    """
    found = {sign for sign in _CURRENCIES if sign in text}
    dollars = text.count("$")
    if dollars and dollars == len(_DOLLAR.findall(text)):
        found.add("$")
    return frozenset(found)


def tokens(text: str) -> list[str]:
    r"""Return the words, numbers and signs of a normal text, folded.

    >>> tokens(r"F = -kx, well-known"), tokens(r"p \leq 0.05")
    (['f', '-', 'kx', 'well', 'known'], ['p', '≤', '0.05'])
    """
    if len(_BULLET.findall(text)) > 1:
        text = _BULLET.sub("", text)
    text = _COMMAND.sub(lambda match: _COMMAND_SIGNS.get(match[1], match[0]), text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return _TOKEN.findall(text.casefold())
