"""Word files to Markdown-like text: headings, lists and tables."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from rare_assets.corpus.extraction import Unusable
from rare_assets.corpus.extraction.docx_parts import W, readable
from rare_assets.corpus.extraction.formulas import with_powers
from rare_assets.corpus.extraction.html import as_text

# What a document may unpack to, pictures left out.
_MAX_UNPACKED = 256 << 20
_MAX_STYLES = 16 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CELL = re.compile(r"(<t[dh]\b[^>]*>)(.*?)(?=</t[dh]>)", re.DOTALL)
_ITEMS = re.compile(r"</li>(?=\s*<li>)")
_BREAKS = re.compile(r"</?p>|<br ?/?>|</?[ou]l>|</?li>")
# Behind a note, a link back to where it belongs; from the beginning of a row of spaces, not again from each.
_BACK = re.compile(r'(?:(?<!\s)\s+)?<a href="#(?:foot|end)note-ref-[^"]*">[^<]*</a>')
_HEADING_NAME = re.compile(r"heading ([1-6])", re.IGNORECASE)
_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Source Code'] => pre:separator('\\n')
"""


def extract(content: bytes) -> tuple[str, str | None]:
    """Return the text of a document and its title.

    Raises:
        Unusable: it is encrypted, no Word file, unpacks to too much, or has no text.
    """
    import mammoth
    from resiliparse.parse.html import HTMLTree

    if content.startswith(_OLE):
        raise Unusable("encrypted", "protected by a password, or of the old .doc format")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            styles = _part(archive, "word/styles.xml")
    except zipfile.BadZipFile as error:
        raise Unusable("broken_file", f"not a Word file: {error}") from error
    if not any(part.filename == "word/document.xml" for part in parts):
        raise Unusable("broken_file", "not a Word file: it has no word/document.xml")
    unpacked = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    if unpacked > _MAX_UNPACKED:
        raise Unusable("too_large", f"it unpacks to {unpacked:,} bytes")
    converted = mammoth.convert_to_html(
        io.BytesIO(readable(content)),
        style_map=_STYLES + "\n".join(_headings(styles)),
        convert_image=mammoth.images.img_element(_no_picture),
    )
    # A cell's paragraphs would stand on lines of their own.
    body = _CELL.sub(
        lambda cell: cell[1] + " ".join(_BREAKS.sub(" ", _ITEMS.sub("; ", cell[2])).split()),
        with_powers(_BACK.sub("", converted.value)),
    )
    text = as_text(HTMLTree.parse(f"<html><body>{body}</body></html>"))
    if not text:
        raise Unusable("empty_text", "the document has no text")
    return text, None


def _no_picture(_: Any) -> dict[str, str]:
    return {}


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a part of the archive of at most some megabytes; nothing of a larger one, or where there is none."""
    try:
        return archive.read(name) if archive.getinfo(name).file_size <= _MAX_STYLES else b""
    except KeyError:
        return b""


def _headings(styles: bytes) -> Iterator[str]:
    """Yield a rule of Mammoth for each style of one's own that is a heading: by its level, or by what it is based on."""
    try:
        found = ElementTree.fromstring(styles).findall(f"{W}style[@{W}type='paragraph']")
    except ElementTree.ParseError:  # Mammoth will say so
        return
    by_id = {style.get(f"{W}styleId"): style for style in found}
    for style in found:
        name = _value(style, "name")
        level: int | None = None
        base: ElementTree.Element | None = style
        seen: set[str | None] = set()
        while level is None and base is not None and (own := base.get(f"{W}styleId")) not in seen:
            seen.add(own)
            level = _level(base)
            base = by_id.get(_value(base, "basedOn"))
        if name and level and not _HEADING_NAME.fullmatch(name):
            quoted = name.replace("\\", "\\\\").replace("'", "\\'")
            yield f"p[style-name='{quoted}'] => h{level}:fresh"


def _level(style: ElementTree.Element) -> int | None:
    """Return the level of the heading that a style is, from 1; 0 for one that says to be none, None if it does not say."""
    if named := _HEADING_NAME.fullmatch(_value(style, "name") or ""):
        return int(named[1])
    outline = _value(style, "pPr/outlineLvl")
    if outline is None or not outline.isdecimal():
        return None
    return int(outline) + 1 if int(outline) < 6 else 0


def _value(style: ElementTree.Element, path: str) -> str | None:
    element = style.find("/".join(f"{W}{name}" for name in path.split("/")))
    return None if element is None else element.get(f"{W}val")
