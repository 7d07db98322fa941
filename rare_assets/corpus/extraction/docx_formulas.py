"""Word's formulas as one line of text: x^2, a_i, (a+b)/c, sqrt(x)."""

from __future__ import annotations

from xml.etree.ElementTree import Element

# Of Word as it is written, and of its strict form.
MATH = (
    "{http://schemas.openxmlformats.org/officeDocument/2006/math}",
    "{http://purl.oclc.org/ooxml/officeDocument/math}",
)
_DELETED = ("del", "moveFrom")
# What is written where the formula names no sign of its own.
_SIGNS = {"begChr": "(", "endChr": ")", "sepChr": "|"}
_INTEGRAL, _HAT = "\u222b", "\u0302"


def linear(element: Element) -> str:
    """Return a formula, or a part of one, as text.

    >>> from xml.etree.ElementTree import fromstring
    >>> linear(fromstring("<sSup><e><r><t>x</t></r></e><sup><r><t>n+1</t></r></sup></sSup>"))
    'x^(n+1)'
    """
    name = local(element)
    if name in _DELETED or name.endswith("Pr"):
        return ""
    if name == "t":
        return element.text or ""
    if name == "br":
        return " "
    write = _WRITERS.get(name)
    return write(element) if write else _all(element)


def local(element: Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _all(element: Element) -> str:
    pieces = [""]
    for child in element:
        piece = linear(child)
        # A function's name is a word of its own.
        blank = " " if local(child) == "func" and pieces[-1][-1:].isalnum() else ""
        pieces.append(blank + piece)
    return "".join(pieces)


def _part(element: Element, name: str) -> str:
    return "".join(linear(child) for child in element if local(child) == name)


def _grouped(element: Element, name: str) -> str:
    """Return a part in brackets, unless it is one sign, one word or has brackets already."""
    text = _part(element, name).strip()
    if len(text) < 2 or text.replace(".", "").isalnum():
        return text
    inner = [each for child in element if local(child) == name for each in child]
    bracketed = [local(each) for each in inner if not local(each).endswith("Pr")] == ["d"]
    return text if bracketed else f"({text})"


def _sign(element: Element, name: str, default: str = "") -> str:
    """Return a sign that is not among a formula's letters, but a property of it."""
    for properties in element:
        if local(properties).endswith("Pr"):
            for found in properties:
                if local(found) == name:
                    return next((v for k, v in found.items() if k.rpartition("}")[2] == "val"), "")
    return _SIGNS.get(name, default)


def _scripts(element: Element) -> str:
    below, above = (_grouped(element, name) for name in ("sub", "sup"))
    return (f"_{below}" if below else "") + (f"^{above}" if above else "")


def _fraction(element: Element) -> str:
    # One number above another, as in a binomial coefficient, is no quotient.
    bar = "\u00a6" if _sign(element, "type") == "noBar" else "/"
    return f"{_grouped(element, 'num')}{bar}{_grouped(element, 'den')}"


def _root(element: Element) -> str:
    degree, inner = _part(element, "deg").strip(), _part(element, "e")
    return f"root({degree}, {inner})" if degree else f"sqrt({inner})"


def _sum(element: Element) -> str:
    sign = _sign(element, "chr", _INTEGRAL)
    return f"{sign}{_scripts(element)} {_part(element, 'e')}"


def _delimited(element: Element) -> str:
    between = _sign(element, "sepChr").join(_each(element, "e"))
    return f"{_sign(element, 'begChr')}{between}{_sign(element, 'endChr')}"


def _function(element: Element) -> str:
    name, of = _part(element, "fName"), _part(element, "e")
    return f"{name}{'' if of.startswith('(') else ' '}{of}"


def _accented(element: Element) -> str:
    inner = _part(element, "e")
    # Above several letters it would stand on the last one.
    return inner + _sign(element, "chr", _HAT) if len(inner) == 1 else inner


def _lines(element: Element) -> str:
    # There & aligns the lines, and # stands before an equation's number.
    lines = (line.replace("&", "").replace("#", " ") for line in _each(element, "e"))
    return "; ".join(lines)


def _matrix(element: Element) -> str:
    return "; ".join(", ".join(_each(row, "e")) for row in element if local(row) == "mr")


def _each(element: Element, name: str) -> list[str]:
    return [linear(child) for child in element if local(child) == name]


_WRITERS = {
    "sSup": lambda element: _part(element, "e") + _scripts(element),
    "sSub": lambda element: _part(element, "e") + _scripts(element),
    "sSubSup": lambda element: _part(element, "e") + _scripts(element),
    "sPre": lambda element: _scripts(element) + _part(element, "e"),
    "limLow": lambda element: f"{_part(element, 'e')}_{_grouped(element, 'lim')}",
    "limUpp": lambda element: f"{_part(element, 'e')}^{_grouped(element, 'lim')}",
    "f": _fraction,
    "rad": _root,
    "nary": _sum,
    "d": _delimited,
    "func": _function,
    "acc": _accented,
    "eqArr": _lines,
    "m": _matrix,
}
