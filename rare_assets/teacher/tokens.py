"""Count the tokens of a request and its answer: as the endpoint counts them if that can be true, else estimated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rare_assets.teacher.interface import Ask

# No model at hand reads or writes more at once; what claims more is no count.
MOST_TOKENS = 2_000_000
# Below half of four bytes a token, a prompt of some length can't have been read whole.
_CUT_BELOW = 0.5
# Of shorter prompts tokens tell nothing.
CUT_FROM = 500
_RUN = re.compile(r"(\W)\1+")


class Tokens(NamedTuple):
    """Token counts of one answer; `estimated` if the endpoint did not give both, or not credibly."""

    prompt: int
    completion: int
    estimated: bool


def text_tokens(text: str) -> int:
    """Return the tokens of a text by a rule of thumb: four bytes of UTF-8 each.

    Example:
        >>> text_tokens("ice melts"), text_tokens("冰会融化")
        (3, 3)
    """
    return -(-_size(text) // 4)


def estimated_prompt_tokens(ask: Ask) -> int:
    """Return the prompt tokens of an ask by the rule of thumb of `text_tokens`."""
    return sum(_size(message["content"]) for message in ask.messages) // 4 + 1


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_of(usage: Any, text: str, ask: Ask | None) -> Tokens:
    """Return the token counts of a response, whichever server's names they have.

    Reasoning tokens that a server leaves out of the completion are added to it.

    Args:
        usage: the part of the response that counts tokens; None without.
        text: all that was answered; completion tokens that are missing or can't be true are estimated
            from it.
        ask: what was asked; prompt tokens that are missing or can't be true are estimated from it.

    Example:
        >>> tokens_of({"input_tokens": 7, "output_tokens": 2}, "It melts.", None)
        Tokens(prompt=7, completion=2, estimated=False)
    """
    usage = usage if isinstance(usage, Mapping) else {}
    most_of_prompt = MOST_TOKENS
    if ask is not None:
        most_of_prompt = min(most_of_prompt, 32 * estimated_prompt_tokens(ask) + 100_000)
    prompt = _first_count(usage, _PROMPT, most_of_prompt)
    completion = _first_count(usage, _COMPLETION, MOST_TOKENS)
    if prompt is not None and completion is not None:
        prompt, completion = _with_what_is_left_out(usage, prompt, completion)
    # No prompt is empty, and no text is written in no token.
    known_prompt = prompt is not None and prompt > 0
    known_completion = completion is not None and (completion > 0 or not text)
    guessed_prompt = 0 if ask is None else estimated_prompt_tokens(ask)
    return Tokens(
        prompt if prompt is not None and known_prompt else guessed_prompt,
        completion if completion is not None and known_completion else text_tokens(text),
        not (known_prompt and known_completion),
    )


_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count")
_COMPLETION = (
    *("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens"),
    "eval_count",
)
_TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount", "thinking_tokens")
_DETAILS = ("completion_tokens_details", "output_tokens_details")
# Anthropic's input_tokens are those beside what its cache held or took in.
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")


def _with_what_is_left_out(
    usage: Mapping[str, Any], prompt: int, completion: int
) -> tuple[int, int]:
    if not _first_count(usage, ("prompt_tokens",), MOST_TOKENS):
        prompt += sum(_first_count(usage, (name,), MOST_TOKENS) or 0 for name in _CACHED)
    parts = [usage, *(usage[name] for name in _DETAILS if isinstance(usage.get(name), Mapping))]
    reasoning = max(_first_count(part, _REASONING, MOST_TOKENS) or 0 for part in parts)
    total = _first_count(usage, _TOTAL, MOST_TOKENS) or 0
    if reasoning > completion or (reasoning and total == prompt + completion + reasoning):
        completion += reasoning
    elif not reasoning and prompt and total > prompt + completion:
        completion = total - prompt
    return prompt, completion


def _first_count(usage: Mapping[str, Any], names: tuple[str, ...], most: int) -> int | None:
    counts = (count_of(usage[name], most) for name in names if usage.get(name))
    return next((count for count in counts if count is not None), 0 if _says(usage, names) else None)  # fmt: skip


def _says(usage: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return any(usage.get(name) == 0 and usage.get(name) is not False for name in names)


def count_of(value: Any, most: int) -> int | None:
    """Return a count of tokens as an integer; None if it is no number within 0 and `most`."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return int(value)


def is_cut(said: int, prompt: str) -> bool:
    """Return whether a server that counted `said` tokens can't have read the whole prompt.

    Example:
        >>> is_cut(2_048, "Salt melts ice. " * 2_500)
        True
    """
    tokens = text_tokens(prompt)
    if tokens < CUT_FROM or said >= _CUT_BELOW * tokens:
        return False
    # Runs of blanks and rules take few tokens.
    return said < _CUT_BELOW * text_tokens(_RUN.sub(r"\1", prompt))
