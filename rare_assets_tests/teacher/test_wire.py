import hashlib
import json
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from rare_assets.operators.judge import QuestionVerdicts, Verdict
from rare_assets.operators.question_reply import HardQuestion, reply_model
from rare_assets.teacher.interface import Ask
from rare_assets.teacher.wire import (
    answer_from_record,
    answer_key,
    answer_to_record,
    json_schema,
    parse_json,
    read_answer,
    sent_seed,
)

MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve?"})


class Part(BaseModel):
    name: str = Field(max_length=9)
    kind: Literal["a", "b"] = "a"


class Whole(BaseModel):
    parts: list[Part] = Field(min_length=1)
    note: str | None = None


def test_the_key_is_the_hash_of_the_content_as_canonical_json():
    # Stored answers are found by it: a change here loses every one of them.
    one = Ask("k", MESSAGES, sample=2, temperature=0.5, seed=7, max_tokens=99)
    written = (
        '{"attempt":1,"max_tokens":99,"messages":[{"content":"Be brief.","role":"system"},'
        '{"content":"Na\\u00efve?","role":"user"}],"model":"m","sample":2,"schema":null,'
        '"seed":7,"temperature":0.5}'
    )
    assert answer_key("m", one, 1) == hashlib.sha256(written.encode()).digest()


def test_the_key_depends_on_everything_but_the_asks_own_key():
    variants = [
        Ask("k", MESSAGES),
        Ask("k", MESSAGES[1:]),
        Ask("k", MESSAGES, sample=1),
        Ask("k", MESSAGES, temperature=0.0),
        Ask("k", MESSAGES, seed=0),
        Ask("k", MESSAGES, max_tokens=1),
        Ask("k", MESSAGES, schema=Part),
        Ask("k", MESSAGES, schema=Whole),
    ]
    keys = {answer_key(model, ask, n) for model in "mn" for ask in variants for n in (0, 1)}
    assert len(keys) == 2 * len(variants) * 2
    assert answer_key("m", Ask("other", MESSAGES), 0) == answer_key("m", variants[0], 0)


def test_the_strict_schema_requires_every_property_and_allows_no_other():
    schema = json_schema(Whole)
    part = schema["$defs"]["Part"]
    assert schema["required"] == ["parts", "note"]
    assert part["required"] == ["name", "kind"]
    assert schema["additionalProperties"] is part["additionalProperties"] is False
    assert "default" not in json.dumps(schema)
    assert part["properties"]["name"]["maxLength"] == 9
    assert schema["properties"]["parts"]["minItems"] == 1
    unbounded = json.dumps(json_schema(Whole, bounds=False))
    assert "maxLength" not in unbounded
    assert "minItems" not in unbounded
    # The original schema, which is part of the key, stays as it was.
    assert "required" not in json_schema(Whole, bounds=False)["properties"]


