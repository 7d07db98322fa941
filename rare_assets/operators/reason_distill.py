"""ReasonDistill: reasoned answers of the teacher, the gold document shuffled among its negatives.

As in RARE, where a model learns to reason with what was retrieved in place of knowing it by heart, and in
the operator of this name in DataFlow's earlier releases. Sampling until an answer agrees with the gold
answer is RARE's, too. The prompt is this project's own.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.agreement import answers_agree
from rare_assets.operators.answers import costs, free_reject, reject
from rare_assets.operators.distilled import Distilled, distil, require_own_words
from rare_assets.operators.doc2query import GIVEN
from rare_assets.operators.fitting import fitted, with_all_negatives
from rare_assets.operators.gold_answers import can_tell, not_blank, require_references
from rare_assets.operators.judge import Judge
from rare_assets.operators.templates import PromptTemplate, Templates, quote
from rare_assets.schemas import Produced, Reasoning, TeacherRejects
from rare_assets.teacher import (
    NOT_ASKED,
    Answer,
    Ask,
    Outcome,
    Progress,
    Teacher,
    Unusable,
    Use,
)
from rare_assets.text.titled import titled


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
    without_gold: float = 0.0,
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
    `refused`, `content_filter`, `empty`, `no_reasoning`, `no_answer`, `copied_reasoning` (most of the
    chain is one document's words), `wrong_answer`, and those of the teacher. Besides, each answer that
    disagreed with the reference and was followed by another try is kept as a reject of reason
    `wrong_answer_retried`, without tokens and attempts: the sample's own row counts them.

    An answer is compared with its question's reference alone. One that the source gave settles it: equal
    but for form, or by the judge's word. One that the teacher wrote settles it where they are equal;
    where not, only a judge can tell.

    Args:
        questions: `schemas.Questions`.
        documents: `schemas.Documents`, with the questions' gold documents.
        hard_negatives: `schemas.HardNegatives` of the questions.
        seed: of the shuffle, which depends on it and the question_id, not on the order of the rows.
        n: answers wanted a question, told apart by `Ask.sample`.
        max_attempts: answers a sample at most, until one can be used.
        rejection_samples: for questions of which it can be told whether an answer is right: answers a
            sample at most, in place of `max_attempts`, until one is. 0: off, an answer that disagrees
            is kept with `answer_correct` false.
        without_gold: share of the questions, chosen by `seed`, that are shown without their gold document:
            an honest answer says that the documents don't settle them. They are not sampled.
        judge: asked whether an answer agrees with the reference where the two differ in more than
            their form.
        sampling_seed: sample number i of a question is asked with `sampling_seed + i`.
        temperature, max_tokens: sent as they are; None leaves the endpoint's default.
        max_context_tokens: tokens that prompt and answer may have together: the worst negatives are
            left out of the context until they do, and named in `left_out`.
        progress: handed to the teacher.

    Returns:
        `schemas.Reasoning` and `schemas.TeacherRejects`.

    Raises:
        ValueError: `n` or `max_attempts` is below 1, `rejection_samples` below 0, or `without_gold` not
            within 0 and 1.
        NoReferences: there is nothing that answers could be sampled or judged by.
        TeacherStopped: the teacher can't go on; its finished answers are kept for the next run.
    """
    if n < 1 or max_attempts < 1 or rejection_samples < 0:
        raise ValueError(
            f"n ({n}) and max_attempts ({max_attempts}) must be at least 1, rejection_samples "
            f"({rejection_samples}) at least 0."
        )
    if not 0 <= without_gold <= 1:
        raise ValueError(f"without_gold ({without_gold}) must be within 0 and 1.")
    require_references(questions, rejection_samples, judges=judge is not None)
    shown = fitted(
        hard_negatives,
        questions,
        documents,
        templates.reason_distill,
        max_context_tokens=max_context_tokens,
        max_tokens=max_tokens,
    )
    tasks = _tasks(questions, documents, shown, seed, without_gold)
    unasked = pl.col("hard_negatives").is_null() | pl.col("text").is_null()
    is_sampled = (
        (pl.lit(rejection_samples > 0))
        & can_tell(judges=judge is not None)
        & pl.col("gold_position").is_not_null()
    )
    made: list[dict[str, Any]] = []
    rejects = [
        (question_id, 0, _unasked(doc_id, negatives is None, teacher.model))
        for question_id, doc_id, negatives in tasks.filter(unasked)
        .select("question_id", "doc_id", "hard_negatives")
        .iter_rows()
    ]
    for sampled, attempts in ((True, rejection_samples), (False, max_attempts)):
        group = tasks.filter(~unasked, is_sampled == sampled)
        if group.is_empty():
            continue
        reader = _Reader(group, judge, must_agree=sampled)
        use: Use[_Read] = reader.use
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        if sampled:
            sampling["may_take"] = rejection_samples
        asks = _asks(group, templates.reason_distill, n, sampling_seed, **sampling)
        async for outcome in teacher.ask_all(asks, use, max_attempts=attempts, progress=progress):
            # Only what the tables need is kept: an outcome holds its whole prompt.
            question_id, sample = _question_and_sample(outcome.ask.key)
            if outcome.value is not None and outcome.answer is not None:
                made.append(_row(question_id, sample, outcome, outcome.value, outcome.answer))
            if outcome.reason == NOT_ASKED:
                await reader.foresee(outcome.ask)
            rejects += [
                (question_id, sample, row) for row in reader.rejects(outcome, teacher.model)
            ]
    return Produced(
        Reasoning.validate(with_all_negatives(_reasoning(tasks, made), hard_negatives)),
        TeacherRejects.validate(_rejects(tasks, rejects)),
    )


