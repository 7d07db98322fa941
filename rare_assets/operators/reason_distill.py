"""ReasonDistill: reasoned answers of the teacher, the gold document shuffled among its negatives."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.agreement import answers_agree
from rare_assets.operators.answers import costs, free_reject, reject, require_whole
from rare_assets.operators.fitting import fitted, with_all_negatives
from rare_assets.operators.judge import Judge
from rare_assets.operators.templates import PromptTemplate, Templates, quote
from rare_assets.schemas import Produced, Reasoning, TeacherRejects
from rare_assets.teacher.interface import (
    Answer,
    Ask,
    Outcome,
    Progress,
    Teacher,
    Unusable,
    Use,
)


async def reason_distill(
    questions: pl.DataFrame,
    documents: pl.DataFrame,
    hard_negatives: pl.DataFrame,
    teacher: Teacher,
    *,
    templates: Templates,
    seed: int = 0,
    n: int = 1,
    max_attempts: int = 3,
    rejection_samples: int = 0,
    judge: Judge | None = None,
    temperature: float | None = None,
    sampling_seed: int | None = None,
    max_tokens: int | None = None,
    max_context_tokens: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Produced:
    """Have the teacher reason to an answer of each question, from its documents in shuffled order.

    A question without negatives is asked with its gold document alone. Rows come in the questions'
    order, then by `sample_index`, whatever the order of the answers. Reasons of rejects: `not_mined`
    (no row in `hard_negatives`) and `gold_text_missing` (not in `documents`), neither asked; `cut`,
    `refused`, `content_filter`, `empty`, `no_reasoning`, `no_answer`, `wrong_answer`, and those of the teacher. Besides,
    each answer that disagreed with the gold one and was followed by another try is kept as a reject
    of reason `wrong_answer_retried`, without tokens and attempts: the sample's own row counts them.

    Args:
        questions: `schemas.Questions`.
        documents: `schemas.Documents`, with the questions' gold documents.
        hard_negatives: `schemas.HardNegatives` of the questions.
        seed: of the shuffle, which depends on it and the question_id, not on the order of the rows.
        n: answers wanted a question, told apart by `Ask.sample`.
        max_attempts: answers a sample at most, until one can be used.
        rejection_samples: for questions whose document has a gold `answer`: answers a sample at
            most, in place of `max_attempts`, until one agrees with it. 0: off, a disagreeing
            answer is kept with `answer_correct` false.
        judge: asked whether an answer agrees with the gold one where the two differ in more than
            their form; None: then they disagree.
        sampling_seed: sample number i of a question is asked with `sampling_seed + i`.
        temperature, max_tokens: sent as they are; None leaves the endpoint's default.
        max_context_tokens: tokens that prompt and answer may have together: the worst negatives are
            left out of the context until they do, and named in `left_out`.
        progress: handed to the teacher.

    Returns:
        `schemas.Reasoning` and `schemas.TeacherRejects`.

    Raises:
        ValueError: `n` or `max_attempts` is below 1, or `rejection_samples` below 0.
        TeacherStopped: the teacher can't go on; its finished answers are kept for the next run.
    """
    if n < 1 or max_attempts < 1 or rejection_samples < 0:
        raise ValueError(
            f"n ({n}) and max_attempts ({max_attempts}) must be at least 1, rejection_samples "
            f"({rejection_samples}) at least 0."
        )
    shown = fitted(
        hard_negatives,
        questions,
        documents,
        templates.reason_distill,
        max_context_tokens=max_context_tokens,
        max_tokens=max_tokens,
    )
    tasks = _tasks(questions, documents, shown, seed)
    unasked = pl.col("hard_negatives").is_null() | pl.col("text").is_null()
    has_gold = pl.col("gold_answer").is_not_null() & (rejection_samples > 0)
    made: list[dict[str, Any]] = []
    rejects = [
        (question_id, 0, _unasked(doc_id, negatives is None, teacher.model))
        for question_id, doc_id, negatives in tasks.filter(unasked)
        .select("question_id", "doc_id", "hard_negatives")
        .iter_rows()
    ]
    for sampled, attempts in ((True, rejection_samples), (False, max_attempts)):
        group = tasks.filter(~unasked, has_gold == sampled)
        if group.is_empty():
            continue
        reader = _Reader(group, judge, must_agree=sampled)
        use: Use[_Distilled] = reader.use
        asks = _asks(group, templates.reason_distill, n, temperature, sampling_seed, max_tokens)
        async for outcome in teacher.ask_all(asks, use, max_attempts=attempts, progress=progress):
            # Only what the tables need is kept: an outcome holds its whole prompt.
            question_id, sample = _question_and_sample(outcome.ask.key)
            if outcome.value is not None and outcome.answer is not None:
                made.append(_row(question_id, sample, outcome, outcome.value, outcome.answer))
            rejects += [
                (question_id, sample, row) for row in reader.rejects(outcome, teacher.model)
            ]
    return Produced(
        Reasoning.validate(with_all_negatives(_reasoning(tasks, made), hard_negatives)),
        TeacherRejects.validate(_rejects(tasks, rejects)),
    )


class _Distilled(NamedTuple):
    reasoning: str
    answer: str | None
    correct: bool | None = None


def distil(answer: Answer) -> tuple[str, str | None]:
    """Part a teacher's answer into its chain of reasoning and its final answer.

    A chain that the answer has apart (`teacher.reading`) is the reasoning; the answer is then
    what stands between <answer> tags in the rest, or else all of the rest. Without a chain the
    reasoning is what comes before the <answer> part (all of the text where nothing does) and the
    answer is that part, None if there is none. Of several <answer> parts the last one counts.

    Raises:
        Unusable: `refused`, `content_filter`, `cut` (by length, or a chain never closed),
            `empty`, `degenerate`, `no_reasoning`, or `no_answer` (nothing after the chain, or an empty <answer>).
    """
    chain, rest, _ = require_whole(answer)
    before, part = _answer_part(rest)
    if chain:
        final = rest if part is None else part
        if not final:
            raise Unusable("no_answer", "nothing follows the chain of reasoning")
        return chain, final
    if part == "":
        raise Unusable("no_answer", "the <answer> part is empty")
    reasoning = before or rest
    if not re.search(r"\w", reasoning):
        raise Unusable("no_reasoning")
    return reasoning, part


_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"</answer>", re.IGNORECASE)


def _answer_part(text: str) -> tuple[str, str | None]:
    """What comes before the last <answer> tag, and what stands in it (None without a tag)."""
    *_, last = [None, *_ANSWER_OPEN.finditer(text)]
    if last is None:
        return text.strip(), None
    # An endpoint that stops at the closing tag leaves it out.
    part = _ANSWER_CLOSE.split(text[last.end() :], maxsplit=1)[0]
    return text[: last.start()].strip(), part.strip()


_WRONG = "wrong_answer"
_RETRIED = "wrong_answer_retried"


class _Reader:
    """Turns answers into reasoning, and in rejection sampling keeps those that were wrong."""

    def __init__(self, group: pl.DataFrame, judge: Judge | None, *, must_agree: bool) -> None:
        self._of = {
            question_id: (question, gold)
            for question_id, question, gold in group.select(
                "question_id", "question", "gold_answer"
            ).iter_rows()
        }
        self._judge = judge
        self._must_agree = must_agree
        self._wrong: dict[str, list[Answer]] = defaultdict(list)

    async def use(self, ask: Ask, answer: Answer) -> _Distilled:
        """For `Teacher.ask_all`."""
        reasoning, final = distil(answer)
        question, gold = self._of[_question_and_sample(ask.key)[0]]
        if gold is None:
            return _Distilled(reasoning, final)
        correct = final is not None and await self._agrees(question, final, gold)
        if self._must_agree and not correct:
            self._wrong[ask.key].append(answer)
            raise Unusable(_WRONG, final or "no answer set apart from the reasoning")
        return _Distilled(reasoning, final, correct)

    async def _agrees(self, question: str, given: str, gold: str) -> bool:
        if self._judge is None:
            return answers_agree(given, gold)
        return await self._judge.agreement(question, given, gold)

    def rejects(self, outcome: Outcome[Any], model: str) -> Iterator[dict[str, Any]]:
        """The rejects' rows that an outcome leaves: its wrong answers in order, then its failure."""
        wrong = self._wrong.pop(outcome.ask.key, [])
        if outcome.value is None and outcome.reason == _WRONG:
            wrong = wrong[:-1]
        for answer in wrong:
            yield free_reject(_RETRIED, answer.raw, answer.model)
        if outcome.value is None:
            yield reject(outcome, model)


