"""Texts in UTF-16 and UTF-32: files of them, told by their first bytes, and what is left of them in others."""

from __future__ import annotations

import codecs

# The longer mark first: UTF-32's begins with UTF-16's.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Which of the first four bytes are zero where a text begins with two characters of ASCII.
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}


def wide_encoding(begin: bytes) -> tuple[bytes, str] | None:
    """Return the byte order mark that a file begins with, and the encoding that it stands for.

    Without a mark it is told by the zeros of the first characters, as JSON's standard did. None for any other
    file, and for UTF-8's mark.

    >>> wide_encoding("ice".encode("utf-16"))[1], wide_encoding("ice".encode("utf-16-be"))
    ('utf-16-le', (b'', 'utf-16-be'))
    """
    for mark, name in _WIDE:
        if begin.startswith(mark):
            return mark, name
    name = _ZEROS.get(tuple(byte == 0 for byte in begin[:4]), "")
    return (b"", name) if name else None


def without_halves(text: str) -> str:
    """Return a text that any encoding can write: halves of UTF-16's pairs are joined to one character, and one
    that stands alone becomes U+FFFD.

    JSON's escapes can hold both.

    >>> without_halves("ice \\ud83e\\uddca, half \\ud83e") == "ice \\U0001f9ca, half \\ufffd"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
