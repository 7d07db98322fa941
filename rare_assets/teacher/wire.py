"""Turn asks into keys and schemas, responses into answers, and answers into stored records and back.

Shared by every way of asking an OpenAI-compatible endpoint, so that an answer that one way brought is found
by the others.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rare_assets.teacher.interface import Answer, Ask
from rare_assets.teacher.reading import field_in, said_in
from rare_assets.teacher.streams import is_stream, response_of_events, response_of_lines
from rare_assets.teacher.tokens import Tokens, is_cut, tokens_of

_PUBLISHED = Path(__file__).with_name("published_schemas.json")
# Keywords that strict structured output refuses at some endpoints; the answer is validated anyway.
_BOUNDS = frozenset(
    [
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
    ]
)


def answer_key(model: str, ask: Ask, attempt: int) -> bytes:
    """Return the key that an answer is stored under: the SHA-256 of all that decides it, 32 bytes.

    That is the model, messages, sampling parameters, JSON schema, sample and attempt. The ask's own key, the
    endpoint, and how structured output is asked for do not count. Of the schema, the fields, their bounds
    and their descriptions count, but not the name and docstring of its class.
    """
    content = {
        "model": model,
        "messages": [dict(message) for message in ask.messages],
        "temperature": ask.temperature,
        "seed": ask.seed,
        "max_tokens": ask.max_tokens,
        "schema": None if ask.schema is None else _keyed_schema(ask.schema),
        "sample": ask.sample,
        "attempt": attempt,
    }
    return hashlib.sha256(_canonical(content).encode()).digest()


def sent_seed(ask: Ask, attempt: int) -> int | None:
    """Return the seed to send: the ask's own, or one derived from it for further samples and attempts.

    The same seed would bring the same unusable answer again. None if the ask has no seed.
    """
    if ask.seed is None or (ask.sample == 0 and attempt == 0):
        return ask.seed
    digest = hashlib.sha256(f"{ask.seed}/{ask.sample}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@cache
def _plain_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's JSON schema without titles and docstrings: what an endpoint needs to know."""
    schema = model.model_json_schema()
    _drop_names(schema)
    return schema


def _drop_names(schema: dict[str, Any]) -> None:
    # A description beside properties is a class's docstring; beside anything else, a field's own.
    for name in ("title", "description") if "properties" in schema else ("title",):
        schema.pop(name, None)
    for part in _inner(schema):
        _drop_names(part)


