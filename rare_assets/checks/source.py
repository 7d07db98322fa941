"""What holds for the file that a shard of documents is read from."""

from __future__ import annotations

import dagster as dg
import polars as pl

from rare_assets.checks.judgement import Check, Judgement, Rule, StoredShard
from rare_assets.operators.read_documents import FILE_GONE, FILE_REASONS


def file_readable(stored: StoredShard) -> Judgement:
    """Require that the shard's file was read when the table was last made; warn if it is gone."""
    problems = stored.rejects.filter(pl.col("reason").is_in(FILE_REASONS))
    if problems.is_empty():
        return Judgement(True, {"reason": None, "rows_kept": None})
    file, reason, problem = problems.select("file", "reason", "detail").row(0)
    severity = dg.AssetCheckSeverity.WARN if reason == FILE_GONE else dg.AssetCheckSeverity.ERROR
    found = {"reason": reason, "file": file, "rows_kept": stored.rows.height}
    return Judgement(False, found, severity, sentence=problem)


FILE_READABLE = Check(
    "file_readable",
    "The shard's file was read when the table was last made. Where it could not be, the table has "
    "the rows of an earlier reading, or none, and nothing that follows starts; where it is gone from "
    "the source, the rows stay and go on, with a warning.",
    True,
    (
        Rule(
            "file_readable",
            "The file can be read and has a usable row.",
            "mend the file, or remove it from the source, and materialize the shard again.",
            file_readable,
        ),
    ),
)