def test_only_the_first_attempt_at_the_first_sample_has_the_seed_itself():
    ask, sample = Ask("k", MESSAGES, seed=7), Ask("k", MESSAGES, seed=7, sample=1)
    seeds = [sent_seed(ask, 0), sent_seed(ask, 1), sent_seed(sample, 0), sent_seed(sample, 1)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [
        sent_seed(ask, 0),
        sent_seed(ask, 1),
        sent_seed(sample, 0),
        sent_seed(sample, 1),
    ]
    assert sent_seed(Ask("k", MESSAGES), 3) is None


def completion(message, **more):
    return {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m-1", **more}


@pytest.mark.parametrize(
    ("message", "content", "thinking", "refusal"),
    [
        ({"content": "A"}, "A", None, None),
        ({"content": None}, "", None, None),
        ({"content": "A", "reasoning_content": "B"}, "A", "B", None),
        ({"content": "A", "reasoning": "B", "reasoning_content": None}, "A", "B", None),
        ({"content": "A", "reasoning": {"effort": "low"}}, "A", None, None),
        (
            {"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
            "AB",
            None,
            None,
        ),
        ({"content": None, "refusal": "No."}, "", None, "No."),
    ],
)
def test_content_chain_and_refusal_are_read_apart(message, content, thinking, refusal):
    answer = read_answer(completion(message), attempt=1, latency_s=0.5)
    assert (answer.content, answer.thinking, answer.refusal) == (content, thinking, refusal)
    assert (answer.model, answer.attempt, answer.latency_s) == ("m-1", 1, 0.5)


ASKED = Ask("k", ({"role": "user", "content": "x" * 100},))
# Four characters a token: 100 of the prompt, 4 of the answer.
GUESSED = (26, 1)


@pytest.mark.parametrize(
    ("usage", "tokens", "estimated"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4), False),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4), False),
        ({"prompt_tokens": "3", "completion_tokens": 4.0}, (3, 4), False),
        ({"prompt_tokens": 3, "completion_tokens": None}, (3, 1), True),
        ({"prompt_tokens": 0, "completion_tokens": 0}, GUESSED, True),
        (None, GUESSED, True),
        ("many", GUESSED, True),
        ([3, 4], GUESSED, True),
        ({"prompt_tokens": -3, "completion_tokens": 10**23}, GUESSED, True),
        ({"prompt_tokens": True, "completion_tokens": {"n": 3}}, GUESSED, True),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, GUESSED, True),
        ({"prompt_tokens": "1e5", "completion_tokens": [4]}, GUESSED, True),
    ],
)
def test_usage_that_is_missing_or_can_not_be_true_is_estimated(usage, tokens, estimated):
    response = completion({"content": "Four"}, usage=usage)
    answer = read_answer(response, attempt=0, latency_s=0, ask=ASKED)
    assert (answer.prompt_tokens, answer.completion_tokens) == tokens
    assert answer.estimated == estimated
    stored = json.loads(json.dumps(answer_to_record(answer, answered_at=1.5)))
    assert answer_from_record(stored, ASKED).estimated == estimated


def test_counts_that_an_earlier_version_stored_as_they_came_are_estimated_when_read():
    answer = read_answer(completion({"content": "Four"}), attempt=0, latency_s=0, ask=ASKED)
    for wrong in (10**23, -5, float("inf"), [3], None, 0):
        record = answer_to_record(answer, answered_at=1.5)
        record |= {"prompt_tokens": wrong, "completion_tokens": wrong}
        again = answer_from_record(record, ASKED)
        assert (again.prompt_tokens, again.completion_tokens) == GUESSED
        assert again.estimated


def test_an_answer_without_a_reason_is_cut_if_it_is_as_long_as_was_allowed():
    asked = Ask("k", MESSAGES, max_tokens=50)
    for tokens, reason in ((49, "stop"), (50, "length")):
        response = completion({"content": "A"}, usage={"completion_tokens": tokens})
        response["choices"][0]["finish_reason"] = None
        assert read_answer(response, attempt=0, latency_s=0, ask=asked).finish_reason == reason


def test_numbers_of_any_length_are_read():
    assert parse_json(b'{"a": ' + b"9" * 6000 + b"}")["a"] == float("inf")
    assert parse_json(b'{"a": 12345678901234567890}')["a"] == 12345678901234567890


@pytest.mark.parametrize("error", [{"message": "broke off", "code": 502}, "broke off"])
def test_a_completion_that_says_it_is_an_error_is_none(error):
    whole = completion({"content": "A"})
    in_choice = completion({"content": "A"})
    in_choice["choices"][0]["error"] = error
    for response in (in_choice, {**whole, "error": error}):
        with pytest.raises(ValueError, match="error in place"):
            read_answer(response, attempt=0, latency_s=0)
    for nothing in (None, {}, "", {"code": None, "message": ""}):
        assert read_answer({**whole, "error": nothing}, attempt=0, latency_s=0).content == "A"


@pytest.mark.parametrize(
    "response", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, [], "text", None, 5]
)
def test_anything_else_is_no_chat_completion(response):
    with pytest.raises(ValueError, match="not a chat completion"):
        read_answer(response, attempt=0, latency_s=0)


