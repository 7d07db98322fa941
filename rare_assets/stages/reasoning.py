"""Reasoning: the options of a shard's asking, what it is made from, and its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from rare_assets.operators.reason_distill import reason_distill
from rare_assets.operators.templates import Templates
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.schemas import Produced
from rare_assets.stages import documents, hard_negatives, questions
from rare_assets.stages.asking import Asking, AskingConfig, Operator
from rare_assets.stages.provenance import judged_by, options_of

if TYPE_CHECKING:
    from rare_assets.teacher import Progress

NAME = "reasoning"
UPSTREAMS = (documents.NAME, questions.NAME, hard_negatives.NAME)
PROMPT = "reason_distill"
ASKS = True


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


def asking(config: ReasoningConfig, teacher: TeacherModel, templates: Templates) -> Asking:
    """Return whom the stage asks, of a deployment's teacher."""
    judge = teacher_of(teacher, "judge") if config.judge_answers else None
    return Asking(teacher_of(teacher, NAME), templates, judge)


def made_from(
    upstreams: Mapping[str, str],
    config: ReasoningConfig,
    templates: Templates,
    teacher: str,
    judge: str | None = None,
) -> dict[str, str]:
    """Name what `reasoning[shard]` is made from: the content hashes of `UPSTREAMS`, and the rest; a judge as
    in `questions.made_from`."""
    inputs = {
        **{name: upstreams[name] for name in UPSTREAMS},
        "options": options_of(config),
        "prompt": templates.reason_distill.fingerprint,
        "teacher": teacher,
    }
    if config.judge_answers:
        inputs |= judged_by(templates.judge_answer, judge, teacher)
    return inputs


def operator(
    asked: pl.DataFrame,
    passages: pl.DataFrame,
    mined: pl.DataFrame,
    config: ReasoningConfig,
    asking: Asking,
    progress: Callable[[Progress], None] | None = None,
) -> Operator[Produced]:
    """Return ReasonDistill over a shard's questions, documents and hard negatives."""
    return lambda model, judge: reason_distill(
        asked,
        passages,
        mined,
        model,
        templates=asking.templates,
        judge=judge if config.judge_answers else None,
        **config.operator_options(asking.teacher),
        progress=progress,
    )
