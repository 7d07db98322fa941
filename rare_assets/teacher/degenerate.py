"""Tell texts that repeat themselves, as models write when they have lost their way."""

from __future__ import annotations

import re
import zlib
from collections import Counter

# Prose compresses to 0.4 of its bytes, code and tables to 0.15; one sentence again and again to less
# than a tenth of that. A stretch is long enough to hold any sentence several times.
_STRETCH = 4_000
_SHARE = 0.05
# A shorter text needs to be one character or a few, again and again.
_SHORTEST = 200
# Sentences or lines that come so often, and are most of the text, are a loop, too.
_UNIT = re.compile(
    r"[^.!?\n\N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}]{6,}"
)
_OFTEN = 6
_MOST = 0.6


def is_degenerate(text: str) -> bool:
    """Return whether a text, or a stretch of 4,000 bytes in it, does nothing but repeat itself.

    Judged by how far it compresses (DEFLATE) and by how much of it is the same sentence or line.

    Example:
        >>> is_degenerate("The salt melts the ice. " * 300)
        True
        >>> is_degenerate("Salt melts ice since it lowers the freezing point of water.")
        False
    """
    content = text.encode("utf-8", "replace")
    if len(content) < _SHORTEST:
        return False
    if _loops(text):
        return True
    if len(content) < _STRETCH:
        return len(zlib.compress(content)) < _SHARE * len(content)
    starts = [*range(0, len(content) - _STRETCH, _STRETCH // 2), len(content) - _STRETCH]
    return any(
        len(zlib.compress(content[start : start + _STRETCH])) < _SHARE * _STRETCH
        for start in starts
    )


def _loops(text: str) -> bool:
    units = Counter(unit.strip() for unit in _UNIT.findall(text))
    again = sum(len(unit) * count for unit, count in units.items() if count >= _OFTEN)
    return again > _MOST * len(text)
