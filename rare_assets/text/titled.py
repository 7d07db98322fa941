"""Set a document's title before its text, as a teacher is shown it and as it is searched."""

from __future__ import annotations


def titled(title: str | None, text: str) -> str:
    """Set a text's title and a blank line before it, unless the text begins with its title.

    >>> titled("Brine", "It freezes lower.")
    'Brine\\n\\nIt freezes lower.'
    """
    heading = (title or "").strip()
    if not heading or text.lstrip().startswith(heading):
        return text
    return f"{heading}\n\n{text}"
