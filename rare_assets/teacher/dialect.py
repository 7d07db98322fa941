"""Word requests for an endpoint: which parts it takes, and which are left out for it.

Nothing is learnt from the words of a refusal: `negotiation` tries, and sets here what worked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from rare_assets.teacher.interface import Ask
from rare_assets.teacher.wire import json_schema, plain_schema, sent_seed

# How an answer's structure is asked for, best first. `unbounded` leaves out limits of lengths and
# values, `plain` also all that only strict schemas have; `json_object` and `text` tell the schema in
# the prompt.
MODES = ("json_schema", "json_schema_unbounded", "json_schema_plain", "json_object", "text")
# Parts of a request that an endpoint may not take, in the order in which they are tried.
PARTS = ("system", "temperature", "seed", "max_tokens")
COMPLETION_TOKENS = "max_completion_tokens"


@dataclass(frozen=True)
class Manner:
    """One way to word requests.

    Args:
        mode: how structured output is asked for, one of MODES.
        without: those of PARTS that are not sent as they are. The system message then goes before the
            user's, and `max_tokens` is sent as `max_completion_tokens`, unless that is in here as well.
        stream: ask for a stream.
    """

    mode: str = MODES[0]
    without: frozenset[str] = frozenset()
    stream: bool = False

    def __str__(self) -> str:
        left_out = [name for name in (*PARTS, COMPLETION_TOKENS) if name in self.without]
        words = [self.mode, *(f"no {name}" for name in left_out)]
        return ", ".join([*words, "streamed"] if self.stream else words)

    def parts_of(self, ask: Ask) -> frozenset[str]:
        """Return the names of the parts of a request for this ask that an endpoint may refuse."""
        parts = {"stream"} if self.stream else set()
        if ask.schema is not None:
            parts.add(f"{self.mode} {_hash(ask.schema)}")
        values = {"temperature": ask.temperature, "seed": ask.seed, "max_tokens": ask.max_tokens}
        parts.update(name for name, value in values.items() if value is not None)
        if any(message["role"] == "system" for message in ask.messages):
            parts.add("system")
        if "max_tokens" in parts & self.without and COMPLETION_TOKENS not in self.without:
            parts.add(COMPLETION_TOKENS)
        return frozenset(parts - self.without)


def _hash(schema: type[BaseModel]) -> str:
    return hashlib.sha256(json.dumps(json_schema(schema), sort_keys=True).encode()).hexdigest()[:16]


class Dialect:
    """The manner in which requests to an endpoint are worded, shared by all of them.

    Args:
        mode: how structured output is asked for, one of MODES, never changed; None to find it out.
        extra_body: fields of every request; they replace those of the ask.

    Raises:
        ValueError: `mode` is none of MODES.
    """

    def __init__(
        self, mode: str | None = None, extra_body: Mapping[str, Any] | None = None
    ) -> None:
        if mode is not None and mode not in MODES:
            raise ValueError(
                f"RARE_STRUCTURED_OUTPUT is {mode!r}: give auto or one of {', '.join(MODES)}."
            )
        self.fixed_mode = mode
        self.manner = Manner(mode=mode or MODES[0])
        # Changes with the manner, so that a refusal of an older one says nothing of this one.
        self.version = 0
        # What was tried in vain, for people.
        self.tried = ""
        self._extra = dict(extra_body or {})
        self._proven: set[str] = set()

    def learn(self, manner: Manner) -> None:
        """Word requests in another manner from now on."""
        if self.fixed_mode is not None:
            manner = replace(manner, mode=self.fixed_mode)
        if manner != self.manner:
            self.manner = manner
            self.version += 1

    def prove(self, ask: Ask, manner: Manner | None = None) -> None:
        """Note that the endpoint took a request for this ask; `manner` is the present one by default."""
        self._proven |= (manner or self.manner).parts_of(ask)

    def is_proven(self, ask: Ask) -> bool:
        """Return whether the endpoint has taken all parts of a request for this ask before.

        A refusal is then due to the ask itself, not to how it is worded.
        """
        return self.manner.parts_of(ask) <= self._proven

    def body(
        self, model: str, ask: Ask, attempt: int, manner: Manner | None = None
    ) -> dict[str, Any]:
        """Return the JSON body of the request for one attempt at an ask.

        Args:
            model: the model's name at the endpoint.
            ask: what is asked.
            attempt: its number, from 0; decides the seed.
            manner: how to word it; default, the present one.
        """
        manner = manner or self.manner
        messages = [dict(message) for message in ask.messages]
        if "system" in manner.without:
            messages = _without_system(messages)
        body: dict[str, Any] = {"model": model, "messages": messages}
        if ask.schema is not None:
            _ask_for_structure(body, ask.schema, manner.mode)
        optional = {
            "temperature": ask.temperature,
            "seed": sent_seed(ask, attempt),
            "max_tokens": ask.max_tokens,
        }
        if "max_tokens" in manner.without:
            optional[COMPLETION_TOKENS] = optional.pop("max_tokens")
        sent = optional.keys() - manner.without
        body |= {name: optional[name] for name in sent if optional[name] is not None}
        if manner.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body | self._extra


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the messages with what the system says before what the user says."""
    said = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if said and others:
        others[0] = {**others[0], "content": "\n\n".join([*said, others[0]["content"]])}
    return others or messages


def _ask_for_structure(body: dict[str, Any], schema: type[BaseModel], mode: str) -> None:
    if mode == "json_schema_plain":
        form = {"name": schema.__name__, "schema": plain_schema(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
        return
    if mode.startswith("json_schema"):
        bounds = mode == "json_schema"
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": schema.__name__ if bounds else f"{schema.__name__}_unbounded",
                "strict": True,
                "schema": json_schema(schema, bounds=bounds),
            },
        }
        return
    if mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    last = body["messages"][-1]
    last["content"] += (
        "\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"
        + json.dumps(json_schema(schema))
    )
