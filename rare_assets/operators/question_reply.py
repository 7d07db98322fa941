"""Say what Doc2Query asks the teacher to reply with, and read of a reply what can be used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)

from rare_assets.operators.refusals import is_refusal
from rare_assets.teacher import Answer, Unusable, part, structured_value
from rare_assets.text.words import sets_no_blanks, words_in

# Caps that stop a model which repeats itself; what is asked for is less than half as long.
MAX_QUESTION, MAX_LONG_QUESTION = 900, 6000
MAX_SCENARIO = 1200
MAX_ANSWER = 600
MAX_REASON = 400
# Fewer words name a thing and ask nothing of it; where a script sets no blanks, particles are no words.
FEWEST_WORDS, FEWEST_UNSPACED = 4, 3

KNOWN_KEYS = ("question", "scenario", "answer", "reason", "questions")
_KEY = re.compile(r'"([^"\\\n]{1,60})"\s*:')
_QUESTION_MARK = re.compile(r"[?\uFF1F\u061F\u055E\u1367\u2047\u2048\u203D\uFE56\u037E]")
# Scripts whose questions need no mark.
_UNMARKED = re.compile(
    r"[\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3040-\u30FF\u3400-\u9FFF\u0370-\u03FF]"
)
_REQUEST = re.compile(
    r"(?:^|[.!;:,]\s+)(?:please\s+)?(?:explain|describe|calculate|compute|determine|find|estimate|compare|predict"
    r"|work out|show|derive|decide|diagnose|suggest|propose|design|give|name|identify|choose|justify|tell me)\b",
    re.IGNORECASE,
)
_DECLINES = re.compile(
    r"\W*(?:no|none|there (?:is|are) no)\b[^?]{0,40}\bquestions?\b"
    r"|[^?]{0,80}\b(?:can(?:not|'t| not)|could not|unable to|impossible to)\b[^?]{0,20}"
    r"\b(?:write|written|create[d]?|form(?:ed|ulated?)?|generated?|ask(?:ed)?)\b[^?]{0,40}\bquestions?\b",
    re.IGNORECASE,
)


class Written(NamedTuple):
    """One question as it can be used; `extra` are keys beyond those that everybody has, as JSON."""

    question: str
    scenario: str
    reference_answer: str | None
    extra: str | None


class Declined(NamedTuple):
    """The teacher found nothing in the document to ask about."""

    why: str


def _text(value: Any) -> Any:
    """Return a number or truth value as the text that was meant."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


_Text = Annotated[str, BeforeValidator(_text)]


def _cut_at(longest: int) -> BeforeValidator:
    """Return what cuts a text where a grammar would end it, and leaves out what is no text."""

    def cut(value: Any) -> str | None:
        text = _text(value)
        return text[:longest] if isinstance(text, str) else None

    return BeforeValidator(cut)


