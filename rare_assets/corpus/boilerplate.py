"""Leave out lines that stand in many files of a shard: menus, footers, what a template adds to each page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rare_assets.corpus.formats import SourceRow, is_text_file

# A line in more than this share of the files is boilerplate, where there are enough files to tell.
SHARE = 0.2
FEWEST_FILES = 10
# Headings and code fences are structure; a line without three letters is drawn, not written.
_WRITTEN = re.compile(r"(?!#|```|~~~).*?[^\W\d_]{3}").match


def repeated_lines(files: Iterable[str]) -> dict[str, int]:
    """Return the lines that stand in more than a fifth of some texts, with the number of texts, most first.

    Args:
        files: the whole text of each. Of fewer than ten, no line is found.

    >>> repeated_lines(f"Text {n} of its own.\\nHome | Contact" for n in range(10))
    {'Home | Contact': 10}
    """
    counts: Counter[str] = Counter()
    n_files = 0
    for text in files:
        n_files += 1
        counts.update({line for raw in text.splitlines() if _WRITTEN(line := raw.strip())})
    if n_files < FEWEST_FILES:
        return {}
    return {line: n for line, n in counts.most_common() if n > SHARE * n_files}


def without_repeated_lines(rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
    """Yield the rows of a shard of text files, without the lines that many of the files have.

    The rows of a shard are held in memory for it.
    """
    held = list(rows)
    texts = [text for row in held if (text := _text_of(row)) is not None]
    repeated = repeated_lines(texts)
    for row in held:
        text = _text_of(row)
        if text is None or not repeated:
            yield row
            continue
        kept = "".join(
            line for line in text.splitlines(keepends=True) if line.strip() not in repeated
        )
        yield row._replace(value={**row.value, "text": kept})


def _text_of(row: SourceRow) -> str | None:
    value: Any = row.value
    is_text = row.problem is None and is_text_file(row.file) and isinstance(value, Mapping)
    return value["text"] if is_text else None
