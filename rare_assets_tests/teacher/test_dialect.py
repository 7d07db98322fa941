import json
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from rare_assets.teacher.dialect import MODES, Dialect, Manner
from rare_assets.teacher.interface import Ask
from rare_assets.teacher.wire import json_schema

MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve?"})


class Part(BaseModel):
    name: str = Field(max_length=9)
    kind: Literal["a", "b"] = "a"


class Whole(BaseModel):
    parts: list[Part] = Field(min_length=1, description="All.")
    note: str | None = None


FULL = Ask("k", MESSAGES, schema=Whole, temperature=0.2, seed=1, max_tokens=50)


def body(*without, mode="json_schema", stream=False, ask=FULL, **settings):
    return Dialect(**settings).body("m", ask, 0, Manner(mode, frozenset(without), stream))


def test_a_request_has_all_that_is_set_and_nothing_else():
    assert body().keys() == {"model", "messages", "response_format", "temperature", "seed", "max_tokens"}  # fmt: skip
    assert body(ask=Ask("k", MESSAGES)).keys() == {"model", "messages"}


def test_what_an_endpoint_does_not_take_is_left_out():
    left_out = body("temperature", "seed", "max_tokens", "system")
    assert left_out.keys() == {"model", "messages", "response_format", "max_completion_tokens"}
    assert left_out["max_completion_tokens"] == 50
    assert left_out["messages"] == [{"role": "user", "content": "Be brief.\n\nNaïve?"}]
    assert "max_completion_tokens" not in body("max_tokens", "max_completion_tokens")
    assert FULL.messages == MESSAGES


def test_structure_is_asked_for_in_five_ways():
    strict, unbounded, plain = (body(mode=mode)["response_format"] for mode in MODES[:3])
    assert strict["json_schema"]["schema"]["properties"]["parts"]["minItems"] == 1
    assert "minItems" not in json.dumps(unbounded)
    assert unbounded["json_schema"]["strict"] is True
    assert plain["json_schema"] == {
        "name": "Whole",
        "schema": {
            "type": "object",
            "properties": {
                "parts": {
                    "type": "array",
                    "description": "All.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "kind": {"type": "string", "enum": ["a", "b"]},
                        },
                        "required": ["name", "kind"],
                    },
                },
                "note": {"type": "string"},
            },
            "required": ["parts"],
        },
    }
    assert body(mode="json_object")["response_format"] == {"type": "json_object"}
    for mode in ("json_object", "text"):
        last = body(mode=mode)["messages"][-1]["content"]
        assert last.startswith("Naïve?\n\n")
        assert json.dumps(json_schema(Whole)) in last
    assert "response_format" not in body(mode="text")


def test_a_stream_is_asked_for_with_its_usage():
    streamed = body(stream=True)
    assert (streamed["stream"], streamed["stream_options"]) == (True, {"include_usage": True})


def test_further_fields_go_over_those_of_the_ask():
    sent = body(extra_body={"temperature": 1, "chat_template_kwargs": {"enable_thinking": False}})
    assert sent["temperature"] == 1
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_mode_set_by_hand_stays():
    dialect = Dialect("json_object")
    dialect.learn(Manner("text", frozenset(["seed"])))
    assert dialect.manner == Manner("json_object", frozenset(["seed"]))
    with pytest.raises(ValueError, match="RARE_STRUCTURED_OUTPUT is 'xml': give auto or one of json_schema"):  # fmt: skip
        Dialect("xml")


def test_what_was_taken_once_is_proven_for_what_has_no_more():
    dialect = Dialect()
    assert not dialect.is_proven(FULL)
    dialect.prove(FULL)
    assert dialect.is_proven(FULL)
    assert dialect.is_proven(Ask("k", MESSAGES[1:], temperature=1.0))
    assert not dialect.is_proven(Ask("k", MESSAGES, schema=Part))
    dialect.learn(Manner("json_object"))
    assert not dialect.is_proven(FULL)


def test_the_version_changes_with_the_manner_alone():
    dialect = Dialect()
    dialect.learn(Manner())
    assert dialect.version == 0
    dialect.learn(Manner("text"))
    assert dialect.version == 1
