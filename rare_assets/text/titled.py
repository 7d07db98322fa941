"""A document with its title: what a teacher is shown, and what is searched."""

from __future__ import annotations


def titled(title: str | None, text: str) -> str:
    """A text with its title and a blank line before it; the text alone where it begins with the title.

    >>> titled("Brine", "It freezes lower.")
    'Brine\\n\\nIt freezes lower.'
    """
    heading = (title or "").strip()
    if not heading or text.lstrip().startswith(heading):
        return text
    return f"{heading}\n\n{text}"
