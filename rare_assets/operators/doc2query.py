"""Doc2Query: from each document, questions that need its knowledge and several steps of reasoning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
from pydantic import BaseModel, Field

from rare_assets.operators.answers import COSTS, free_reject, reject
from rare_assets.operators.refusals import is_refusal
from rare_assets.operators.templates import PromptTemplate, Templates, quote
from rare_assets.schemas import Produced, Questions, TeacherRejects
from rare_assets.teacher.interface import (
    Answer,
    Ask,
    Progress,
    Teacher,
    Unusable,
)
from rare_assets.teacher.reading import part
from rare_assets.teacher.structured import structured_value
from rare_assets.text.words import words_in

# Reason of rejects that the options leave out on purpose.
TOO_SHORT = "too_short"
_MAX_QUESTION = 900
_MAX_SCENARIO = 1200


class HardQuestion(BaseModel):
    """The answer that Doc2Query asks for, as the endpoint's JSON schema."""

    # The caps stop a small model that repeats itself; what the prompt asks for is half as long.
    question: str = Field(
        min_length=1,
        max_length=_MAX_QUESTION,
        description="A question that needs the document's knowledge and several steps of reasoning, "
        "and makes sense without the document.",
    )
    scenario: str = Field(
        min_length=1,
        max_length=_MAX_SCENARIO,
        description="Two or three sentences: who would ask the question, and in what situation.",
    )


