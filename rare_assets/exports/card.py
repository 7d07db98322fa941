"""The data card: README.md of an export, with the header by which Hugging Face's datasets reads it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from rare_assets.exports.complete import splits_of
from rare_assets.exports.export import Export, stored_shards
from rare_assets.exports.folder import CARD, CARD_MARK
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.shard_files import COPIES, Written
from rare_assets.schemas import TABLES

_BAR = 30
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Cost(NamedTuple):
    """Tokens and USD that the teacher took; `dollars` is None where a price is unknown."""

    prompt_tokens: int
    completion_tokens: int
    dollars: float | None


def write_card(export: Export, written: list[Written], cost: Cost) -> str:
    """Write README.md for what the folder holds. Return its text.

    Args:
        written: the manifests of all shards and formats.
        cost: of the answers that the rows are made from.

    Raises:
        ExportError: it can't be written.
    """
    by_format: dict[str, list[Written]] = {}
    for each in written:
        by_format.setdefault(each.format, []).append(each)
    with_rows = {
        name: by_format[name]
        for name in FORMATS
        if any(each.rows for each in by_format.get(name, []))
    }
    text = "\n".join(
        [
            *_header(with_rows),
            CARD_MARK,
            "",
            *_intro(export, with_rows),
            *_formats(with_rows),
            *_origin(export, cost),
            *_splits(export, written),
            *_filters(by_format),
            *_figures(with_rows),
            *_limits(export),
        ]
    )
    export.folder.write_text(CARD, text)
    return text


def data_files(name: str, splits: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return `(config, split, path)` of a format: what `datasets.load_dataset` is to read."""
    if name == "beir":
        return [
            (config, split, f"beir/{split}/{file}")
            for config, file in (
                ("beir", "queries.jsonl"),
                ("beir-corpus", "corpus.jsonl"),
            )
            for split in splits
        ]
    each = FORMATS[name]
    # One reader reads all configs of a folder, so Parquet formats are read from their JSON Lines.
    parquet = each.extension == ".parquet"
    files = f"{COPIES}{name}/{{}}/*.jsonl" if parquet else f"{name}/{{}}/*{each.extension}"
    found = [(name, split, files.format(split)) for split in splits]
    if name == "tevatron":
        found.append(("tevatron-corpus", "train", "tevatron/corpus/*.jsonl"))
    return found


def _header(with_rows: dict[str, list[Written]]) -> list[str]:
    configs: dict[str, list[dict[str, Any]]] = {}
    for name, written in with_rows.items():
        for config, split, path in data_files(name, splits_of(written)):
            configs.setdefault(config, []).append({"split": split, "path": path})
    most = max((sum(each.rows for each in written) for written in with_rows.values()), default=0)
    size = next((name for bound, name in _SIZES if most < bound), "n>1M")
    lines = [
        "---",
        "pretty_name: RARE data",
        "task_categories:",
        "- question-answering",
        "- text-retrieval",
        "size_categories:",
        f"- {size}",
        "tags:",
        "- synthetic",
        "- hard-negatives",
        "- reasoning",
    ]
    if configs:
        lines.append("configs:")
    for config, files in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for each in files:
            # JSON is YAML: a path is quoted whatever it holds.
            lines += [f"  - split: {each['split']}", f"    path: {json.dumps(each['path'])}"]
    return [*lines, "---"]


def _intro(export: Export, with_rows: dict[str, list[Written]]) -> list[str]:
    first = next(iter(with_rows), None)
    return [
        "# RARE data",
        "",
        (
            "Questions that take reasoning, each written from one document of a corpus; BM25 hard negatives "
            "from the whole corpus; and a teacher's reasoning from the documents to the answer. "
            f"{len(export.shards):,} shards."
        ),
        "",
        *(
            [
                "```python",
                "from datasets import load_dataset",
                "",
                f'load_dataset("path/to/this/folder", "{first}")',
                "```",
                "",
            ]
            if first
            else []
        ),
    ]


def _formats(with_rows: dict[str, list[Written]]) -> list[str]:
    lines = [
        "## What is in it",
        "",
        "| config | rows: train | validation | test | for |",
        "|---|---:|---:|---:|---|",
    ]
    for name, written in with_rows.items():
        rows = _rows_by_split(written)
        counts = " | ".join(f"{rows[split]:,}" for split in ("train", "validation", "test"))
        lines.append(f"| `{name}` | {counts} | {FORMATS[name].description} |")
    return [
        *lines,
        "",
        (
            "`<shard>.ids.parquet` beside a file has `row, question_id, doc_id` of its rows, where the "
            "format has no room for ids. Rows of one `doc_id` share their document: in one batch they are "
            "false negatives of one another."
        ),
        "",
        (
            "`load_dataset` reads the formats that are Parquet from their copies in `data/`, since it reads "
            "all configs of a folder by one reader."
        ),
        "",
    ]


