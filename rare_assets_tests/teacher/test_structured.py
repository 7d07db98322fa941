import json

import pytest
from pydantic import BaseModel, Field

from rare_assets.teacher.interface import Answer, Unusable
from rare_assets.teacher.structured import parse_structured, structured_value


class Note(BaseModel):
    question: str = Field(min_length=3)
    score: float = 0.0


GOOD = '{"question": "Why?", "score": 7.5}'
NOTE = Note(question="Why?", score=7.5)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\nAnything else?",
        f"Here is the note: {GOOD} I hope it helps.",
        f'<think>\nMaybe {{"question": "A draft?"}}\n</think>\n{GOOD}',
        f'a chain without its opening tag {{"question": "A draft?"}} </think> {GOOD}',
        f"The set {{1, 2}} is meant. {GOOD}",
        f'{{"question": 3}} was wrong, so: {GOOD}',
        f'{GOOD} or else {{"question": "What else?"}}',
        f'{{"result": {GOOD}}}',
        f"[{GOOD}]",
        json.dumps(GOOD),
        json.dumps({"name": "note", "arguments": GOOD}),
        f"<tool_call>{json.dumps({'function': {'name': 'note', 'arguments': GOOD}})}</tool_call>",
        '{"question": "Why?", "score": 7.5,}',
        '{"question": "Why?", "score": "7.5"}',
        '{"question": "Why?", "score": 7.5, "extra": null}',
    ],
)
def test_the_first_fitting_object_is_found_whatever_it_is_wrapped_in(text):
    assert parse_structured(text, Note) == NOTE


@pytest.mark.parametrize(
    "question",
    [
        'A brace } or { or "quotes"?',
        "A comma, } inside?",
        "Two\nlines,\n]?",
        "Back\\slash?",
        "Ünï?",
    ],
)
def test_any_text_survives_in_a_string(question):
    text = json.dumps({"question": question, "score": 1}, ensure_ascii=False)
    assert parse_structured(f"So: {text}.", Note).question == question
    with_comma = text[:-1] + ",}"
    assert parse_structured(with_comma, Note).question == question


def test_latex_in_strings_is_what_was_meant():
    text = r'{"question": "Is \frac{1}{2} \theta > \nabla \beta \alpha?", "score": 1}'
    assert parse_structured(text, Note).question == r"Is \frac{1}{2} \theta > \nabla \beta \alpha?"
    given = json.dumps({"question": r"Is \frac{1}{2}\nabla x\n?"})
    assert parse_structured(given, Note).question == r"Is \frac{1}{2}\nabla x\n?"


@pytest.mark.parametrize(
    ("content", "thinking"),
    [
        ("", f'Maybe {{"question": "A draft?"}}, or rather {GOOD}'),
        ("", f"Brine.\n</think>\n{GOOD}"),
        (GOOD, '{"question": "A draft?"}'),
        (f"[THINK]Brine.[/THINK]{GOOD}", None),
        (f"<|channel|>final<|message|>{GOOD}<|return|>", None),
    ],
)
def test_the_object_is_found_where_the_server_put_it(content, thinking):
    given = Answer(content, thinking, "stop", None, "m", 1, 1, 0, 0.1, False)
    assert structured_value(given, Note) == NOTE


def test_tags_within_the_object_are_its_own():
    question = "What does <think> mean, and </think>?\n</think>\n"
    given = answer(json.dumps({"question": question, "score": 1}))
    assert structured_value(given, Note).question == question


def test_one_thing_again_and_again_is_unusable():
    with pytest.raises(Unusable) as raised:
        structured_value(answer(json.dumps({"question": "a" * 4_000})), Note)
    assert raised.value.reason == "degenerate"


def test_raw_line_breaks_in_strings_are_accepted():
    assert parse_structured('{"question": "Why\nnot?"}', Note).question == "Why\nnot?"


def test_commas_behind_a_quote_without_an_end_are_taken_out():
    assert parse_structured(f'A board of 5" is asked for: {GOOD[:-1]},}}', Note) == NOTE


@pytest.mark.parametrize("row", ['\\"', "\\", "{", '"'])
def test_a_row_without_end_takes_no_longer_than_other_text(row):
    """As some models write them until they may write no more."""
    for begins in ("", '{"question": "Why?', GOOD):
        with pytest.raises(Unusable):
            parse_structured(begins + row * 300_000, Note)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no object at all",
        GOOD[:20],
        '{"question" "Why?"}',
        f"<think>{GOOD}</think>",
        f"<think>never closed {GOOD}",
        '["Why?", 7.5]',
        "{" * 50_000,
    ],
)
def test_text_without_an_object_is_not_json(text):
    with pytest.raises(Unusable) as raised:
        parse_structured(text, Note)
    assert raised.value.reason == "not_json"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"score": 1}', "question: Field required"),
        ('{"question": "?"}', "question: String should have at least 3 characters"),
        ('{"question": "Why?", "score": "high"}', "score: Input should be a valid number"),
    ],
)
def test_an_object_that_does_not_fit_is_a_schema_mismatch_that_says_where(text, problem):
    with pytest.raises(Unusable) as raised:
        parse_structured(text, Note)
    assert raised.value.reason == "schema_mismatch"
    assert problem in raised.value.detail


def answer(content, *, finish_reason="stop", refusal=None):
    return Answer(content, None, finish_reason, refusal, "m", 1, 1, 0, 0.1, False)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("", refusal="I can't."), "refused"),
        (answer(" \n"), "empty"),
        (answer("", finish_reason="length"), "cut"),
        (answer(GOOD[:25], finish_reason="length"), "cut"),
        (answer("", finish_reason="content_filter"), "content_filter"),
        (answer("", finish_reason="MAX_TOKENS"), "cut"),
        (answer(GOOD[:25], finish_reason="insufficient_system_resource"), "cut"),
        (answer(GOOD[:25], finish_reason="content_filter: RECITATION"), "content_filter"),
        (answer(GOOD[:25], finish_reason="content_filter"), "content_filter"),
        (answer(GOOD[:25]), "not_json"),
    ],
)
def test_what_an_answer_says_about_itself_goes_before_its_text(given, reason):
    with pytest.raises(Unusable) as raised:
        structured_value(given, Note)
    assert raised.value.reason == reason


def test_a_whole_object_before_the_cut_is_used():
    assert structured_value(answer(GOOD + " and", finish_reason="length"), Note) == NOTE
