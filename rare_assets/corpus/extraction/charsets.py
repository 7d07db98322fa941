"""The characters of a page, by the encoding that it declares, as browsers understand it."""

from __future__ import annotations

import codecs
import re

from rare_assets.corpus.extraction import Unusable
from rare_assets.text.encodings import wide_encoding

_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""\A\s*<\?xml[^>]+encoding\s*=\s*["']([\w:.-]+)""", re.IGNORECASE)
# Where a page declares itself, as browsers look for it.
_HEAD_BYTES = 4096
# Pages that declare the one are written in the other, which has more characters: browsers read them so.
_MEANT = {
    **dict.fromkeys(("iso8859-1", "ascii", "latin_1"), "cp1252"),
    "iso8859-9": "cp1254",
    **dict.fromkeys(("iso8859-11", "tis_620", "tis-620"), "cp874"),
    **dict.fromkeys(("gb2312", "gbk", "hz"), "gb18030"),
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}


def decoded(content: bytes) -> str:
    """Return a page's characters by its byte order mark, else its declaration, else as UTF-8.

    Raises:
        Unusable: `not_utf8`, if it is not in that encoding, or declares an unknown one.

    >>> decoded('<meta charset="gb2312"><p>朱镕基'.encode("gbk"))
    '<meta charset="gb2312"><p>朱镕基'
    """
    if content.startswith(codecs.BOM_UTF8):
        return _decoded(content[len(codecs.BOM_UTF8) :], "utf-8")
    if wide := wide_encoding(content):
        mark, encoding = wide
        return _decoded(content[len(mark) :], encoding)
    head = content[:_HEAD_BYTES]
    declared = _CHARSET.search(head) or _XML.search(head)
    label = declared[1].decode() if declared else "utf-8"
    name = _known(label)
    if name is None:
        raise Unusable("not_utf8", f"it declares an unknown charset: {label}")
    if name.startswith(("utf-16", "utf-32")):  # it could be read thus far, so it is not
        name = "utf-8"
    return _decoded(content, _MEANT.get(name, name))


def _known(label: str) -> str | None:
    """Return the name that Python has for a charset; browsers know some with "x-" or "windows-" before it."""
    label = label.lower()
    for spelt in (label, label.removeprefix("x-"), label.replace("windows-", "cp")):
        try:
            found = codecs.lookup(
                {"sjis": "shift_jis", "iso-8859-8-i": "iso-8859-8"}.get(spelt, spelt)
            )
        except LookupError:
            continue
        if found._is_text_encoding:
            return found.name
    return None


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unusable(
            "not_utf8",
            f"byte {error.start} is not {encoding}; declare the page's charset in a meta tag",
        ) from error
