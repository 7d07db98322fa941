"""Reasoning: the options of a shard's asking."""

from typing import Any

from pydantic import Field

from rare_assets.resources.configurable import TeacherModel
from rare_assets.stages.asking import AskingConfig


class ReasoningConfig(AskingConfig):
    """What is asked of the teacher for each question."""

    seed: int = Field(0, description="Seed of the order in which the documents are shown.")
    n: int = Field(1, ge=1, description="Samples per question.")
    rejection_samples: int = Field(
        0,
        ge=0,
        description="Answers asked for until one agrees with the question's reference, where that can be "
        "told: for a source's own `question` and `answer`, and with judge_answers for references that the "
        "teacher wrote. 0: any answer is kept, `answer_correct` tells.",
    )
    max_context_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens that prompt and answer may have together, by four bytes each: the window of the "
        "model. The worst negatives are left out of the context until they fit, and named in `left_out`. "
        "Default: no bound.",
    )
    judge_answers: bool = Field(
        False,
        description="Ask the teacher whether an answer in other words agrees with the reference, one short "
        "request each. Off: only equal answers agree, and of those that differ from a reference which the "
        "teacher wrote nobody can tell.",
    )
    without_gold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the questions, chosen by the seed, that are shown without their gold document.",
    )

    def operator_options(self, teacher: TeacherModel) -> dict[str, Any]:
        options = super().operator_options(teacher)
        del options["judge_answers"]
        return options
