"""Read a structured answer out of whatever text a model wrapped it in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rare_assets.teacher.degenerate import is_degenerate
from rare_assets.teacher.finish import unfinished
from rare_assets.teacher.interface import Answer, Unusable
from rare_assets.teacher.reading import part, part_text
from rare_assets.text.latex import restored, with_escaped_backslashes

M = TypeVar("M", bound=BaseModel)

# Control characters inside strings are tolerated: small models write raw line breaks there.
_DECODER = json.JSONDecoder(strict=False)
_MAX_OBJECTS = 1_000
# Where a tool call that was written as text has its arguments, which some models encode once more.
_ARGUMENTS = ("arguments", "parameters", "input", "args")
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
# A string without an end goes to that of the text, and is looked through once: not again from each quote in it.
_STRING_OR_TRAILING_COMMA = re.compile(
    rf'"(?:[^"\\]|\\.)*(?:"|(?P<unclosed>\\?\Z))|{_TRAILING_COMMA.pattern}', re.DOTALL
)


def structured_value(answer: Answer, model: type[M]) -> M:
    """Return the answer as a `model`.

    A JSON object that a server sent as the chain of thought, with nothing after it, counts as well.

    Raises:
        Unusable: `refused`, `content_filter`, `empty` or `cut` for what the answer says about
            itself; `not_json`, `schema_mismatch` or `degenerate` for its text.
    """
    if answer.refusal:
        raise Unusable("refused", answer.refusal)
    stopped = unfinished(answer)
    chain, text, _ = part(answer)
    misplaced = not answer.content.strip() and "{" in chain + text
    if not answer.content.strip() and not misplaced:
        raise stopped or Unusable("empty", "the answer has no content")
    try:
        # An object that is whole and fits was not cut, whatever came after it.
        return _last(chain, model) if misplaced and not text else _first(text, model)
    except Unusable as unusable:
        if stopped is not None:
            raise Unusable(stopped.reason, f"{stopped.detail}: {unusable.detail}") from None
        if misplaced and unusable.reason == "not_json":
            raise Unusable("empty", "the answer has no content") from None
        raise


def parse_structured(text: str, model: type[M]) -> M:
    """Return the first JSON object in `text` that is a valid `model`.

    Tolerates a chain of thought before it, Markdown fences, text around it, an object wrapped in another,
    raw line breaks in strings, commas before a closing bracket, LaTeX with single backslashes, and an object
    that was encoded twice.

    Raises:
        Unusable: `not_json` if no object could be read, `schema_mismatch` if none fits `model`,
            `degenerate` if the text only repeats itself.

    Example:
        >>> from pydantic import create_model
        >>> parse_structured('Here it is: {"n": 3,}', create_model("Count", n=(int, ...))).n
        3
    """
    return _first(part_text(text).text, model)


def _first(text: str, model: type[M]) -> M:
    return _found(_objects_in(text), text, model)


def _last(text: str, model: type[M]) -> M:
    return _found(reversed(list(_objects_in(text))), text, model)


def _found(objects: Iterable[dict[str, Any]], text: str, model: type[M]) -> M:
    mismatch: ValidationError | None = None
    for found in objects:
        try:
            value = model.model_validate(_restored(found))
        except ValidationError as error:
            mismatch = mismatch or error
            continue
        if is_degenerate(text):
            raise Unusable("degenerate", "the answer says the same again and again")
        return value
    if mismatch is None:
        raise Unusable("not_json", "no JSON object in the answer")
    problems = "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'object'}: {error['msg']}"
        for error in mismatch.errors(include_url=False, include_input=False)[:5]
    )
    raise Unusable("schema_mismatch", problems)


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Return the objects in a text as it stands, then in the text with slips mended."""
    escaped = with_escaped_backslashes(text)
    repaired = _STRING_OR_TRAILING_COMMA.sub(_without_comma, escaped)
    for candidate in dict.fromkeys((text, escaped, repaired)):
        yield from _objects(candidate)
    if isinstance(encoded := _decoded(text.strip()), str):
        yield from _objects(encoded)


def _without_comma(match: re.Match[str]) -> str:
    if match["unclosed"] is not None:
        return _TRAILING_COMMA.sub("", match[0])
    return "" if match[0] == "," else match[0]


def _restored(value: Any) -> Any:
    """Return the same with the LaTeX that JSON's escapes had eaten, and no control characters."""
    if isinstance(value, str):
        return restored(value)
    if isinstance(value, list):
        return [_restored(each) for each in value]
    if isinstance(value, dict):
        return {_restored(name): _restored(each) for name, each in value.items()}
    return value


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
            arguments = map(_decoded, filter(None, map(found.get, _ARGUMENTS)))
            yield from (each for each in arguments if isinstance(each, dict))
        position = text.find("{", position + 1)


def _decoded(text: Any) -> Any:
    """Return what a text encodes; None if it is no JSON text of an object or of a string."""
    if not isinstance(text, str) or not text.startswith(('"', "{")):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
