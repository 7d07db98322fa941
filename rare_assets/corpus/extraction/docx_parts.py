"""Word files with what Mammoth leaves out written so that it reads it: formulas, simple fields, text boxes."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from rare_assets.corpus.extraction.docx_formulas import MATH, linear, local

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARTS = re.compile(r"word/(?:document|footnotes|endnotes)\d*\.xml")
# A part without any of them stays as it is, which most do.
_LEFT_OUT = re.compile(
    rb"<(?:[\w.-]+:)?(?:oMath|fldSimple|dir|bdo|ruby|cr|ptab|sym|txbxContent|Choice)[\s/>]"
)
_WRAPPERS = {"fldSimple", "dir", "bdo"}
_SHAPES = {"drawing", "pict", "object"}
# Fonts of pictures have them in place of letters; Mammoth knows what the common ones show.
_PICTURES = ("Symbol", "Webdings", "Wingdings")
_PRIVATE_USE = range(0xE000, 0xF900)


def readable(content: bytes) -> bytes:
    """Return a Word file of which Mammoth reads all text."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {name for name in archive.namelist() if _PARTS.fullmatch(name)}
        parts = {name: part for name in names if _LEFT_OUT.search(part := archive.read(name))}
    rewritten = {name: new for name, part in parts.items() if (new := _rewritten(part)) is not None}
    return _with(content, rewritten) if rewritten else content


def _with(content: bytes, parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO(content)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        # Of two parts of one name the last one counts.
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def _rewritten(part: bytes) -> bytes | None:
    try:
        root = ElementTree.fromstring(part)
    except ElementTree.ParseError:  # Mammoth will say so
        return None
    _mend(root)
    return ElementTree.tostring(root, encoding="utf-8")


def _mend(element: Element) -> None:
    """Write an element's children anew."""
    element[:] = [new for child in element for new in _instead(child)]


def _instead(element: Element) -> list[Element]:
    """Return what stands in an element's place."""
    name = local(element)
    if element.tag.startswith(MATH):
        return _formulas(element)
    if name == "AlternateContent":
        return _alternative(element)
    _mend(element)
    if name in _WRAPPERS:
        return list(element)
    if name == "ruby":  # how it is spoken stands above the words
        return [each for base in element if local(base) == "rubyBase" for each in base]
    if name == "cr":
        return [Element(f"{W}br")]
    if name == "ptab":
        return [Element(f"{W}tab")]
    if name == "sym":
        return _symbol(element)
    if name in _SHAPES and (boxes := _boxes(element)):
        # Mammoth sets those behind the paragraph.
        shape = Element(f"{W}pict")
        shape.extend(boxes)
        return [shape]
    return [element]


def _formulas(element: Element) -> list[Element]:
    """Return a formula as a run of text; those on lines of their own with breaks around them."""
    if local(element) != "oMathPara":
        return [_run(linear(element))]
    lines = [_break()]
    for formula in element:
        if text := linear(formula):
            lines += [_run(text), _break()]
    return lines


def _run(text: str) -> Element:
    run = Element(f"{W}r")
    ElementTree.SubElement(run, f"{W}t").text = text
    return run


def _break() -> Element:
    run = Element(f"{W}r")
    ElementTree.SubElement(run, f"{W}br")
    return run


def _alternative(element: Element) -> list[Element]:
    """Return what is meant for older programs, which Mammoth reads; where that has no text, what is for newer ones."""
    found: list[Element] = []
    for each in sorted(element, key=lambda each: local(each) != "Fallback"):
        _mend(each)
        if any(local(text) == "t" for text in each.iter()):
            return list(each)
        found = found or list(each)
    return found


def _symbol(element: Element) -> list[Element]:
    """Return a symbol as a letter, unless its font makes a picture of it."""
    given = {name.rpartition("}")[2]: value for name, value in element.items()}
    try:
        letter = chr(int(given.get("char", ""), 16))
    except (ValueError, OverflowError):
        return []
    if ord(letter) in _PRIVATE_USE or given.get("font", "").startswith(_PICTURES):
        return [element]
    text = Element(f"{W}t")
    text.text = letter
    return [text] if letter.isprintable() else []


def _boxes(element: Element) -> list[Element]:
    """Return the text boxes of a shape, not those within them."""
    found = []
    for child in element:
        found += [child] if local(child) == "txbxContent" else _boxes(child)
    return found
