"""Read prose that came as a JSON object of a chain of thought and an answer."""

from __future__ import annotations

import json
import re
from typing import Any

from rare_assets.teacher.reading import Parts, trimmed

_CHAIN_NAMES = (
    "reasoning",
    "thinking",
    "thought",
    "thoughts",
    "analysis",
    "explanation",
    "rationale",
)
_ANSWER_NAMES = ("answer", "final_answer", "final", "response")
_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.S | re.I)


def prose(parts: Parts) -> Parts:
    """Return chain and text of an answer that was to be prose and came as a JSON object of both.

    Example:
        >>> prose(Parts("", '{"reasoning": "Salt lowers it.", "answer": "It melts."}'))
        Parts(chain='Salt lowers it.', text='It melts.', unclosed=False)
    """
    fenced = _FENCED.fullmatch(parts.text)
    text = fenced[1] if fenced else parts.text
    if parts.chain or not text.startswith("{"):
        return parts
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return parts
    values = {name.lower(): value for name, value in found.items()}
    chains = (values.get(name) for name in _CHAIN_NAMES)
    chain = next((each for each in chains if each and isinstance(each, str)), None)
    answer = next(filter(None, (_text(values.get(name)) for name in _ANSWER_NAMES)), None)
    return parts if chain is None or answer is None else Parts(trimmed(chain), trimmed(answer))


def _text(value: Any) -> str:
    """Return a text, or a number or truth value as one; anything else says nothing."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return value if isinstance(value, str) else ""
