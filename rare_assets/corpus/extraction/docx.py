"""Word files to Markdown-like text: headings, lists and tables."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from rare_assets.corpus.extraction import Unusable
from rare_assets.corpus.extraction.html import as_text

# What a document may unpack to, pictures left out.
_MAX_UNPACKED = 256 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CELL = re.compile(r"(<t[dh]\b[^>]*>)(.*?)(?=</t[dh]>)", re.DOTALL)
_BREAKS = re.compile(r"</?p>|<br ?/?>")
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
    except zipfile.BadZipFile as error:
        raise Unusable("broken_file", f"not a Word file: {error}") from error
    if not any(part.filename == "word/document.xml" for part in parts):
        raise Unusable("broken_file", "not a Word file: it has no word/document.xml")
    unpacked = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    if unpacked > _MAX_UNPACKED:
        raise Unusable("too_large", f"it unpacks to {unpacked:,} bytes")
    converted = mammoth.convert_to_html(
        io.BytesIO(content),
        style_map=_STYLES,
        convert_image=mammoth.images.img_element(_no_picture),
    )
    # A cell's paragraphs would stand on lines of their own.
    body = _CELL.sub(
        lambda cell: cell[1] + " ".join(_BREAKS.sub(" ", cell[2]).split()), converted.value
    )
    text = as_text(HTMLTree.parse(f"<html><body>{body}</body></html>"))
    if not text:
        raise Unusable("empty_text", "the document has no text")
    return text, None


def _no_picture(_: Any) -> dict[str, str]:
    return {}
