"""Whether the files of a shard share lines that are about none of them."""

from __future__ import annotations

import dagster as dg
import polars as pl

from rare_assets.checks.judgement import EXAMPLES, Check, Judgement, Rule, StoredShard
from rare_assets.corpus.boilerplate import SHARE, repeated_lines
from rare_assets.corpus.formats import is_text_file
from rare_assets.text.shown import cut

_EXAMPLE_CHARS = 80


def few_repeated_lines(stored: StoredShard) -> Judgement:
    """Expect few files of a shard to share a line: join each file's passages, count files by
    line."""
    rows = stored.rows.filter(pl.col("parent_id").is_not_null())
    files = [
        "\n".join(texts)
        for parent, texts in rows.group_by("parent_id", maintain_order=True).agg("text").iter_rows()
        if is_text_file(parent)
    ]
    found = repeated_lines(files)
    examples = [
        f"{cut(line, _EXAMPLE_CHARS)} ({n:,} of {len(files):,} files)"
        for line, n in list(found.items())[:EXAMPLES]
    ]
    measured = {"repeated_lines": len(found), "threshold": SHARE, "examples": examples}
    return Judgement(not found, measured, dg.AssetCheckSeverity.WARN)


BOILERPLATE = Check(
    "boilerplate",
    "No line stands in more than a fifth of the text files of a shard of ten or more. A warning, never more.",
    False,
    (
        Rule(
            "few_repeated_lines",
            "No line stands in more than a fifth of the shard's text files.",
            "menus and legal footers teach nothing and mislead the search; RARE_STRIP_BOILERPLATE=true reads "
            "the files without them.",
            few_repeated_lines,
        ),
    ),
)
