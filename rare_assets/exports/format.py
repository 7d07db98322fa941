"""Say what an export format is: a record, so that a new one is one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from rare_assets.exports.options import ExportOptions


@dataclass(frozen=True)
class Format:
    """One training format.

    Args:
        name: of the folder, of `--format` and of the data card's config.
        extension: `.parquet`, `.jsonl` or `.json` (a list).
        reads: `questions` for one row a question, `answers` for one row a sampled answer.
        description: whose format it is, in one line.
        rows: training rows of examples (`rare_assets.exports.examples`) that fit, and a split's name.
        fits: by reason, which examples have what a row needs; the others are counted under it.
        broken: by rule, which written rows a trainer would trip over.
        ids: `question_id, doc_id` of written rows, a row each relevant document, where the rows hold
            them; None where a sidecar does.
        parts: the rows are parts of larger files, and lie where no reader looks.
    """

    name: str
    extension: str
    reads: Literal["questions", "answers"]
    description: str
    rows: Callable[[pl.DataFrame, ExportOptions, str], pl.DataFrame]
    fits: Mapping[str, Callable[[ExportOptions], pl.Expr]] = field(default_factory=dict)
    broken: Mapping[str, pl.Expr] = field(default_factory=dict)
    ids: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    parts: bool = False
    version: int = 1

    @property
    def folder(self) -> str:
        """The folder below the export in which the splits' folders are."""
        return f"manifest/parts/{self.name}" if self.parts else self.name


def has_negative(options: ExportOptions) -> pl.Expr:
    """Select the examples with a negative: a row without one trains nothing, or crashes its
    trainer."""
    return pl.col("negatives").list.len() > 0


def has_reasoning(options: ExportOptions) -> pl.Expr:
    """Select the examples with an answer of the teacher that goes with their documents as
    stored."""
    return pl.col("reasoning").is_not_null()


def blank(name: str) -> pl.Expr:
    """Return True where a text is missing or blank.

    >>> pl.DataFrame({"answer": ["42", " ", None]}).select(blank("answer")).to_series().to_list()
    [False, True, True]
    """
    return pl.col(name).fill_null("").str.strip_chars().str.len_chars() == 0


def any_blank(name: str) -> pl.Expr:
    """Return True where a list has no text, or a blank one.

    >>> lists = pl.DataFrame({"negatives": [["ice"], ["ice", " "], []]})
    >>> lists.select(any_blank("negatives")).to_series().to_list()
    [False, True, True]
    """
    element = pl.element().fill_null("").str.strip_chars().str.len_chars() == 0
    return (pl.col(name).list.len().fill_null(0) == 0) | pl.col(name).list.eval(element).list.any()


def chat(options: ExportOptions) -> pl.Expr:
    """Return the messages before the answer: `list[struct{role, content}]`."""
    user = pl.struct(role=pl.lit("user"), content="prompt")
    if not options.system_prompt:
        return pl.concat_list(user)
    return pl.concat_list(
        pl.struct(role=pl.lit("system"), content=pl.lit(options.system_prompt)), user
    )


def completion(options: ExportOptions) -> pl.Expr:
    """Return the text that is learned: the chain of reasoning where the options put it, then the answer.

    A teacher that set no answer apart wrote all of it into its reasoning, which is then the text.
    """
    answer = pl.col("answer")
    whole = answer
    if options.thinking == "think_tags":
        whole = pl.format("<think>\n{}\n</think>\n\n{}", "reasoning", "answer")
    return pl.when(answer.is_null()).then("reasoning").otherwise(whole)


def answer_message(options: ExportOptions) -> pl.Expr:
    """Return the message that is learned: `struct{role, content}`, with `reasoning_content` if asked for."""
    fields = [pl.lit("assistant").alias("role"), completion(options).alias("content")]
    if options.thinking == "reasoning_content":
        chain = pl.when(pl.col("answer").is_null()).then(pl.lit("")).otherwise("reasoning")
        fields.append(chain.alias("reasoning_content"))
    return pl.struct(fields)
