"""Ask a teacher whether a passage answers a question, whether two answers agree, whether a question is
fit for use, or which of two examples is the better one.

A passage may answer a question in none of its words, and two answers may say the same in different
ones. Verdicts are answers like any other: stored, and paid for once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import polars as pl
from pydantic import BaseModel, Field, model_validator

from rare_assets.operators.agreement import answers_agree
from rare_assets.operators.templates import PromptTemplate, Templates, quote
from rare_assets.teacher import ENDPOINT_FAULTS, NOT_ASKED, Answer, Ask, Teacher, structured_value
from rare_assets.text.titled import titled

T = TypeVar("T")

MAX_ATTEMPTS = 3
MAX_EXPLANATION = 600


class _Explained(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _take_any_explanation(cls, value: Any) -> Any:
        """Cut an explanation that is too long, and do without one: the verdict is what was paid for."""
        if not isinstance(value, dict):
            return value
        said = value.get("explanation")
        return {**value, "explanation": said[:MAX_EXPLANATION] if isinstance(said, str) else ""}


class Verdict(_Explained):
    """What a judge is asked for, as the endpoint's JSON schema."""

    # Before the verdict, so that a model without a chain of its own reasons first.
    explanation: str = Field(
        max_length=MAX_EXPLANATION, description="One sentence that leads to the verdict."
    )
    verdict: bool


class QuestionVerdicts(_Explained):
    """What a judge of questions is asked for."""

    explanation: str = Field(
        max_length=MAX_EXPLANATION, description="One sentence that leads to the verdicts."
    )
    stands_alone: bool
    settled: bool
    beyond_lookup: bool
    one_thing: bool
    language: bool


class PairVerdict(_Explained):
    """What a judge of two examples is asked for."""

    explanation: str = Field(
        max_length=MAX_EXPLANATION, description="One sentence that leads to the verdict."
    )
    better: Literal["first", "second", "tie"]


# The verdicts on a question, in the order in which they are named as a reason.
QUESTION_VERDICTS = tuple(name for name in QuestionVerdicts.model_fields if name != "explanation")


class JudgedQuestion(NamedTuple):
    """A question to be judged, with its scenario and the document it is about, title and all."""

    question: str
    scenario: str
    document: str


class JudgedPair(NamedTuple):
    """Two examples that were written from one document, in the order in which they are shown."""

    document: str
    first: str
    second: str