def _tasks(
    questions: pl.DataFrame, documents: pl.DataFrame, hard_negatives: pl.DataFrame, seed: int
) -> pl.DataFrame:
    """A row a question with all that its prompt and its row need; what is missing is null.

    `order` are the places of gold (0) and negatives (from 1) in the order shown to the teacher.
    """
    tasks = (
        questions.select("question_id", "doc_id", "question", "scenario")
        .with_row_index("position")
        .join(
            documents.select("doc_id", "text", gold_answer=_not_blank("answer")),
            on="doc_id",
            how="left",
            maintain_order="left",
        )
        .join(
            hard_negatives.select(
                "question_id",
                "hard_negatives",
                negative_ids=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
            ),
            on="question_id",
            how="left",
            maintain_order="left",
        )
    )
    orders, shown, gold_positions = [], [], []
    for question_id, doc_id, negative_ids in tasks.select(
        "question_id", "doc_id", "negative_ids"
    ).iter_rows():
        doc_ids = [doc_id, *(negative_ids or [])]
        order = list(range(len(doc_ids)))
        random.Random(f"{seed}:{question_id}").shuffle(order)
        orders.append(order)
        shown.append([doc_ids[place] for place in order])
        gold_positions.append(order.index(0))
    return tasks.with_columns(
        pl.Series("order", orders, pl.List(pl.Int64)),
        pl.Series("context_doc_ids", shown, pl.List(pl.String)),
        pl.Series("gold_position", gold_positions, pl.Int64),
    )


