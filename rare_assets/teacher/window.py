"""Read how many tokens a model takes at once from a refusal, or from the endpoint's list of models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d{3,7})"
_SAID = re.compile(
    rf"(?:maximum|max|supported|available|model'?s) (?:model )?(?:context|sequence|input)[_ ](?:length|size|window|len)[^\d]{{0,40}}{_NUMBER}"
    rf"|context[_ ](?:length|size|window|limit)[^\d]{{0,30}}{_NUMBER}"
    rf"|must be <=? ?{_NUMBER}|\"?n_ctx\"?\W{{1,4}}{_NUMBER}|> {_NUMBER} maximum|limit (?:of|is) {_NUMBER} tokens"
    rf"|supports? (?:at most|up to) {_NUMBER}[^.]{{0,20}}tokens",
    re.I,
)
_FIELDS = (
    *("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx"),
    *("max_input_tokens", "inputTokenLimit", "context_size", "max_sequence_length"),
)
_LEAST, _MOST = 256, 100_000_000


def window_in(text: str) -> int | None:
    """Return the window that a refusal tells, in tokens; None if it tells none.

    Example:
        >>> window_in("This model's maximum context length is 8,192 tokens. However, you requested 10,000")
        8192
    """
    match = _SAID.search(text)
    if match is None:
        return None
    number = next(group for group in match.groups() if group)
    return _plausible(int(number.replace(",", "")))


def window_of(models: Any, model: str) -> int | None:
    """Return the window of a model by its endpoint's list of models, in tokens; None if the list has none.

    Example:
        >>> window_of({"data": [{"id": "a-model", "max_model_len": 8192}]}, "a-model")
        8192
    """
    entries = models.get("data") if isinstance(models, Mapping) else models
    entries = [each for each in entries or [] if isinstance(each, Mapping)]
    named = [each for each in entries if model in (each.get("id"), each.get("name"))]
    for entry in named or (entries if len(entries) == 1 else []):
        parts = [entry, *(part for part in entry.values() if isinstance(part, Mapping))]
        found = _plausible(_first(parts))
        if found is not None:
            return found
    return None


def _first(parts: Iterable[Mapping[str, Any]]) -> int | None:
    for part in parts:
        for name in _FIELDS:
            value = part.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return int(value)
    return None


def _plausible(number: int | None) -> int | None:
    return number if number is not None and _LEAST <= number <= _MOST else None


def advice(window: int) -> str:
    """Return a sentence about what to do where prompts do not fit a window of so many tokens."""
    return (
        f"Set max_context_tokens of reasoning to {window} (the worst negatives are then left out, and "
        "named), ask for fewer negatives (num_neg) or shorter passages (RARE_PASSAGE_WORDS; for rows of "
        "data files RARE_SPLIT_ROWS, too), or raise the window of the server."
    )
