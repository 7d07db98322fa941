"""Doc2Query: from each document, questions that need its knowledge and several steps of reasoning.

The name is that of Nogueira et al., "Document Expansion by Query Prediction" (2019), and of the operator
in the RARE pipeline of DataFlow's earlier releases; that hard questions train a retriever for reasoning
is from ReasonIR (Shao et al., 2025). The prompt is this project's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.answers import free_reject, reject
from rare_assets.operators.judge import QUESTION_VERDICTS, Judge, JudgedQuestion
from rare_assets.operators.question_reply import (
    Declined,
    Written,
    further_keys,
    in_words,
    read_reply,
    reply_model,
)
from rare_assets.operators.templates import PromptTemplate, Templates, quote
from rare_assets.operators.variety import (
    LENGTHS,
    QUESTION_TYPES,
    WORDINGS,
    Asked,
    Variety,
    check_variety,
)
from rare_assets.schemas import Produced, Questions, TeacherRejects
from rare_assets.teacher import (
    NOT_ASKED,
    Answer,
    Ask,
    Outcome,
    Progress,
    Teacher,
    Unusable,
)
from rare_assets.text.titled import titled

# Reasons of rejects that are no failure: what the options leave out, what holds nothing to ask about.
TOO_SHORT = "too_short"
UNSUITABLE = "unsuitable_document"
GIVEN, WRITTEN = "given", "written"
# In place of a teacher's name where the source itself asks.
SOURCE = "source"
DEFAULT_VARIETY = Variety()
# Stands for a question that is not written yet, where it is only estimated what judging it costs.
_UNWRITTEN = Written("?" * 300, "?" * 300, "?" * 100, None)


async def doc2query(
    documents: pl.DataFrame,
    teacher: Teacher,
    *,
    templates: Templates,
    num_questions: int = 1,
    max_attempts: int = 3,
    min_words: int = 20,
    variety: Variety = DEFAULT_VARIETY,
    judge: Judge | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Produced:
    """Have the teacher write `num_questions` questions from each document, in one request.

    A document that comes with a question of its own has that one, and nothing is asked. Rows come in
    the documents' order whatever the order of the answers; what no attempt gave a usable question for
    is in the rejects, one row a question that was wanted. Reasons: `too_short` (not asked),
    `unsuitable_document` (the teacher declined), `blank_question`, `blank_scenario`, `too_little_asked`,
    `not_a_question`, `scenario_is_question`, `copied_from_prompt`, `duplicate_question` (a later one of
    the same document with the same words), `too_few_questions`, `cut`, `refused` and others of
    `structured_value`, those of the teacher, and `judged_<verdict>`. Where only some questions of an
    answer can be used, it is asked again; after the last attempt those of the best answer are kept.

    Args:
        documents: `schemas.Documents`.
        num_questions: questions a document, on different points of it.
        max_attempts: answers a document at most, until one can be used.
        min_words: documents of fewer words are not asked about, since they hold too little to
            reason on (ReasonIR's own filter is 20 words); 0 asks about all.
        variety: what the questions are to be like; see there.
        judge: asked about every question, given ones too; what fails is a reject. None: none is.
        seed: sampling seed, and of the choices among `variety` (0 if none is given).
        temperature, max_tokens: sent as they are; None leaves the endpoint's default.
        progress: handed to the teacher.

    Returns:
        `schemas.Questions` and `schemas.TeacherRejects`.

    Raises:
        ValueError: `num_questions` or `max_attempts` is below 1, or `variety` has an entry that there
            is not.
        TeacherStopped: the teacher can't go on; its finished answers are kept for the next run.
    """
    if num_questions < 1 or max_attempts < 1:
        raise ValueError(
            f"num_questions ({num_questions}) and max_attempts ({max_attempts}) must be at least 1."
        )
    check_variety(variety)
    prompt = _Prompt(templates.doc2query, num_questions, variety, seed)
    is_given = given_question().is_not_null()
    wanted = documents.filter(~is_given, pl.col("n_words") >= min_words)
    reader = _Reader(prompt)
    # Only what the tables need is kept: an outcome holds its whole prompt.
    made: dict[str, _Made] = {}
    asks = prompt.asks(wanted, temperature=temperature, seed=seed, max_tokens=max_tokens)
    async for outcome in teacher.ask_all(
        asks, reader.use, max_attempts=max_attempts, progress=progress
    ):
        made[outcome.ask.key] = reader.made(outcome, teacher.model)

    rows, rejects = [], []
    columns = ("doc_id", "text_hash", "n_words", "question", "scenario", "answer")
    for row in documents.select(columns).iter_rows():
        doc_id, text_hash, n_words, question, scenario, answer = row
        if question and question.strip():
            rows.append(_given_row(doc_id, text_hash, question, scenario, answer))
        elif n_words < min_words:
            detail = f"{n_words} words, min_words is {min_words}"
            short = free_reject(TOO_SHORT, detail, teacher.model)
            rejects += [{**_ids(doc_id, n), **short} for n in range(num_questions)]
        else:
            these = made.pop(doc_id)
            written, left_out = _rows(doc_id, text_hash, these, prompt)
            rows += written
            rejects += left_out
    if judge is not None:
        rows, failed = await _judged(rows, documents, judge)
        rejects += failed
        await _foresee(reader.not_asked, num_questions, documents, judge)
    return Produced(
        Questions.validate(pl.DataFrame(rows, schema=Questions.create_empty().schema)),
        TeacherRejects.validate(pl.DataFrame(rejects, schema=TeacherRejects.create_empty().schema)),
    )


def given_question() -> pl.Expr:
    """Return the source's own question of a document; null where it has none.

    >>> pl.DataFrame({"question": ["Why?", " ", None]}).select(given_question()).to_series().to_list()
    ['Why?', None, None]
    """
    question = pl.col("question").cast(pl.String)
    return pl.when(question.str.contains(r"\S")).then(question)


def say_left_out(n_rows: int, rejects: pl.DataFrame) -> str | None:
    """Return what to tell a user where most documents of a shard have no question through no fault; else None.

    Args:
        n_rows: questions made.
        rejects: `schemas.TeacherRejects` beside them.
    """
    short = rejects.filter(pl.col("reason") == TOO_SHORT)
    unsuitable = rejects.filter(pl.col("reason") == UNSUITABLE)
    left_out = max(short, unsuitable, key=len)
    if len(left_out) <= n_rows + len(rejects) - len(left_out):
        return None
    documents = left_out["doc_id"].n_unique()
    everything = "all" if n_rows == 0 and len(left_out) == len(rejects) else "most"
    if left_out is unsuitable:
        return (
            f"{everything} of its documents hold nothing to ask about, as the teacher says of {documents:,} of "
            f"them (the first: {left_out['detail'][0]}). Read some of them: are they lists of links, or was "
            "their text lost on the way?"
        )
    return (
        f"{everything} of its documents were left out as too short, {documents:,} of them (the first: "
        f"{left_out['detail'][0]}). Nothing was asked about them: set min_words of questions lower to "
        "have them asked about"
    )


class _Prompt:
    """The prompt of every document: what is asked for, and what a reply looks like."""

    def __init__(
        self, template: PromptTemplate, number: int, variety: Variety, seed: int | None
    ) -> None:
        self.number = number
        self._template = template
        self._variety = variety
        self._seed = seed or 0
        self._used = template.placeholders
        self._says_wanted = "wanted" in self._used
        self.long = "long" in variety.lengths and self.says("length")
        further = further_keys(template.system + template.user)
        self.model = reply_model(number, self.long, further)
        said = [
            *QUESTION_TYPES.values(),
            *WORDINGS.values(),
            *(each.said for each in LENGTHS.values()),
        ]
        self.words = f" {in_words(template.wording)} {'  '.join(map(in_words, said))} "

    def says(self, name: str) -> bool:
        """Return whether the prompt has a place for what is chosen from a list."""
        return self._says_wanted or name in self._used

    def asked(self, text_hash: str, number: int) -> Asked:
        """Return what question `number` of a document is asked to be like, as far as the prompt says it."""
        asked = self._variety.choose(self._seed, text_hash, number)
        return Asked(
            *(
                each if self.says(name) else None
                for name, each in zip(Asked._fields, asked, strict=True)
            )
        )

    def asks(self, documents: pl.DataFrame, **sampling: Any) -> Iterator[Ask]:
        """Yield an ask for each of the documents."""
        columns = documents.select("doc_id", "title", "text", "text_hash")
        for doc_id, title, text, text_hash in columns.iter_rows():
            messages = self._messages(titled(title, text), text_hash)
            yield Ask(key=doc_id, messages=messages, schema=self.model, **sampling)

    def _messages(self, document: str, text_hash: str) -> tuple[Mapping[str, str], ...]:
        each = [self.asked(text_hash, number).described for number in range(self.number)]
        personas = [persona for one in each if (persona := one.get("persona"))]
        quoted = quote([document], personas, numbered=False)
        values = {
            "document": quoted.text,
            "boundary": quoted.boundary,
            "num_questions": str(self.number),
            "wanted": _wanted(each),
            "reply": _reply(self.number),
            **{name: _joined([one.get(name) for one in each]) for name in Asked._fields},
        }
        messages = self._template.messages(values)
        if self.number > 1 and not self._used & {"wanted", "reply", "num_questions"}:
            # A prompt of one's own that knows of one question alone.
            several = f"{_several(self.number)}. {_reply(self.number)}"
            *before, last = messages
            messages = (*before, {**last, "content": f"{last['content']}\n\n{several}"})
        return messages


class _Made(NamedTuple):
    """One document as it came out: its questions as far as they can be used, and the reject's columns."""

    questions: Sequence[Written | Unusable]
    rejected: dict[str, Any]


class _Reader:
    """Turns replies into questions, and keeps the best of those that lack some."""

    def __init__(self, prompt: _Prompt) -> None:
        self._prompt = prompt
        self._best: dict[str, tuple[Sequence[Written | Unusable], Answer]] = {}
        self.not_asked: list[str] = []

    def use(self, ask: Ask, answer: Answer) -> Declined | Sequence[Written | Unusable]:
        """Return the questions of a reply; handed to `Teacher.ask_all`."""
        prompt = self._prompt
        found = read_reply(answer, prompt.model, prompt.words, long=prompt.long)
        if isinstance(found, Declined):
            return found
        found = found[: prompt.number]
        faults = [each for each in found if isinstance(each, Unusable)]
        if len(found) < prompt.number:
            detail = f"{len(found)} of {prompt.number} questions"
            advice = f"It had only {len(found)} of the {prompt.number} questions asked for."
            faults.append(Unusable("too_few_questions", detail, advice))
        if not faults:
            return found
        found = [*found, *faults[-1:] * (prompt.number - len(found))]
        best = self._best.get(ask.key)
        if best is None or _n_usable(found) > _n_usable(best[0]):
            self._best[ask.key] = found, answer
        raise faults[0]

    def made(self, outcome: Outcome[Any], model: str) -> _Made:
        """Return what an outcome comes to."""
        rejected = reject(outcome, model)
        partial = self._best.pop(outcome.ask.key, None)
        if outcome.reason == NOT_ASKED:
            self.not_asked.append(outcome.ask.key)
        if isinstance(outcome.value, Declined):
            return _Made([], {**rejected, "reason": UNSUITABLE, "detail": outcome.value.why})
        if outcome.value is not None:
            return _Made(outcome.value, rejected)
        if partial is None or not _n_usable(partial[0]):
            return _Made([], rejected)
        return _Made(partial[0], {**rejected, "detail": partial[1].raw})


def _n_usable(questions: Sequence[Written | Unusable]) -> int:
    return sum(isinstance(each, Written) for each in questions)


def _rows(
    doc_id: str, text_hash: str, made: _Made, prompt: _Prompt
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows and rejects of a document that was asked about."""
    rows, rejects = [], []
    seen: set[str] = set()
    for number in range(prompt.number):
        rejected = {**_ids(doc_id, number), **_share_of(made.rejected, number, prompt.number)}
        value = made.questions[number] if made.questions else None
        if value is None:
            rejects.append(rejected)
        elif isinstance(value, Unusable):
            rejects.append(rejected | {"reason": value.reason})
        # Found here and not in `use`: another answer would repeat itself as well.
        elif (words := in_words(value.question)) in seen:
            rejects.append(rejected | {"reason": "duplicate_question"})
        else:
            seen.add(words)
            del rejected["reason"], rejected["detail"]
            asked = prompt.asked(text_hash, number)._asdict()
            kept = {"text_hash": text_hash, "origin": WRITTEN, **value._asdict(), **asked}
            rows.append(rejected | kept)
    return rows, rejects


def _share_of(rejected: Mapping[str, Any], number: int, of: int) -> dict[str, Any]:
    """Return the columns of one question among several of one answer: tokens are shared out, the rest is
    the first one's."""
    shared = dict(rejected)
    for name in ("prompt_tokens", "completion_tokens"):
        each, rest = divmod(rejected[name], of)
        shared[name] = each + (rest if number == 0 else 0)
    return shared


def _given_row(
    doc_id: str, text_hash: str, question: str, scenario: str | None, answer: str | None
) -> dict[str, Any]:
    """Return the row of a document that comes with its own question."""
    return {
        **_ids(doc_id, 0),
        "text_hash": text_hash,
        "question": question.strip(),
        "scenario": (scenario or "").strip(),
        "origin": GIVEN,
        "reference_answer": answer if answer and answer.strip() else None,
        "model": SOURCE,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "attempts": 0,
    }


async def _judged(
    rows: list[dict[str, Any]], documents: pl.DataFrame, judge: Judge
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows with their verdicts, and a reject for each that fails one."""
    texts = _texts(documents)
    judged = await judge.questions(
        [JudgedQuestion(row["question"], row["scenario"], texts[row["doc_id"]]) for row in rows]
    )
    kept, rejects = [], []
    for row, verdicts in zip(rows, judged, strict=True):
        failed = [name for name in QUESTION_VERDICTS if verdicts and not verdicts[name]]
        if not failed:
            kept.append(row | {"judged": verdicts})
            continue
        said = json.dumps(
            {"question": row["question"], "scenario": row["scenario"], "judged": verdicts},
            ensure_ascii=False,
        )
        columns = TeacherRejects.column_names()
        rejected = {name: row[name] for name in columns if name in row}
        rejects.append(rejected | {"reason": f"judged_{failed[0]}", "detail": said})
    return kept, rejects


async def _foresee(doc_ids: list[str], number: int, documents: pl.DataFrame, judge: Judge) -> None:
    """Have an estimate count the verdicts on questions that are not written yet."""
    texts = _texts(documents) if doc_ids else {}
    question, scenario, *_ = _UNWRITTEN
    await judge.questions(
        [JudgedQuestion(question, scenario, texts[doc_id]) for doc_id in doc_ids] * number
    )


def _texts(documents: pl.DataFrame) -> dict[str, str]:
    rows = documents.select("doc_id", "title", "text").iter_rows()
    return {doc_id: titled(title, text) for doc_id, title, text in rows}


def _ids(doc_id: str, number: int) -> dict[str, str]:
    return {"question_id": f"{doc_id}-q{number}", "doc_id": doc_id}


_LABELS = {
    "question_type": "Type",
    "length": "Length",
    "wording": "Wording",
    "persona": "Asked by",
}


def _wanted(each: Sequence[Mapping[str, str]]) -> str:
    """Return what is asked for, as the prompt says it: how many questions, and what each is to be like."""
    lists = ["\n".join(f"- {_LABELS[name]}: {said}" for name, said in one.items()) for one in each]
    if len(each) == 1:
        return f"Write one question.\n{lists[0]}".rstrip()
    numbered = "\n".join(
        f"Question {n}\n{listed}".rstrip() for n, listed in enumerate(lists, start=1)
    )
    return f"{_several(len(each))}:\n{numbered}"


def _several(number: int) -> str:
    return (
        f"Write {number} questions, each with its own scenario and answer, on different points of the "
        "document"
    )


def _reply(number: int) -> str:
    """Return the form of the reply, as the prompt says it."""
    one = '{"question": "...", "scenario": "...", "answer": "...", "reason": null}'
    if number == 1:
        return f"Reply with a JSON object of this form and nothing around it:\n{one}"
    listed = f'{{"questions": [{one}, ...], "reason": null}}'
    return (
        f"Reply with a JSON object of this form, with {number} questions in it and nothing around it:\n"
        f"{listed}"
    )


def _joined(said: Sequence[str | None]) -> str:
    """Return what a placeholder stands for: one thing, or one for each question by its number."""
    if len(said) == 1:
        return said[0] or "any"
    return "; ".join(f"question {n}: {each or 'any'}" for n, each in enumerate(said, start=1))