# What a prompt says where the source gave a question without a scenario.
NO_SCENARIO = "(none given)"
_WRONG = "wrong_answer"
_RETRIED = "wrong_answer_retried"
# Stands for an answer that is not there yet, where it is only estimated what judging it costs.
_UNANSWERED = "?" * 80


class _Read(NamedTuple):
    """An answer as its row has it: its parts, and whether it is right, None where nobody can tell."""

    distilled: Distilled
    correct: bool | None


class _Asked(NamedTuple):
    """All that an answer to a question is read and judged by."""

    question: str
    reference: str | None
    given: bool
    shown: list[str]
    with_gold: bool


class _Reader:
    """Turns answers into reasoning, and in rejection sampling keeps those that were wrong."""

    def __init__(self, group: pl.DataFrame, judge: Judge | None, *, must_agree: bool) -> None:
        columns = ("question", "reference_answer", "origin", "context", "gold_position")
        self._of = {
            question_id: _Asked(
                question,
                reference,
                origin == GIVEN,
                [document["text"] for document in context],
                gold_position is not None,
            )
            for question_id, question, reference, origin, context, gold_position in group.select(
                "question_id", *columns
            ).iter_rows()
        }
        self._judge = judge
        self._must_agree = must_agree
        self._wrong: dict[str, list[Answer]] = defaultdict(list)

    async def use(self, ask: Ask, answer: Answer) -> _Read:
        """Return an answer as it can be used; handed to `Teacher.ask_all`."""
        asked = self._of[_question_and_sample(ask.key)[0]]
        distilled = distil(answer, len(asked.shown))
        require_own_words(distilled.reasoning, asked.shown)
        correct = await self._is_correct(asked, distilled.answer)
        if self._must_agree and not correct:
            self._wrong[ask.key].append(answer)
            raise Unusable(_WRONG, distilled.answer or "no answer set apart from the reasoning")
        return _Read(distilled, correct)

    async def _is_correct(self, asked: _Asked, answer: str | None) -> bool | None:
        if asked.reference is None:
            return None
        if answer is None:
            return False if asked.given and asked.with_gold else None
        if answers_agree(answer, asked.reference):
            return True
        # Without the gold document it is no fault to leave the question open.
        if not asked.with_gold:
            return None
        if self._judge is not None:
            return await self._judge.agreement(asked.question, answer, asked.reference)
        return False if asked.given else None

    async def foresee(self, ask: Ask) -> None:
        """Have an estimate count the verdicts on answers that are not there yet."""
        asked = self._of[_question_and_sample(ask.key)[0]]
        if self._judge is None or asked.reference is None or not asked.with_gold:
            return
        for _ in range(ask.may_take):
            await self._judge.agreement(asked.question, _UNANSWERED, asked.reference)

    def rejects(self, outcome: Outcome[Any], model: str) -> Iterator[dict[str, Any]]:
        """Return the rejects' rows that an outcome leaves: its wrong answers in order, then its failure."""
        wrong = self._wrong.pop(outcome.ask.key, [])
        if outcome.value is None and outcome.reason == _WRONG:
            wrong = wrong[:-1]
        for answer in wrong:
            yield free_reject(_RETRIED, answer.raw, answer.model)
        if outcome.value is None:
            yield reject(outcome, model)