def _as_it_came(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return what does not fit as it is: a key that only a prompt of one's own knows is kept, not used."""
    try:
        return validate(value)
    except ValidationError:
        return value


# Beside a question, which is not to be lost with them.
_AnswerBeside = Annotated[_Text | None, Field(max_length=MAX_ANSWER), _cut_at(MAX_ANSWER)]
_ReasonBeside = Annotated[_Text | None, Field(max_length=MAX_REASON), _cut_at(MAX_REASON)]


class HardQuestion(BaseModel):
    """One question, or none with a reason."""

    model_config = ConfigDict(extra="allow")

    question: _Text | None = Field(max_length=MAX_QUESTION)
    scenario: _Text | None = Field(None, max_length=MAX_SCENARIO)
    answer: _AnswerBeside = None
    reason: _ReasonBeside = None


@cache
def reply_model(number: int, long: bool = False, further: tuple[str, ...] = ()) -> type[BaseModel]:
    """Return the model of a reply with so many questions.

    Args:
        number: questions; one is the object itself, more are a list under `questions`.
        long: whether one of them may be long.
        further: keys that a prompt of one's own asks for besides.
    """
    value = Annotated[str | float | bool | list[str] | None, WrapValidator(_as_it_came)]
    fields: dict[str, Any] = dict.fromkeys(further, (value, None))
    if long:
        fields["question"] = (_Text | None, Field(max_length=MAX_LONG_QUESTION))
    one = (
        HardQuestion
        if not fields
        else create_model("HardQuestion", __base__=HardQuestion, **fields)
    )
    if number == 1:
        return one
    return create_model(
        "HardQuestions",
        __base__=_Several,
        # An answer with fewer is read all the same, and asked for again.
        questions=(
            list[one],  # type: ignore[valid-type]
            Field(json_schema_extra={"minItems": number, "maxItems": number}),
        ),
        reason=(_ReasonBeside, None),
    )


class _Several(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _take_one(cls, value: Any) -> Any:
        """Make a list of a lone question, or of a document that is declined as a whole."""
        if isinstance(value, dict) and "questions" not in value and "question" in value:
            declined = value["question"] is None
            return {"questions": [] if declined else [value], "reason": value.get("reason")}
        return value


def further_keys(wording: str) -> tuple[str, ...]:
    """Return the keys that a prompt asks for beyond the usual ones, from the JSON that it shows.

    >>> further_keys('Reply with {"question": "...", "scenario": "...", "difficulty": 3}')
    ('difficulty',)
    """
    found = dict.fromkeys(_KEY.findall(wording))
    return tuple(name for name in found if name not in KNOWN_KEYS)


def read_reply(
    answer: Answer, model: type[BaseModel], prompt_words: str, *, long: bool = False
) -> Declined | list[Written | Unusable]:
    """Return the questions of a reply, each as it can be used or with what is wrong with it.

    Args:
        answer: the teacher's.
        model: of `reply_model`, what it was asked to reply with.
        long: whether one of its questions may be long.
        prompt_words: the prompt's own words, lower case with a blank between: a question is none of it.

    Raises:
        Unusable: nothing can be read out of it; what the next attempt is told stands with it.
    """
    text = part(answer).text
    if is_refusal(text):
        raise Unusable("refused", text)
    try:
        parsed = structured_value(answer, model)
    except Unusable as unusable:
        raise Unusable(unusable.reason, unusable.detail, _ADVICE.get(unusable.reason)) from None
    replied = _questions(parsed)
    if all(one.question is None for one in replied):
        reasons = [getattr(parsed, "reason", None), *(one.reason for one in replied)]
        return Declined(next(filter(None, reasons), "no reason given"))
    return list(_each(replied, MAX_LONG_QUESTION if long else MAX_QUESTION, prompt_words))


def _questions(parsed: Any) -> Sequence[Any]:
    return [parsed] if isinstance(parsed, HardQuestion) else parsed.questions


def _each(replied: Sequence[Any], longest: int, prompt_words: str) -> Iterator[Written | Unusable]:
    for one in replied:
        try:
            yield _usable(one, longest, prompt_words)
        except Unusable as unusable:
            yield unusable


# What the next attempt is told of an answer that could not be read.
_ADVICE = {
    "not_json": "It held no JSON object of the form asked for.",
    "schema_mismatch": "Its JSON object did not have the form asked for.",
    "cut": "It was longer than allowed and broke off: be brief.",
    "empty": "It was empty.",
    "degenerate": "It said the same again and again.",
}


def _usable(one: Any, longest: int, prompt_words: str) -> Written:
    if one.question is None:
        raise Unusable("blank_question", one.reason or "", "One of the questions was missing.")
    # A grammar ends a text at its cap, in the middle of a word.
    if len(one.question) >= longest or len(one.scenario or "") >= MAX_SCENARIO:
        raise Unusable(
            "cut", "question or scenario is as long as the schema allows", _ADVICE["cut"]
        )
    question, scenario = one.question.strip(), (one.scenario or "").strip()
    words = in_words(question)
    if not words:
        raise Unusable("blank_question", "", "The question was empty.")
    if not in_words(scenario):
        raise Unusable("blank_scenario", question, "The scenario was empty.")
    if words == in_words(scenario):
        raise Unusable("scenario_is_question", question, "The scenario only repeated the question.")
    if is_refusal(question):
        raise Unusable("refused", question)
    _require_question(question, words, prompt_words)
    answer = one.answer or ""
    asked_for = (name for name in type(one).model_fields if name not in KNOWN_KEYS)
    extra = {**(one.model_extra or {}), **{name: getattr(one, name) for name in asked_for}}
    return Written(
        question,
        scenario,
        answer.strip() if in_words(answer) and len(answer) < MAX_ANSWER else None,
        json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else None,
    )


def _require_question(question: str, words: str, prompt_words: str) -> None:
    """Raise Unusable for what is a word, a heading or a remark, and asks nothing."""
    if _DECLINES.match(question):
        raise Unusable(
            "not_a_question",
            question,
            "Where no question can be written, `question` is null and `reason` says why.",
        )
    unspaced = sets_no_blanks(question)
    if len(words.split()) < (FEWEST_UNSPACED if unspaced else FEWEST_WORDS):
        raise Unusable(
            "too_little_asked",
            question,
            f"The question {question!r} is too short for somebody who has not seen the document to know what is asked.",
        )
    if f" {words} " in prompt_words:
        raise Unusable(
            "copied_from_prompt", question, "The question was copied from these instructions."
        )
    asks = _QUESTION_MARK.search(question) or _UNMARKED.search(question)
    if not asks and not _REQUEST.search(question):
        raise Unusable(
            "not_a_question", question, "It did not end in a question with its question mark."
        )


def in_words(text: str) -> str:
    """Return a text's words alone, lower case, one blank between them.

    >>> in_words("Why does SALT melt ice?")
    'why does salt melt ice'
    """
    return " ".join(words_in(text))
