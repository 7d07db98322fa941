"""List what a user may decide about an export, once for the command, the Launchpad and the card."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, Field, model_validator

# Where files go and how large they get decides nothing about their rows.
_NOT_CONTENT = {"max_file_mb"}


class ExportOptions(BaseModel):
    """Filters, splits and texts of an export; every field has a default."""

    num_neg: int = Field(
        1,
        ge=1,
        description="Negatives a row in formats that want the same number in each "
        "(sentence-transformers): rows with fewer are left out and counted.",
    )
    query: Literal["question", "scenario_question"] = Field(
        "question",
        description="What stands as the query in formats for retrievers: the question, or scenario "
        "and question.",
    )
    thinking: Literal["think_tags", "reasoning_content", "none"] = Field(
        "think_tags",
        description="Where the chain of reasoning goes in chat formats: between <think> tags before "
        "the answer, in `reasoning_content` beside it, or nowhere.",
    )
    query_instruction: str = Field(
        "Given a question, retrieve passages that help to answer it.",
        description="Instruction that goes with a query, where a format has a place for it.",
    )
    passage_instruction: str = Field(
        "", description="Instruction that goes with a passage, where a format has a place for it."
    )
    task_instruction: str = Field(
        "Answer the question with the help of the retrieved documents. Not all of them are relevant. "
        "Reason step by step, then give the final answer.",
        description="What stands before the documents in formats for reasoning models.",
    )
    system_prompt: str = Field("", description="System message of chat formats; none if empty.")
    data_source: str = Field("rare_assets", description="`data_source` of verl's rows.")
    validation_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the documents whose rows are for validation."
    )
    test_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the documents whose rows are for tests."
    )
    split_seed: int = Field(0, description="Seed of the splits.")
    near_duplicate_threshold: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Documents whose sets of words overlap by this share (words in common over words "
        "in either) stay in one split.",
    )
    held_out_context: Literal["keep", "drop"] = Field(
        "keep",
        description="Training rows of chat formats whose prompt shows a document of validation or "
        "test among the distractors: keep and count them, or drop them. Retrievers' rows lose such a "
        "negative in any case.",
    )
    max_gold_rank: int | None = Field(
        None, ge=1, description="Keep rows whose gold document ranks at least so high."
    )
    min_score_gap: float | None = Field(
        None,
        description="Keep rows whose best negative scores at least this share below the gold document.",
    )
    gold_used: bool = Field(
        False, description="Keep rows whose teacher says that it used the gold document."
    )
    answer_correct: Literal["format", "any", "not_wrong", "correct"] = Field(
        "format",
        description="Keep rows with any answer, with none that is known to be wrong, or with answers "
        "known to be correct. Default: any for retrievers, not_wrong for reasoning models.",
    )
    judged: bool = Field(
        False, description="Keep rows whose question was judged and passed, those only."
    )
    max_prompt_tokens: int | None = Field(
        None,
        ge=1,
        description="Keep rows whose question and documents have at most so many tokens, taken as "
        "four characters each.",
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=1,
        description="Keep rows whose reasoning and answer have at most so many tokens, likewise.",
    )
    languages: list[str] = Field(
        [], description="Keep rows whose question is in one of these languages (ISO 639-1: en, de)."
    )
    exclude: list[str] = Field(
        [],
        description="Files or folders of evaluation questions and passages (BEIR folder, JSON, "
        "JSON Lines, CSV, Parquet, text): rows that share 13 words in a row with them, or nearly all words of a "
        "question, are left out and named in rejects/.",
    )
    max_file_mb: int = Field(
        500, ge=1, description="A shard whose file would be larger is written as several."
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> ExportOptions:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must leave something to train on.")
        return self

    def content(self) -> str:
        """Return what decides the rows, as canonical JSON.

        >>> ExportOptions(max_file_mb=10).content() == ExportOptions().content()
        True
        """
        return json.dumps(self.model_dump(exclude=_NOT_CONTENT), sort_keys=True)


SPLITS = ("train", "validation", "test")


class ExportError(Exception):
    """Raised where an export can't be made; the message says what to do."""