def _not_blank(column: str) -> pl.Expr:
    return pl.when(pl.col(column).str.strip_chars() != "").then(pl.col(column))


def _asks(
    group: pl.DataFrame,
    template: PromptTemplate,
    n: int,
    temperature: float | None,
    sampling_seed: int | None,
    max_tokens: int | None,
) -> Iterator[Ask]:
    columns = ("question_id", "question", "scenario", "text", "hard_negatives", "order")
    for row in group.select(columns).iter_rows():
        question_id, question, scenario, text, negatives, order = row
        documents = [text, *negatives]
        messages = _messages(template, question, scenario, [documents[place] for place in order])
        for sample in range(n):
            yield Ask(
                key=f"{question_id}#{sample}",
                messages=messages,
                sample=sample,
                temperature=temperature,
                seed=None if sampling_seed is None else sampling_seed + sample,
                max_tokens=max_tokens,
            )


def _question_and_sample(key: str) -> tuple[str, int]:
    question_id, _, sample = key.rpartition("#")
    return question_id, int(sample)


def _messages(
    template: PromptTemplate, question: str, scenario: str, documents: list[str]
) -> tuple[Mapping[str, str], ...]:
    quoted = quote(documents, (question, scenario), numbered=True)
    return template.messages(
        {
            "question": question,
            "scenario": scenario,
            "documents": quoted.text,
            "num_documents": str(len(documents)),
            "boundary": quoted.boundary,
        }
    )


def _row(
    question_id: str, sample: int, outcome: Outcome[Any], distilled: _Distilled, answer: Answer
) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "sample_index": sample,
        "reasoning": distilled.reasoning,
        "answer": distilled.answer,
        "raw_answer": answer.raw,
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "answer_correct": distilled.correct,
        **costs(outcome),
    }


def _reasoning(tasks: pl.DataFrame, made: list[dict[str, Any]]) -> pl.DataFrame:
    schema = Reasoning.create_empty().schema
    columns = set(schema) - set(tasks.columns) - {"left_out"} | {"question_id"}
    answers = pl.DataFrame(made, schema={name: schema[name] for name in schema if name in columns})
    rows = answers.join(tasks, on="question_id", how="left").sort("position", "sample_index")
    none = pl.lit([], schema["left_out"])
    return rows.with_columns(left_out=none).select(schema.names())


def _rejects(tasks: pl.DataFrame, rejects: list[tuple[str, int, dict[str, Any]]]) -> pl.DataFrame:
    """Rejects in the questions' order; those of one sample stay in theirs."""
    places = {
        question_id: (position, {"question_id": question_id, "doc_id": doc_id})
        for position, question_id, doc_id in tasks.select(
            "position", "question_id", "doc_id"
        ).iter_rows()
    }
    rejects = sorted(rejects, key=lambda reject: (places[reject[0]][0], reject[1]))
    rows = [places[question_id][1] | row for question_id, _, row in rejects]
    return pl.DataFrame(rows, schema=TeacherRejects.create_empty().schema)


def _unasked(doc_id: str, not_mined: bool, model: str) -> dict[str, Any]:
    if not_mined:
        return free_reject("not_mined", "hard_negatives has no row for the question", model)
    return free_reject("gold_text_missing", f"documents has no {doc_id!r}", model)
