"""Reading a structured answer out of whatever text a model wrapped it in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rare_assets.teacher.finish import unfinished
from rare_assets.teacher.interface import Answer, Unusable

M = TypeVar("M", bound=BaseModel)

# Control characters inside strings are tolerated: small models write raw line breaks there.
_DECODER = json.JSONDecoder(strict=False)
_MAX_OBJECTS = 1_000
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)


def structured_value(answer: Answer, model: type[M]) -> M:
    """The answer as a `model`.

    Raises:
        Unusable: `refused`, `content_filter`, `empty` or `cut` for what the answer says about
            itself; `not_json` or `schema_mismatch` for its text.
    """
    if answer.refusal:
        raise Unusable("refused", answer.refusal)
    stopped = unfinished(answer)
    if not answer.content.strip():
        raise stopped or Unusable("empty", "the answer has no content")
    try:
        # An object that is whole and fits was not cut, whatever came after it.
        return parse_structured(answer.content, model)
    except Unusable as unusable:
        if stopped is not None:
            raise Unusable(stopped.reason, f"{stopped.detail}: {unusable.detail}") from None
        raise


def parse_structured(text: str, model: type[M]) -> M:
    """The first JSON object in `text` that is a valid `model`.

    Tolerates a chain of thought in think tags before it, Markdown fences, text around it, an
    object wrapped in another, raw line breaks in strings and commas before a closing bracket.

    Raises:
        Unusable: `not_json` if no object could be read, `schema_mismatch` if none fits `model`.
    """
    text = _without_thinking(text)
    mismatch: ValidationError | None = None
    repaired = _STRING_OR_TRAILING_COMMA.sub(lambda m: "" if m[0] == "," else m[0], text)
    for candidate in dict.fromkeys((text, repaired)):
        for found in _objects(candidate):
            try:
                return model.model_validate(found)
            except ValidationError as error:
                mismatch = mismatch or error
    if mismatch is None:
        raise Unusable("not_json", "no JSON object in the answer")
    problems = "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'object'}: {error['msg']}"
        for error in mismatch.errors(include_url=False, include_input=False)[:5]
    )
    raise Unusable("schema_mismatch", problems)


def _without_thinking(text: str) -> str:
    _, closed, after = text.rpartition("</think>")
    if closed:
        return after
    # Opened and never closed: all of it is the chain.
    return "" if text.lstrip().startswith("<think>") else text


def _objects(text: str) -> Iterator[dict[str, Any]]:
    position = text.find("{")
    for _ in range(_MAX_OBJECTS):
        if position < 0:
            return
        try:
            found, _end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            pass
        else:
            yield found
        position = text.find("{", position + 1)
