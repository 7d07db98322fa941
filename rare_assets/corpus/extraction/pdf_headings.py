"""Tell a PDF's headings by their letters: a PDF says how a line looks and not what it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

# Of the size of most of the text: letters this much larger are a heading's.
_LARGER = 1.15
# A longer paragraph is no heading, however large its letters are.
_MAX_WORDS = 25
_LEVELS = 6
_BOLD = re.compile(r"bold|black|heavy|demi|CMBX|SFBX|-BX", re.I)
# Of a table of contents: dots up to a page's number.
_LEADERS = re.compile(r"(?:\.\s?){4,}")
_LETTER = re.compile(r"[^\W\d_]")


class Face(NamedTuple):
    """How letters look: their size in points, to half a point, and whether they are bold."""

    size: float
    bold: bool

    @classmethod
    def of(cls, size: float, font: str) -> Face:
        """Return the face of a font by its name, as in `ABCDEF+Times-Bold`.

        >>> Face.of(11.96, "AAAAAA+LiberationSans-Bold")
        Face(size=12.0, bold=True)
        """
        return cls(round(2 * size) / 2, bool(_BOLD.search(font)))


def levels_of(lines: Iterable[tuple[Face, str]]) -> dict[Face, int]:
    """Return which faces are headings', with their levels: 1 is the largest.

    Args:
        lines: each line of the document with the face that all of it has.

    Larger letters than those of most of the text, or bold ones of its size where most of it is not bold.

    >>> levels_of([(Face(18, True), "Ice"), (Face(10, False), "It melts at zero degrees.")])
    {Face(size=18, bold=True): 1}
    """
    letters: Counter[Face] = Counter()
    for face, text in lines:
        letters[face] += len(text)
    if not letters:
        return {}
    body = letters.most_common(1)[0][0]
    headings = [
        face
        for face in letters
        if face.size >= _LARGER * body.size
        or (face.bold and not body.bold and face.size >= body.size)
    ]
    return {
        face: min(level, _LEVELS)
        for level, face in enumerate(sorted(headings, reverse=True), start=1)
    }


def is_heading(text: str) -> bool:
    """Return True if a paragraph in a heading's letters reads as one.

    >>> is_heading("2.1 Melting"), is_heading("2.1 Melting . . . . . . . 7"), is_heading("17")
    (True, False, False)
    """
    if text.endswith((".", ",", ";")) or _LEADERS.search(text) or not _LETTER.search(text):
        return False
    return len(text.split()) <= _MAX_WORDS