def _tasks(
    questions: pl.DataFrame,
    documents: pl.DataFrame,
    hard_negatives: pl.DataFrame,
    seed: int,
    without_gold: float,
) -> pl.DataFrame:
    """Return one row a question with all that its prompt and its row need; what is missing is null.

    `context` has the documents in the order shown to the teacher.
    """
    titles = pl.col("hard_negative_titles")
    no_titles = pl.lit(None, pl.String).repeat_by(pl.col("hard_negatives").list.len())
    tasks = (
        questions.select(
            *("question_id", "doc_id", "question", "scenario", "origin"),
            reference_answer=not_blank("reference_answer"),
        )
        .with_row_index("position")
        .join(
            documents.select("doc_id", "text", "title"),
            on="doc_id",
            how="left",
            maintain_order="left",
        )
        .join(
            hard_negatives.select(
                "question_id",
                "hard_negatives",
                negative_ids=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
                negative_titles=pl.coalesce(titles, no_titles),
            ),
            on="question_id",
            how="left",
            maintain_order="left",
        )
    )
    contexts, shown, gold_positions = [], [], []
    for row in tasks.iter_rows(named=True):
        places, gold_position = _shuffled(row, seed, without_gold)
        gold = {"doc_id": row["doc_id"], "title": row["title"], "text": row["text"]}
        negatives = zip(
            row["negative_ids"] or [],
            row["negative_titles"] or [],
            row["hard_negatives"] or [],
            strict=True,
        )
        all_of_them = [gold, *(dict(zip(gold, each, strict=True)) for each in negatives)]
        contexts.append([all_of_them[place] for place in places])
        shown.append([document["doc_id"] for document in contexts[-1]])
        gold_positions.append(gold_position)
    types = Reasoning.create_empty().schema
    return tasks.with_columns(
        pl.Series("context", contexts, types["context"]),
        pl.Series("context_doc_ids", shown, types["context_doc_ids"]),
        pl.Series("gold_position", gold_positions, pl.Int64),
    ).drop("negative_ids", "negative_titles")


def _shuffled(
    row: Mapping[str, Any], seed: int, without_gold: float
) -> tuple[list[int], int | None]:
    """Return the places of gold (0) and negatives (from 1) in the order shown, and where the gold is; None
    where it is left out."""
    draw = random.Random(f"{seed}:{row['question_id']}")
    order = list(range(1 + len(row["negative_ids"] or [])))
    draw.shuffle(order)
    # Drawn by itself, so that another share leaves the orders as they are.
    hidden = random.Random(f"without_gold:{seed}:{row['question_id']}").random() < without_gold
    if hidden and len(order) > 1:
        order.remove(0)
        return order, None
    return order, order.index(0)


def _asks(
    group: pl.DataFrame,
    template: PromptTemplate,
    n: int,
    sampling_seed: int | None,
    **sampling: Any,
) -> Iterator[Ask]:
    columns = ("question_id", "question", "scenario", "context")
    for question_id, question, scenario, context in group.select(columns).iter_rows():
        documents = [titled(document["title"], document["text"]) for document in context]
        messages = _messages(template, question, scenario, documents)
        for sample in range(n):
            yield Ask(
                key=f"{question_id}#{sample}",
                messages=messages,
                sample=sample,
                seed=None if sampling_seed is None else sampling_seed + sample,
                **sampling,
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
            "scenario": scenario or NO_SCENARIO,
            "documents": quoted.text,
            "num_documents": str(len(documents)),
            "boundary": quoted.boundary,
        }
    )


def _row(
    question_id: str, sample: int, outcome: Outcome[Any], read: _Read, answer: Answer
) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "sample_index": sample,
        "reasoning": read.distilled.reasoning,
        "answer": read.distilled.answer,
        "raw_answer": answer.raw,
        "numbers": read.distilled.documents,
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "answer_correct": read.correct,
        **costs(outcome),
    }


def _with_used(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the documents that the teacher named, by their numbers as shown."""
    used, gold_used, suspected = [], [], []
    columns = ("numbers", "context_doc_ids", "doc_id", "gold_position")
    for numbers, shown, doc_id, gold_position in rows.select(columns).iter_rows():
        named = numbers and [shown[n - 1] for n in numbers if 1 <= n <= len(shown)]
        said = None if numbers is None or (numbers and not named) else named or []
        used.append(said)
        known = said is not None and gold_position is not None
        gold_used.append(doc_id in (said or []) if known else None)
        suspected.append(None if said is None else [each for each in said if each != doc_id])
    types = Reasoning.create_empty().schema
    return rows.with_columns(
        pl.Series("used_doc_ids", used, types["used_doc_ids"]),
        pl.Series("gold_used", gold_used, types["gold_used"]),
        pl.Series("suspected_relevant", suspected, types["suspected_relevant"]),
    )


def _reasoning(tasks: pl.DataFrame, made: list[dict[str, Any]]) -> pl.DataFrame:
    schema = Reasoning.create_empty().schema
    # What is found out of the others once all are there.
    found = {"used_doc_ids", "gold_used", "suspected_relevant", "left_out"}
    columns = set(schema) - set(tasks.columns) - found
    types = {name: schema[name] for name in schema if name in columns | {"question_id"}}
    answers = pl.DataFrame(made, schema={**types, "numbers": pl.List(pl.Int64)})
    rows = answers.join(tasks, on="question_id", how="left").sort("position", "sample_index")
    none = pl.lit([], schema["left_out"])
    return _with_used(rows).with_columns(left_out=none).select(schema.names())


def _rejects(tasks: pl.DataFrame, rejects: list[tuple[str, int, dict[str, Any]]]) -> pl.DataFrame:
    """Return rejects in the questions' order; those of one sample stay in theirs."""
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
