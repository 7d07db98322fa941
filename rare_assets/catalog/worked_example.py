"""One row of a table as a person reads it: a page of Markdown for a run's metadata.

Texts of a corpus and of a teacher are shown as they are: nothing in them is taken for Markdown, so
none of their images, headings or HTML is rendered, and none that runs from right to left turns what
stands beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.text.shown import ELLIPSIS, graphemes, isolated

LONG, MIDDLE, SHORT = 1300, 700, 380
NEGATIVES_SHOWN = 3
# The event log keeps text as JSON, in which a letter beyond ASCII takes 6 bytes or 12.
BYTES_PER_CHAR = 2
_NO_WIDTH = "\u200b"
# What the UI takes for the beginning of an address: `https:`, `www.`, `somebody@`.
_ADDRESS = re.compile(r"(?<=[a-z]):(?=//)|(?<=www)(?=\.)|(?<=\S)@(?=\S)", re.IGNORECASE)
_LONG_WORD = re.compile(r"\S{30}(?=\S)")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def shortened(text: str, length: int, render: Callable[[str], str] = str) -> str:
    """Render at most `length` characters of a text, twice as many bytes in the event log.

    Wide characters take more bytes, so fewer of them fit, in width about as many. A letter is never
    shown without its marks.
    """
    budget = BYTES_PER_CHAR * length
    shown = []
    done = 0
    for grapheme in graphemes(text):
        part = render(grapheme)
        budget -= len(json.dumps(part)) - 2
        if budget < 0 or done + len(grapheme) > length:
            break
        done += len(grapheme)
        shown.append(part)
    return "".join(shown) + ("" if done == len(text) else ELLIPSIS)


def worked_example(
    table: str, rows: pl.DataFrame, documents: pl.LazyFrame | None = None
) -> dg.MetadataValue:
    """Return the fullest of the first rows as Markdown: a question with its document, its
    negatives.

    Args:
        table: one of `schemas.TABLES`.
        rows: the table's rows.
        documents: the shard's documents, where the rows lack the gold document's text.
    """
    if rows.is_empty():
        return dg.MetadataValue.md("No rows.")
    row = _fullest(rows)
    if "text" not in row and documents is not None:
        gold = documents.filter(pl.col("doc_id") == row["doc_id"]).select("text").head(1).collect()
        row["text"] = gold["text"].first()
    return dg.MetadataValue.md("\n\n".join(_PARTS[table](row)))


def _fullest(rows: pl.DataFrame) -> dict[str, Any]:
    """Return the first row with most negatives; the very first of a table without any."""
    if "hard_negatives" in rows.columns:
        return rows.row(rows["hard_negatives"].list.len().arg_max() or 0, named=True)
    return rows.row(0, named=True)


def _document(row: dict[str, Any]) -> list[str]:
    parts = _part("Document", _said(row["doc_id"], row["title"]), row["text"], LONG)
    parts += _part("Gold answer", "", row["answer"], SHORT)
    return [*parts, f"From {_plain(row['source'])}, {row['n_words']:,} words."]


def _question(row: dict[str, Any]) -> list[str]:
    return [
        *_part("Gold document", _plain(row["doc_id"]), row.get("text"), MIDDLE),
        *_part("Scenario", "", row["scenario"], MIDDLE),
        *_part("Question", _plain(row["question_id"]), row["question"], MIDDLE),
        f"Written by {_plain(row['model'])}, {_attempts(row)}.",
    ]


def _mined(row: dict[str, Any]) -> list[str]:
    rank = "beyond the ranks searched" if row["gold_rank"] is None else f"rank {row['gold_rank']}"
    score = "" if row["gold_score"] is None else f", BM25 score {row['gold_score']:.2f}"
    return [
        *_part("Searched with", _plain(row["question_id"]), row["query"], MIDDLE),
        *_part("Gold document", f"{_plain(row['doc_id'])}, {rank}{score}", row.get("text"), MIDDLE),
        *_negatives(
            row,
            [
                f"{_plain(n['doc_id'])}, rank {n['rank']}, BM25 score {n['score']:.2f}"
                for n in row["negatives"]
            ],
        ),
    ]


def _reasoned(row: dict[str, Any]) -> list[str]:
    place = f"shown at place {row['gold_position'] + 1} of {len(row['context_doc_ids'])}"
    by = f"{_plain(row['model'])}, {row['completion_tokens']:,} tokens, {_attempts(row)}"
    return [
        *_part("Scenario", "", row["scenario"], SHORT),
        *_part("Question", _plain(row["question_id"]), row["question"], SHORT),
        *_part("Gold document", f"{_plain(row['doc_id'])}, {place}", row["text"], MIDDLE),
        *_negatives(row, [""] * len(row["hard_negatives"])),
        *_part("Reasoning", by, row["reasoning"], LONG),
        *_part("Answer", _judged(row["answer_correct"]), row["answer"], SHORT),
    ]


_PARTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "documents": _document,
    "questions": _question,
    "hard_negatives": _mined,
    "reasoning": _reasoned,
}


def _negatives(row: dict[str, Any], said: list[str]) -> list[str]:
    texts = row["hard_negatives"]
    parts = []
    for number, text in enumerate(texts[:NEGATIVES_SHOWN], start=1):
        parts += _part(f"Hard negative {number}", said[number - 1], text, SHORT)
    if not texts:
        return ["**No hard negative** was found."]
    more = len(texts) - NEGATIVES_SHOWN
    return [*parts, f"And {more} more."] if more > 0 else parts


def _part(name: str, said: str, text: str | None, length: int) -> list[str]:
    """Return a heading and the text as a quotation; nothing where there is no text."""
    if text is None:
        return []
    return [f"**{name}**{': ' if said else ''}{said}", _quotation(text, length)]


def _quotation(text: str, length: int) -> str:
    shown = shortened(_breakable(text.strip()), length, _escaped)
    # Indented by four, a line would be code.
    return "\n".join(f"> {isolated(line.strip())}" for line in shown.splitlines())


def _plain(text: str) -> str:
    return isolated(shortened(_breakable(" ".join(text.split())), SHORT // 3, _escaped))


def literal(text: str) -> str:
    """Return a text so that Markdown shows it as it is: see `_breakable`."""
    return _escaped(_breakable(text))


def _escaped(text: str) -> str:
    """Escape the punctuation of a text, so that Markdown takes it as it is."""
    return _PUNCTUATION.sub(r"\\\1", text)


def _breakable(text: str) -> str:
    """Return a text in which no address becomes a link, and whose long words can be broken.

    Escapes don't keep the UI from making links of addresses, and a word as long as a path or a formula
    is wider than the page; a blank of no width within them does.
    """
    return _LONG_WORD.sub(rf"\g<0>{_NO_WIDTH}", _ADDRESS.sub(rf"\g<0>{_NO_WIDTH}", text))


def _said(*texts: str | None) -> str:
    return ", ".join(_plain(text) for text in texts if text)


def _attempts(row: dict[str, Any]) -> str:
    return f"{row['attempts']} attempt{'s' if row['attempts'] > 1 else ''}"


def _judged(correct: bool | None) -> str:
    return "" if correct is None else "agrees with the gold answer" if correct else "does not agree"