def _inner(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas that a schema is made of."""
    parts = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", ()),
        *schema.get("prefixItems", ()),
        schema.get("items"),
    ]
    return [part for part in parts if isinstance(part, dict)]


@cache
def _keyed_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema as keys hash it: as it was published where it was, so that answers stay found."""
    plain = _plain_schema(model)
    return _published_schemas().get(_canonical(plain), plain)


@cache
def _published_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas whose keys were once hashed with titles and docstrings, by their canonical plain form."""
    published = {}
    for schema in json.loads(_PUBLISHED.read_text()):
        plain = copy.deepcopy(schema)
        _drop_names(plain)
        published[_canonical(plain)] = schema
    return published


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


@cache
def json_schema(model: type[BaseModel], *, bounds: bool = True) -> dict[str, Any]:
    """Return the model's JSON schema as strict structured output wants it.

    Every object requires all its properties and allows no others.

    Args:
        model: of the answer.
        bounds: keep the keywords that limit lengths and values.
    """
    schema = copy.deepcopy(_plain_schema(model))
    _make_strict(schema, bounds)
    return schema


def _make_strict(schema: dict[str, Any], bounds: bool) -> None:
    schema.pop("default", None)
    if not bounds:
        for keyword in _BOUNDS & schema.keys():
            del schema[keyword]
    properties = schema.get("properties")
    if isinstance(properties, dict):
        schema["additionalProperties"] = False
        schema["required"] = list(properties)
    for part in _inner(schema):
        _make_strict(part, bounds)


def plain_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's JSON schema in the keywords that every server knows.

    These are types, properties, items, enums and descriptions; properties that may be null are not required.
    """
    schema = copy.deepcopy(_plain_schema(model))
    return _plain(schema, schema.get("$defs", {}))


_PLAIN = ("type", "description", "enum")


def _plain(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _plain(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if choices:
        described = {name: schema[name] for name in ("description",) if name in schema}
        return _plain(choices[0], definitions) | described
    plain = {name: schema[name] for name in _PLAIN if name in schema}
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    if "items" in schema:
        plain["items"] = _plain(schema["items"], definitions)
    if "properties" in schema:
        properties = schema["properties"]
        plain["properties"] = {name: _plain(each, definitions) for name, each in properties.items()}
        nullable = {
            name for name, each in properties.items() if {"type": "null"} in each.get("anyOf", ())
        }
        plain["required"] = [name for name in properties if name not in nullable]
    return plain


def read_answer(response: Any, *, attempt: int, latency_s: float, ask: Ask | None = None) -> Answer:
    """Return the answer in the JSON of a chat completion.

    Token counts that are missing, or can't be true, are estimated.

    Args:
        response: the response's JSON.
        attempt: number of the attempt, from 0.
        latency_s: seconds from the request to the response.
        ask: what was asked; None if that is not known any more.

    Raises:
        ValueError: it is no chat completion, or it holds an error.
    """
    if error_in(response) is not None:
        raise ValueError("an error in place of a chat completion")
    content, thinking, refusal, finish_reason = said_in(response)
    tokens = tokens_of(
        field_in(response, "usage", "usageMetadata"),
        (thinking or "") + content + (refusal or ""),
        ask,
    )
    if not finish_reason:
        # Some servers never say; an answer as long as was allowed was cut.
        full = (
            ask is not None and ask.max_tokens is not None and tokens.completion >= ask.max_tokens
        )
        finish_reason = "length" if full else "stop"
    return Answer(
        content=content,
        thinking=thinking,
        finish_reason=finish_reason,
        refusal=refusal,
        model=str(field_in(response, "model", "modelVersion") or ""),
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        attempt=attempt,
        latency_s=latency_s,
        reused=False,
        estimated=tokens.estimated,
        cut_prompt=_cut(tokens, ask),
    )


def wrote_tokens(response: Any) -> bool:
    """Return whether a response counts any tokens for its answer."""
    usage = field_in(response, "usage", "usageMetadata")
    tokens = tokens_of(usage, "", None)
    return isinstance(usage, Mapping) and tokens.completion > 0


def error_in(response: Any) -> Any:
    """Return the error in a response of status 200, at its top or in its first choice; None without one."""
    if not isinstance(response, Mapping):
        return None
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for part in (response, first):
        error = part.get("error") if isinstance(part, Mapping) else None
        if any(error.values()) if isinstance(error, Mapping) else error:
            return error
    return None


def parse_json(content: bytes) -> Any:
    """Return a response's JSON, or the response that a stream makes; numbers may have any length.

    Raises:
        ValueError: it is neither.
    """
    if is_stream(content):
        return response_of_events(content)
    try:
        return json.loads(content, parse_int=_integer)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return response_of_lines(content)


def _integer(digits: str) -> int | float:
    # Python refuses to read integers of thousands of digits.
    return int(digits) if len(digits) < 30 else float(digits)


def answer_to_record(answer: Answer, *, answered_at: float) -> dict[str, Any]:
    """Return the answer as it is stored; `answered_at` is its Unix time."""
    return {
        "content": answer.content,
        "thinking": answer.thinking,
        "finish_reason": answer.finish_reason,
        "refusal": answer.refusal,
        "model": answer.model,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "attempt": answer.attempt,
        "latency_s": answer.latency_s,
        "answered_at": answered_at,
        **({"estimated": True} if answer.estimated else {}),
    }


def answer_from_record(record: Mapping[str, Any], ask: Ask | None = None) -> Answer:
    """Return the stored answer to `ask`, marked as reused.

    Token counts that can't be true, as earlier versions stored them, are estimated.

    Raises:
        KeyError: the record lacks a field.
    """
    fields = {name: record[name] for name in _STORED}
    text = "".join(fields[name] or "" for name in ("thinking", "content", "refusal"))
    tokens = tokens_of(fields, text, ask)
    return Answer(
        **fields | {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion},
        reused=True,
        estimated=tokens.estimated or bool(record.get("estimated")),
        cut_prompt=not record.get("estimated") and _cut(tokens, ask),
    )


def _cut(tokens: Tokens, ask: Ask | None) -> bool:
    if ask is None or tokens.estimated:
        return False
    return is_cut(tokens.prompt, "\n".join(message["content"] for message in ask.messages))


_STORED = (
    "content",
    "thinking",
    "finish_reason",
    "refusal",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "attempt",
    "latency_s",
)
