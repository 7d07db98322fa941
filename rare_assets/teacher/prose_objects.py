"""Read prose that came as a JSON object of a chain of thought and an answer."""

from __future__ import annotations

import json

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


def prose(parts: Parts) -> Parts:
    """Return chain and text of an answer that was to be prose and came as a JSON object of both.

    Example:
        >>> prose(Parts("", '{"reasoning": "Salt lowers it.", "answer": "It melts."}'))
        Parts(chain='Salt lowers it.', text='It melts.', unclosed=False)
    """
    if parts.chain or not parts.text.startswith("{"):
        return parts
    try:
        found = json.loads(parts.text, strict=False)
    except (ValueError, RecursionError):
        return parts
    texts = {str(name).lower(): value for name, value in found.items() if isinstance(value, str)}
    chain = next((texts[name] for name in _CHAIN_NAMES if texts.get(name)), None)
    answer = next((texts[name] for name in _ANSWER_NAMES if texts.get(name)), None)
    return parts if chain is None or answer is None else Parts(trimmed(chain), trimmed(answer))