class Judge:
    """Asks a teacher for verdicts.

    Args:
        teacher: may be the one whose answers are judged: their requests take turns.
        templates: of these the prompts that begin with `judge_`.
        max_tokens: longest verdict, sent as it is; None leaves the endpoint's default.

    Attributes:
        unanswered: verdicts that the endpoint failed to give; asked again, it may give them.
    """

    def __init__(
        self, teacher: Teacher, templates: Templates, *, max_tokens: int | None = None
    ) -> None:
        self._teacher = teacher
        self._templates = templates
        self._max_tokens = max_tokens
        self.unanswered = 0

    async def relevance(self, pairs: pl.DataFrame) -> list[bool | None]:
        """Return for each pair whether the passage answers the question; None without a usable verdict.

        In an estimate, passages that were never judged count as not relevant.

        Args:
            pairs: `question, scenario, title, text`, a row a question and passage.

        Raises:
            TeacherStopped: the teacher can't go on; its finished verdicts are kept.
        """
        rows = pairs.select("question", "scenario", "title", "text").iter_rows()
        asks = (
            self._ask(
                self._templates.judge_relevance,
                str(number),
                {"question": question, "scenario": scenario},
                "passage",
                [titled(title, text)],
            )
            for number, (question, scenario, title, text) in enumerate(rows)
        )
        verdicts = await self._verdicts(asks, in_estimate=False)
        return [verdicts[str(number)] for number in range(pairs.height)]

    async def agreement(self, question: str, given: str, gold: str) -> bool:
        """Return True if an answer says what the gold answer says; False without a usable verdict.

        Answers that are equal but for their form (`answers_agree`) are not asked about. In an
        estimate, those that were never judged count as agreeing.

        Raises:
            TeacherStopped: the teacher can't go on; its finished verdicts are kept.
        """
        if answers_agree(given, gold):
            return True
        template = self._templates.judge_answer
        ask = self._ask(template, "", {"question": question}, "answers", [gold, given])
        verdicts = await self._verdicts([ask], in_estimate=True)
        return bool(verdicts[""])

    async def questions(self, asked: Sequence[JudgedQuestion]) -> list[dict[str, bool] | None]:
        """Return the verdicts on each question, by name (`QUESTION_VERDICTS`); None without usable ones.

        Raises:
            TeacherStopped: the teacher can't go on; its finished verdicts are kept.
        """
        template = self._templates.judge_question
        asks = (
            self._ask(
                template,
                str(number),
                {"question": one.question, "scenario": one.scenario},
                "document",
                [one.document],
                QuestionVerdicts,
            )
            for number, one in enumerate(asked)
        )
        found: list[dict[str, bool] | None] = [None] * len(asked)
        async for outcome in self._teacher.ask_all(asks, _on_question, max_attempts=MAX_ATTEMPTS):
            self.unanswered += outcome.reason in ENDPOINT_FAULTS
            found[int(outcome.ask.key)] = outcome.value
        return found

    async def pairs(self, pairs: Sequence[JudgedPair]) -> list[PairVerdict | None]:
        """Return for each pair which example is the better one; None without a usable verdict.

        Raises:
            TeacherStopped: the teacher can't go on; its finished verdicts are kept.
        """
        asks = (self._pair_ask(str(number), pair) for number, pair in enumerate(pairs))
        found: list[PairVerdict | None] = [None] * len(pairs)
        async for outcome in self._teacher.ask_all(asks, _on_pair, max_attempts=MAX_ATTEMPTS):
            self.unanswered += outcome.reason in ENDPOINT_FAULTS
            found[int(outcome.ask.key)] = outcome.value
        return found

    def _pair_ask(self, key: str, pair: JudgedPair) -> Ask:
        examples = [pair.first, pair.second]
        document = quote([pair.document], examples, numbered=False)
        shown = quote(examples, [pair.document], numbered=True, tag="example")
        values = {
            "document": document.text,
            "boundary": document.boundary,
            "examples": shown.text,
            "examples_boundary": shown.boundary,
        }
        messages = self._templates.judge_pair.messages(values)
        return Ask(key, messages, schema=PairVerdict, max_tokens=self._max_tokens)

    def _ask(
        self,
        template: PromptTemplate,
        key: str,
        values: Mapping[str, str],
        placeholder: str,
        texts: Sequence[str],
        schema: type[BaseModel] = Verdict,
    ) -> Ask:
        """Return an ask about texts that are quoted in place of the placeholder."""
        tag = placeholder.removesuffix("s")
        quoted = quote(texts, values.values(), numbered=len(texts) > 1, tag=tag)
        filled = {**values, placeholder: quoted.text, "boundary": quoted.boundary}
        return Ask(key, template.messages(filled), schema=schema, max_tokens=self._max_tokens)

    async def _verdicts(self, asks: Iterable[Ask], *, in_estimate: bool) -> dict[str, bool | None]:
        outcomes = self._teacher.ask_all(asks, _verdict, max_attempts=MAX_ATTEMPTS)
        verdicts: dict[str, bool | None] = {}
        async for outcome in outcomes:
            self.unanswered += outcome.reason in ENDPOINT_FAULTS
            not_asked = outcome.reason == NOT_ASKED
            verdicts[outcome.ask.key] = in_estimate if not_asked else outcome.value
        return verdicts


def _verdict(_: Ask, answer: Answer) -> bool:
    return structured_value(answer, Verdict).verdict


def _on_question(_: Ask, answer: Answer) -> dict[str, bool]:
    return structured_value(answer, QuestionVerdicts).model_dump(exclude={"explanation"})


def _on_pair(_: Ask, answer: Answer) -> PairVerdict:
    return structured_value(answer, PairVerdict)


async def with_verdicts(
    operator: Callable[[Callable[[pl.DataFrame], Sequence[bool | None]]], T], judge: Judge
) -> T:
    """Run an operator that is no coroutine and asks, in between, which passages are relevant.

    It has a thread of its own; what it asks is answered on this event loop.

    Args:
        operator: called with a function that takes pairs as `Judge.relevance` does.
        judge: asked by that function.

    Raises:
        TeacherStopped: the judge's teacher can't go on.
    """
    loop = asyncio.get_running_loop()
    ended = threading.Event()

    def is_relevant(pairs: pl.DataFrame) -> list[bool | None]:
        # Nobody would hear of an answer after a cancel, and the loop may be gone.
        if ended.is_set():
            raise concurrent.futures.CancelledError
        return asyncio.run_coroutine_threadsafe(judge.relevance(pairs), loop).result()

    try:
        return await asyncio.to_thread(operator, is_relevant)
    finally:
        ended.set()
