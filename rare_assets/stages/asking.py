"""Hold what the stages that ask have in common: options, the teacher and its judge, verdicts that lack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import dagster as dg
from pydantic import Field

from rare_assets.operators.judge import Judge
from rare_assets.operators.templates import Templates
from rare_assets.resources.configurable import TeacherModel, judges_apart

if TYPE_CHECKING:
    from rare_assets.teacher import EstimatingTeacher, Teacher, Usage

T = TypeVar("T")
TeacherT = TypeVar("TeacherT", bound="Teacher")

# Where it is only foreseen what will be asked: tokens of a document, of a prompt's own wording, and of a
# judge's sentence with its verdict.
DOCUMENT_TOKENS = 200
PROMPT_TOKENS = 400
VERDICT_TOKENS = 50

# How many verdicts the endpoint failed to give: never current, so that the next run asks for them.
UNANSWERED = "unanswered_verdicts"

# An operator of a stage with everything that it needs but whom it asks.
Operator = Callable[["Teacher", Judge], Coroutine[Any, Any, T]]


class AskingConfig(dg.Config):
    """How the teacher is asked, whatever is asked of it."""

    max_attempts: int = Field(
        3, ge=1, description="Answers asked for until one can be used; then there is a reject."
    )
    temperature: float | None = Field(None, ge=0, description="Default: the endpoint's own.")
    max_tokens: int | None = Field(
        None, ge=1, description="Longest answer. Default: the endpoint's own."
    )
    refresh: bool = Field(
        False, description="Ask anew, whatever is stored. Every request is paid for again."
    )
    retry_rejects: bool = Field(
        False,
        description="Ask again, up to max_attempts times more, where no stored answer can be used; "
        "all others stay as they are. For a teacher that was mended.",
    )
    mode: Literal["online", "batch"] = Field(
        "online", description="batch: the endpoint's Batch API, at half the price, within a day."
    )

    def operator_options(self, teacher: TeacherModel) -> dict[str, Any]:
        """Return the options as an operator takes them; the embedded teacher bounds its own
        answers."""
        options = self.model_dump(exclude={"refresh", "retry_rejects", "mode"})
        return options | {"max_tokens": teacher.max_tokens(self.max_tokens)}


class Asked(Generic[TeacherT]):
    """An opened teacher, and the judge of what it answers.

    Args:
        teacher: the stage's own.
        judging: whom the judge asks; the same one where it needs no other.
        judge: asks `judging`.
    """

    def __init__(self, teacher: TeacherT, judging: TeacherT, judge: Judge) -> None:
        self.teacher = teacher
        self.judging = judging
        self.judge = judge

    @property
    def usage(self) -> Usage:
        """Total of what both were asked."""
        if self.judging is self.teacher:
            return self.teacher.usage
        return self.teacher.usage + self.judging.usage

    @property
    def usage_by_model(self) -> dict[str, Usage]:
        """Totals of what both were asked, by the model that has a price."""
        if self.judging.model == self.teacher.model:
            return {self.teacher.model: self.usage}
        return {each.model: each.usage for each in (self.teacher, self.judging)}


class Asking(NamedTuple):
    """Whom a stage asks.

    Attributes:
        teacher: the model of the stage.
        templates: of its prompts, and the judge's.
        judge: the model that judges, where one is asked; it may be the teacher itself.
        judge_at_once: verdicts decide what is asked next, so that the judge is asked online in any case: in
            batches each round of them would take a day.
    """

    teacher: TeacherModel
    templates: Templates
    judge: TeacherModel | None = None
    judge_at_once: bool = True

    @asynccontextmanager
    async def opened(
        self,
        wrapped: Callable[[Teacher], TeacherT],
        *,
        batch: bool = False,
        judge_apart: bool = False,
        **how: Any,
    ) -> AsyncIterator[Asked[TeacherT]]:
        """Open the teacher and its judge for one step.

        Args:
            wrapped: what is asked in place of an opened teacher.
            batch: through the Batch API.
            judge_apart: count what the judge is asked by itself, though the teacher could be asked it.
            how: further arguments of `TeacherModel.open`.
        """
        async with AsyncExitStack() as stack:
            teacher = judging = wrapped(
                await stack.enter_async_context(self.teacher.open(batch=batch, **how))
            )
            if judge_apart or self.judges_apart(batch):
                judging = wrapped(await stack.enter_async_context(self.judging.open(**how)))
            yield Asked(teacher, judging, self._judge(judging))

    @asynccontextmanager
    async def estimating(
        self, *, batch: bool = False, window: int | None = None, **how: Any
    ) -> AsyncIterator[Asked[EstimatingTeacher]]:
        """Open what stands for the teacher and its judge where nothing is to be sent.

        Args:
            batch: at the price of the Batch API, where it is asked in batches.
            window: the teacher's, default what an earlier run learnt of it.
            how: further arguments of `TeacherModel.estimating`.
        """
        async with AsyncExitStack() as stack:
            known: dict[str, Any] = {} if window is None else {"window": window}
            teacher = judging = await stack.enter_async_context(
                self.teacher.estimating(batch=batch, **known, **how)
            )
            if self.judges_apart(batch):
                judging = await stack.enter_async_context(self.judging.estimating(**how))
            yield Asked(teacher, judging, self._judge(judging))

    def judges_apart(self, batch: bool) -> bool:
        """Return whether the judge is another than the teacher, or is asked online where that is asked in
        batches."""
        if batch and self.judge_at_once:
            return True
        return self.judge is not None and judges_apart(self.judge, self.teacher)

    @property
    def judging(self) -> TeacherModel:
        """The model that gives verdicts."""
        return self.judge or self.teacher

    def _judge(self, judging: Teacher) -> Judge:
        """Return a judge in the words that decide which stored verdicts are its own."""
        return Judge(judging, self.templates, max_tokens=self.judging.max_tokens(None))


def with_unanswered(made_from: Mapping[str, str], usage: Mapping[str, Any]) -> dict[str, str]:
    """Return what a table is made from, with the number of verdicts that it lacks, if it lacks any.

    >>> with_unanswered({"teacher": "m"}, {UNANSWERED: 2})
    {'teacher': 'm', 'unanswered_verdicts': '2'}
    """
    return {**made_from, **({UNANSWERED: str(usage[UNANSWERED])} if UNANSWERED in usage else {})}