def test_halves_of_characters_are_joined_or_marked_in_answers_old_and_new():
    message = {
        "content": "Ice \ud83e\uddca, half \ud83d",
        "reasoning": "\udc00",
        "refusal": "\ud800 no",
    }
    response = completion(message) | {"model": "m\ud83d"}
    texts = ("Ice \U0001f9ca, half \ufffd", "\ufffd", "\ufffd no", "m\ufffd")
    answer = read_answer(response, attempt=0, latency_s=0.1)
    assert (answer.content, answer.thinking, answer.refusal, answer.model) == texts
    record = answer_to_record(answer, answered_at=1.5)
    earlier = record | {"content": message["content"], "thinking": message["reasoning"]}
    assert answer_from_record(earlier).raw == answer.raw


def test_a_stored_answer_comes_back_as_it_was_but_reused():
    message = {"content": "A", "reasoning": "B"}
    answer = read_answer(completion(message, usage={"prompt_tokens": 3}), attempt=2, latency_s=0.25)
    record = json.loads(json.dumps(answer_to_record(answer, answered_at=1.5)))
    again = answer_from_record(record)
    assert again.reused
    for name in ("content", "thinking", "model", "prompt_tokens", "attempt", "latency_s", "raw"):
        assert getattr(again, name) == getattr(answer, name)
    with pytest.raises(KeyError):
        answer_from_record({"content": "A"})


def test_the_keys_of_what_is_asked_stay_as_they_were_first_stored():
    # Taken from answers that were paid for: a change here asks each of them again.
    why = ({"role": "user", "content": "Why?"},)
    kinds = (HardQuestion, reply_model(2), reply_model(1, long=True), QuestionVerdicts, Verdict)
    keys = [answer_key("m", Ask("k", why, schema=kind), 0).hex() for kind in kinds]
    assert keys == [
        "82105f709843ff38a0d095dc171d7319e306f7c330076b043afa10044b6a0664",
        "47c856b5a6a5bcf2db62b6441f26f9bdfed501426bb2bef871767cf1ecc318df",
        "cde7bdeda266d9937edb5b09ece8103e30bfcf386f293cdf7daeec7a08e3907f",
        "f269f58061c961924924b351317c7a2e4168730c5d42dcc38d1c9b58b0410ad9",
        "3b586acceafdd72c8b93e19148fa7f061557d028e80a4a769693636821b1efcb",
    ]


def test_the_schema_that_is_sent_holds_no_docstring_of_ours():
    for kind in (HardQuestion, reply_model(3, further=("level",)), QuestionVerdicts, Verdict):
        sent = json_schema(kind)
        described = json.dumps(sent)
        for model in (kind, HardQuestion, *kind.__mro__):
            if model.__doc__:
                assert model.__doc__.split(".")[0] not in described
        assert "title" not in sent
        assert "description" not in sent


def test_a_reply_model_may_be_renamed_and_its_docstring_reworded():
    class Judged(BaseModel):
        """Other words than before."""

        explanation: str = Field(
            max_length=600, description="One sentence that leads to the verdict."
        )
        verdict: bool

    class Bound(Judged):
        verdict: bool = Field(description="True if it does.")

    asked = [Ask("k", MESSAGES, schema=kind) for kind in (Verdict, Judged, Bound)]
    first, renamed, described = (answer_key("m", ask, 0) for ask in asked)
    assert renamed == first
    assert described != first  # what a field says is sent, and decides the answer


def test_the_schema_that_is_sent_has_neither_titles_nor_docstrings():
    class Inner(BaseModel):
        """Not for the endpoint."""

        title: str = Field(description="What it is called.")

    class Outer(BaseModel):
        """Not for the endpoint either."""

        inner: Inner | None = None
        description: str

    schema = json_schema(Outer)
    assert schema["properties"].keys() == {"inner", "description"}
    assert schema["$defs"]["Inner"]["properties"] == {
        "title": {"type": "string", "description": "What it is called."}
    }
    assert "Not for the endpoint" not in json.dumps(schema)
    assert {"title", "description"}.isdisjoint(schema | schema["$defs"]["Inner"])
