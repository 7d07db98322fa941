"""Join a streamed answer into one response: some servers stream unasked, some do nothing else."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# JSON's texts may hold other marks that Python takes for line ends.
_LINE_END = re.compile(r"\r\n|\r|\n")
# Fields whose texts come once and not in pieces.
_WHOLE = frozenset(["role", "type", "id", "object", "model", "format", "signature"])


def is_stream(content: bytes) -> bool:
    """Return whether a body is a stream of server-sent events."""
    start = content.removeprefix(codecs.BOM_UTF8).lstrip()[:6]
    return start.startswith((b"data:", b"event:", b":", b"id:", b"retry:"))


def response_of_events(content: bytes) -> Any:
    r"""Return the chat completion that a stream of server-sent events makes.

    Raises:
        ValueError: the stream holds no answer, or broke off.

    Example:
        >>> chunks = b'data: {"choices": [{"delta": {"content": "It "}}]}\n\n'
        >>> chunks += b'data: {"choices": [{"delta": {"content": "melts."}}]}\n\ndata: [DONE]\n\n'
        >>> response_of_events(chunks)["choices"][0]["message"]
        {'content': 'It melts.'}
    """
    chunks: list[Any] = []
    done = False
    for event, data in _events(content.decode("utf-8-sig", "replace")):
        if data.strip() == "[DONE]":
            done = True
            break
        if event == "ping" or not data.strip():
            continue
        chunk = json.loads(data)
        if event == "error":
            return {"error": chunk}
        chunks.append(chunk)
    return _joined(chunks, done)


def response_of_lines(content: bytes) -> Any:
    """Return the chat completion that a stream of one JSON object a line makes; see `response_of_events`."""
    lines = _LINE_END.split(content.decode("utf-8", "replace"))
    return _joined([json.loads(line) for line in lines if line.strip()], done=False)


def _events(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each event, "" for one without, and its data."""
    event, data = "", list[str]()
    for line in [*_LINE_END.split(text), ""]:
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            event = value.strip()
        elif not line:
            if data:
                yield event, "\n".join(data)
            event, data = "", []


def _joined(chunks: list[Any], done: bool) -> Any:
    choice: dict[str, Any] = {}
    response: dict[str, Any] = {}
    for chunk in chunks:
        if not isinstance(chunk, Mapping):
            raise ValueError("a stream of something else than objects")
        if chunk.get("error"):
            return dict(chunk)
        for name in ("model", "usage"):
            if chunk.get(name):
                response[name] = chunk[name]
        choices = _choices(chunk)
        if choices is None:
            # Often an error in a form of its own: then no more than a reason to end makes the answer whole.
            done = False
            continue
        for part in choices[:1]:
            if part.get("error"):
                return {"error": part["error"]}
            said = part.get("delta") or part.get("message") or {"content": part.get("text")}
            choice["message"] = _merged(choice.get("message"), said)
            finish = part.get("finish_reason") or part.get("done_reason")
            choice["finish_reason"] = finish or choice.get("finish_reason")
    if "message" not in choice:
        raise ValueError("a stream without an answer")
    if not done and not choice.get("finish_reason"):
        raise ValueError("a stream that broke off")
    return {**response, "choices": [choice]}


def _choices(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return a chunk's choices, none where it counts tokens or is a sign of life; None if it is of another kind."""
    choices = chunk.get("choices")
    if isinstance(choices, list) and all(isinstance(part, Mapping) for part in choices):
        return choices
    # Ollama's own form.
    if isinstance(chunk.get("message"), Mapping):
        return [chunk]
    return [] if not chunk or chunk.get("usage") or chunk.get("type") == "ping" else None


def _merged(old: Any, new: Any, name: str = "") -> Any:
    if new is None or old is None:
        return old if new is None else new
    if isinstance(old, str) and isinstance(new, str):
        return new or old if name in _WHOLE else old + new
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {
            each: _merged(old.get(each), new.get(each), each)
            for each in dict.fromkeys([*old, *new])
        }
    if isinstance(old, list) or isinstance(new, list):
        return _merged_lists(_listed(old), _listed(new))
    return new


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [{"type": "text", "text": value}]


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    """Pieces of one part have its index; without one a piece goes on with the last of its kind."""
    parts = list(old)
    for piece in new:
        place = next((n for n, part in enumerate(parts) if _same(part, piece)), None)
        if place is None:
            parts.append(piece)
        else:
            parts[place] = _merged(parts[place], piece)
    return parts


def _same(part: Any, piece: Any) -> bool:
    if not (isinstance(part, Mapping) and isinstance(piece, Mapping)):
        return False
    both = (part.get("index"), part.get("type") or piece.get("type"))
    return both == (piece.get("index"), piece.get("type") or part.get("type"))