async def doc2query(
    documents: pl.DataFrame,
    teacher: Teacher,
    *,
    templates: Templates,
    num_questions: int = 1,
    max_attempts: int = 3,
    min_words: int = 20,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Produced:
    """Have the teacher write `num_questions` questions from each document.

    Rows come in the documents' order whatever the order of the answers; what no attempt gave a
    usable answer for is in the rejects, one row a question that was wanted. Reasons: `too_short`
    (not asked), `blank_question`, `blank_scenario`, `scenario_is_question`, `refers_to_document`,
    `copied_from_prompt`, `duplicate_question` (a later one of the same document with the same
    words), `cut`, `refused` and others of `structured_value`, and those of the teacher.

    Args:
        documents: `schemas.Documents`.
        num_questions: questions a document, told apart by `Ask.sample`.
        max_attempts: answers a question at most, until one can be used.
        min_words: documents of fewer words are not asked about, since they hold too little to
            reason on (ReasonIR's own filter is 20 words); 0 asks about all.
        seed: sampling seed; question number n of a document is asked with `seed + n`.
        temperature, max_tokens: sent as they are; None leaves the endpoint's default.
        progress: handed to the teacher.

    Returns:
        `schemas.Questions` and `schemas.TeacherRejects`.

    Raises:
        ValueError: `num_questions` or `max_attempts` is below 1.
        TeacherStopped: the teacher can't go on; its finished answers are kept for the next run.
    """
    if num_questions < 1 or max_attempts < 1:
        raise ValueError(
            f"num_questions ({num_questions}) and max_attempts ({max_attempts}) must be at least 1."
        )
    template = templates.doc2query
    long_enough = documents.filter(pl.col("n_words") >= min_words)

    def asks() -> Iterator[Ask]:
        columns = long_enough.select("doc_id", "title", "text")
        for doc_id, title, text in columns.iter_rows():
            messages = _messages(template, title, text)
            for sample in range(num_questions):
                yield Ask(
                    key=_question_id(doc_id, sample),
                    messages=messages,
                    schema=HardQuestion,
                    sample=sample,
                    temperature=temperature,
                    seed=None if seed is None else seed + sample,
                    max_tokens=max_tokens,
                )

    prompt_words = f" {_words(template.wording)} "

    def use(_: Ask, answer: Answer) -> HardQuestion:
        return _usable(answer, prompt_words)

    # Only what the tables need is kept: an outcome holds its whole prompt.
    made: dict[str, tuple[HardQuestion | None, dict[str, Any]]] = {}
    async for outcome in teacher.ask_all(asks(), use, max_attempts=max_attempts, progress=progress):
        made[outcome.ask.key] = outcome.value, reject(outcome, teacher.model)

    rows, rejects = [], []
    for doc_id, text_hash, n_words in documents.select(
        "doc_id", "text_hash", "n_words"
    ).iter_rows():
        seen: set[str] = set()
        for sample in range(num_questions):
            ids = {"question_id": _question_id(doc_id, sample), "doc_id": doc_id}
            if n_words < min_words:
                detail = f"{n_words} words, min_words is {min_words}"
                rejects.append(ids | free_reject(TOO_SHORT, detail, teacher.model))
                continue
            value, rejected = made.pop(ids["question_id"])
            if value is None:
                rejects.append(ids | rejected)
            # Found here and not in `use`, where it would depend on which answer came first.
            elif (words := _words(value.question)) in seen:
                rejects.append(ids | rejected | {"reason": "duplicate_question"})
            else:
                seen.add(words)
                rows.append(
                    {
                        **ids,
                        "text_hash": text_hash,
                        "question": value.question,
                        "scenario": value.scenario,
                        **{key: rejected[key] for key in ("model", *COSTS)},
                    }
                )
    return Produced(
        Questions.validate(pl.DataFrame(rows, schema=Questions.create_empty().schema)),
        TeacherRejects.validate(pl.DataFrame(rejects, schema=TeacherRejects.create_empty().schema)),
    )


_NOUN = r"(?:text|document|passage|article|excerpt|paragraph|abstract|snippet|extract)s?"
_GIVEN = r"(?:given|provided|above|following|preceding|present|supplied|accompanying|source|quoted)"
# "the text of the treaty" and "article 5" are things in the world, not the document at hand.
_END = r"\b(?!\s+(?:of|no|number|\d)\b)"
_REFERENCE = re.compile(
    rf"""\A(?:the|this)\ {_NOUN}{_END}
    | \b(?:
        (?:according\ to|based\ (?:up)?on|as\ per|with\ reference\ to
          |(?:as\ )?(?:described|stated|mentioned|discussed|presented|provided|given|outlined|explained
            |noted|reported|shown|detailed|listed|referred\ to|found|contained)\ (?:in|by)
          |(?:information|details?|facts?|knowledge|evidence|data)\ (?:in|from|of))
        \ (?:the|this|these)\ (?:{_GIVEN}\ )?(?:{_NOUN}|authors?){_END}
      | (?:the|this|these)\ {_GIVEN}\ {_NOUN}{_END}
      | (?:the\ )?{_NOUN}\ above
      | (?:this|these)\ {_NOUN}{_END}
      | (?:in|from)\ the\ (?:text|passage|excerpt|abstract|snippet){_END}
      | the\ (?:{_NOUN}|authors?)\ (?:also\ )?(?:sa(?:y|id)|state|describe|mention|discuss|explain|suggest|claim
          |argue|note|impl(?:y|ie)|refer|report|outline|provide|present|highlight|conclude)(?:s|d|ed)?\b
      | (?:do|does|did|would)\ the\ (?:{_NOUN}|authors?){_END}\ \w+
    )""",
    re.VERBOSE | re.IGNORECASE,
)


def refers_to_document(question: str) -> bool:
    """Whether a question points at the text it was made from ("according to the passage, ...")."""
    return _REFERENCE.search(" ".join(question.split())) is not None


def say_left_out(n_rows: int, rejects: pl.DataFrame) -> str | None:
    """What to tell a user where most documents of a shard were left out as too short, all perhaps.

    Args:
        n_rows: questions made.
        rejects: `schemas.TeacherRejects` beside them.
    """
    short = rejects.filter(pl.col("reason") == TOO_SHORT)
    if len(short) <= n_rows + len(rejects) - len(short):
        return None
    documents = short["doc_id"].n_unique()
    everything = "all" if n_rows == 0 and len(short) == len(rejects) else "most"
    return (
        f"{everything} of its documents were left out as too short, {documents:,} of them (the first: "
        f"{short['detail'][0]}). Nothing was asked about them: set min_words of questions lower to "
        "have them asked about"
    )


def _question_id(doc_id: str, sample: int) -> str:
    return f"{doc_id}-q{sample}"


def _messages(
    template: PromptTemplate, title: str | None, text: str
) -> tuple[Mapping[str, str], ...]:
    titled = title and title.strip() and not text.lstrip().startswith(title.strip())
    document = f"{title}\n\n{text}" if titled else text
    quoted = quote([document], numbered=False)
    return template.messages({"document": quoted.text, "boundary": quoted.boundary})


def _usable(answer: Answer, prompt_words: str) -> HardQuestion:
    text = part(answer).text
    if is_refusal(text):
        raise Unusable("refused", text)
    parsed = structured_value(answer, HardQuestion)
    # A grammar ends a text at its cap, in the middle of a word.
    if len(parsed.question) >= _MAX_QUESTION or len(parsed.scenario) >= _MAX_SCENARIO:
        raise Unusable("cut", "question or scenario is as long as the schema allows")
    question, scenario = parsed.question.strip(), parsed.scenario.strip()
    words = _words(question)
    if not words:
        raise Unusable("blank_question")
    if not _words(scenario):
        raise Unusable("blank_scenario")
    if words == _words(scenario):
        raise Unusable("scenario_is_question")
    if is_refusal(question):
        raise Unusable("refused", question)
    if refers_to_document(question):
        raise Unusable("refers_to_document", question)
    if f" {words} " in prompt_words:
        raise Unusable("copied_from_prompt", question)
    return HardQuestion(question=question, scenario=scenario)


def _words(text: str) -> str:
    """A text's words alone, lower case, one blank between them."""
    return " ".join(words_in(text))
