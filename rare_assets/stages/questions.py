"""Questions: the options of a shard's asking, what it is made from, and its operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import polars as pl
from pydantic import Field, model_validator

from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.templates import Templates
from rare_assets.operators.variety import LENGTHS, QUESTION_TYPES, WORDINGS, Variety, check_variety
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.schemas import Produced
from rare_assets.stages import documents
from rare_assets.stages.asking import Asking, AskingConfig, Operator
from rare_assets.stages.provenance import judged_by, options_of

if TYPE_CHECKING:
    from rare_assets.teacher import Progress

NAME = "questions"
UPSTREAMS = (documents.NAME,)
PROMPT = "doc2query"
ASKS = True
_LISTS = Variety()


class QuestionsConfig(AskingConfig):
    """What is asked of the teacher for each document."""

    num_questions: int = Field(
        1,
        ge=1,
        description="Questions per document, on different points of it, in one request. A document that "
        "comes with a question of its own has that one.",
    )
    min_words: int = Field(
        20, ge=0, description="Documents of fewer words get no question: they go to the rejects."
    )
    seed: int | None = Field(
        None,
        description="Sampling seed, and of the choices among the lists below. Default: none is sent.",
    )
    question_types: list[str] = Field(
        list(_LISTS.question_types),
        description=f"Types of question; each row gets one, evenly spread. {', '.join(QUESTION_TYPES)} are "
        "explained to the teacher, any other words are handed on. []: none is asked for.",
    )
    lengths: list[str] = Field(
        list(_LISTS.lengths),
        description="Lengths of question, likewise: "
        + ", ".join(f"{name} ({length.said})" for name, length in LENGTHS.items())
        + ".",
    )
    wordings: list[str] = Field(
        list(_LISTS.wordings),
        description=f"Wordings, likewise: {', '.join(WORDINGS)} (as somebody asks who does not know the "
        "terms).",
    )
    personas: list[str] = Field(
        [], description="Who asks, in free words, likewise: `a nurse on the night shift`."
    )
    judge_questions: bool = Field(
        False,
        description="Ask the teacher of each question, with its document, whether it stands alone, is "
        "settled by the document, takes more than looking up, asks one thing, and is in the document's "
        "language; what fails goes to the rejects. One short request a question.",
    )

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        check_variety(self.variety)
        return self

    @property
    def variety(self) -> Variety:
        """The lists as the operator takes them."""
        return Variety(self.question_types, self.lengths, self.wordings, self.personas)

    def operator_options(self, teacher: TeacherModel) -> dict[str, Any]:
        options = super().operator_options(teacher)
        for name in (*Variety._fields, "judge_questions"):
            del options[name]
        return options | {"variety": self.variety}


def asking(config: QuestionsConfig, teacher: TeacherModel, templates: Templates) -> Asking:
    """Return whom the stage asks, of a deployment's teacher."""
    judge = teacher_of(teacher, "judge") if config.judge_questions else None
    return Asking(teacher_of(teacher, NAME), templates, judge, judge_at_once=False)


def made_from(
    documents_hash: str,
    config: QuestionsConfig,
    templates: Templates,
    teacher: str,
    judge: str | None = None,
) -> dict[str, str]:
    """Name what `questions[shard]` is made from; a judge's prompt only where a judge was asked, its model
    only where it is another than the teacher's."""
    inputs = {
        documents.NAME: documents_hash,
        "options": options_of(config),
        "prompt": templates.doc2query.fingerprint,
        "teacher": teacher,
    }
    if config.judge_questions:
        inputs |= judged_by(templates.judge_question, judge, teacher)
    return inputs


def operator(
    rows: pl.DataFrame,
    config: QuestionsConfig,
    asking: Asking,
    progress: Callable[[Progress], None] | None = None,
) -> Operator[Produced]:
    """Return Doc2Query over a shard's documents."""
    return lambda model, judge: doc2query(
        rows,
        model,
        templates=asking.templates,
        judge=judge if config.judge_questions else None,
        **config.operator_options(asking.teacher),
        progress=progress,
    )