def _origin(export: Export, cost: Cost) -> list[str]:
    made: dict[str, dict[str, Counter[str]]] = {}
    for table in list(TABLES)[1:]:
        for shard in stored_shards(export.tables, table):
            stored = export.tables.provenance(table, shard)
            for name, value in (stored.made_from if stored else {}).items():
                if name in (
                    "teacher",
                    "prompt",
                    "options",
                    "index",
                    "bm25",
                    "judge",
                    "judge_prompt",
                ):
                    made.setdefault(table, {}).setdefault(name, Counter())[value] += 1
    lines = ["## How it was made", "", "| table | what | value | shards |", "|---|---|---|---:|"]
    for table, facts in made.items():
        for name, values in facts.items():
            for value, shards in values.most_common(3):
                shown = value.replace("|", "\\|")
                lines.append(f"| {table} | {name} | `{shown}` | {shards:,} |")
            if len(values) > 3:
                lines.append(f"| {table} | {name} | and {len(values) - 3:,} more | |")
    dollars = (
        "of unknown price" if cost.dollars is None else f"${cost.dollars:,.2f} at online prices"
    )
    return [
        *lines,
        "",
        (
            f"The teacher took {cost.prompt_tokens:,} prompt and {cost.completion_tokens:,} completion "
            f"tokens, {dollars}."
        ),
        "",
        "Options of this export:",
        "",
        "```json",
        json.dumps(export.options.model_dump(), indent=1),
        "```",
        "",
    ]


def _splits(export: Export, written: list[Written]) -> list[str]:
    options = export.options
    shown = max(
        (sum(e.shows_held_out for e in written if e.format == n) for n in FORMATS), default=0
    )
    lines = [
        "## Splits",
        "",
        (
            f"By document: {options.validation_share:.0%} validation and {options.test_share:.0%} test, seed "
            f"{options.split_seed}. The passages of one parent, documents of one text and near-duplicates "
            f"(words overlap by {options.near_duplicate_threshold:g}) are a family and stay together. As the "
            "corpus grows a document moves only towards training, and only where a new one ties it to one "
            "there. `splits.parquet` has every document's split and family."
        ),
        "",
        (
            "Documents of validation and test are no positives and no negatives of training rows in the "
            "formats for retrievers. Documents of training do stand among the negatives of validation and "
            "test rows, since what is searched is one corpus."
        ),
    ]
    if shown:
        lines += [
            "",
            (
                f"{shown:,} training prompts of the formats for reasoning models show a held-out document "
                "among the distractors, never as the gold one (`held_out_context: drop` leaves them out)."
            ),
        ]
    return [*lines, ""]


def _filters(by_format: dict[str, list[Written]]) -> list[str]:
    lines = [
        "## What was left out",
        "",
        "| config | step | before | after |",
        "|---|---|---:|---:|",
    ]
    for name in FORMATS:
        for step, before, after in summed_counts(by_format.get(name, [])):
            lines.append(f"| `{name}` | {step} | {before:,} | {after:,} |")
    return [*lines, ""]


def summed_counts(written: Iterable[Written]) -> list[tuple[str, int, int]]:
    """Return `(step, rows before, rows after)` over all shards, in order."""
    sums: dict[str, tuple[int, int]] = {}
    for each in written:
        for step, before, after in each.counts:
            so_far = sums.get(step, (0, 0))
            sums[step] = (so_far[0] + before, so_far[1] + after)
    return [(step, *both) for step, both in sums.items()]


def _figures(with_rows: dict[str, list[Written]]) -> list[str]:
    lines = ["## Figures", ""]
    for name in ("cross-encoder", "messages"):
        written = with_rows.get(name, [])
        for text in dict.fromkeys(text for each in written for text in each.words):
            chart = _chart(_summed(each.words.get(text, {}) for each in written))
            lines += [f"Words of a {text} (`{name}`), up to:", "", *chart, ""]
        if written:
            chart = _chart(_summed(each.negatives for each in written))
            lines += [f"Negatives a row (`{name}`):", "", *chart, ""]
    return lines


def _summed(counts: Iterable[dict[str, int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for each in counts:
        total.update({int(key): count for key, count in each.items()})
    return total


def _chart(counts: Counter[int]) -> list[str]:
    """Draw bars of text, which every reader of Markdown shows."""
    most = max(counts.values(), default=0)
    bars = [
        f"{key:>7,}  {'█' * max(1, round(_BAR * counts[key] / most)):<{_BAR}}  {counts[key]:,}"
        for key in sorted(counts)
    ]
    return ["```", *bars, "```"]


def _limits(export: Export) -> list[str]:
    return [
        "## Limits",
        "",
        (
            "- Questions, reasoning and answers were written by a language model and are not checked by "
            "people. Where the source had no gold answer, nothing tells whether an answer is right."
        ),
        (
            "- Negatives are BM25's: alike in words. Some may answer the question all the same, unless they "
            "were judged."
        ),
        "- Scores are BM25's and say little across questions.",
        "- Near-duplicates are documents that share most of their words; paraphrases are not found.",
        (
            "- The licence of the texts is that of the corpus: add `license:` to the header above before you "
            "publish them."
        ),
        "",
    ]


def _rows_by_split(written: Iterable[Written]) -> Counter[str]:
    rows: Counter[str] = Counter()
    for each in written:
        rows.update({split: facts["rows"] for split, facts in each.splits.items()})
    return rows
