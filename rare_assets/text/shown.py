"""Texts of any script as people read them on a page: cut between characters, each in its direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import regex

ELLIPSIS = "…"
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
# Letters that run from right to left, and marks that turn the direction of what follows.
_find_right_to_left = regex.compile(
    r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{Bidi_Class=AN}\u202A-\u202E\u2066-\u2068]"
).search
_find_graphemes = regex.compile(r"\X").finditer


def graphemes(text: str) -> Iterator[str]:
    """Split a text into what a reader takes for one character: a letter with its marks, an emoji
    with its parts."""
    for found in _find_graphemes(text):
        yield found[0]


def cut(text: str, length: int) -> str:
    """Cut a text to at most `length` code points, with an ellipsis where it was cut.

    No letter loses its marks, and no emoji a part.

    >>> cut("A long sentence of words", 10)
    'A long se…'
    """
    if len(text) <= length:
        return text
    shown: list[str] = []
    left = length - len(ELLIPSIS)
    for grapheme in graphemes(text):
        left -= len(grapheme)
        if left < 0:
            break
        shown.append(grapheme)
    return "".join(shown) + ELLIPSIS


def first_names(names: Sequence[str], most: int = 5, *, parted: str = ", ") -> str:
    """Return the first names as one text, and how many more there are.

    >>> first_names(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = len(names) - most
    return parted.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def on_one_line(name: str) -> str:
    """Return a name for a message: line breaks and what can't be printed or encoded spelt out.

    >>> print(on_one_line("ice\\nwater.txt"))
    ice\\nwater.txt
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def isolated(text: str) -> str:
    """Isolate a text that runs from right to left, or might: it must not turn what stands around
    it."""
    if text.isascii() or not _find_right_to_left(text):
        return text
    return f"{_FIRST_STRONG_ISOLATE}{text}{_POP_ISOLATE * _open(text)}{_POP_ISOLATE}"


def closed(text: str) -> str:
    """Close the isolates that are open at the end of a text that was cut."""
    return text + _POP_ISOLATE * _open(text)


def _open(text: str) -> int:
    """Return how many isolates a text opens and does not close."""
    depth = 0
    for character in text:
        if character in "\u2066\u2067\u2068":
            depth += 1
        elif character == _POP_ISOLATE and depth:
            depth -= 1
    return depth
