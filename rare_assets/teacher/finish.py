"""Tell whole answers from cut ones, by the word that an endpoint gives for why the model stopped."""

from __future__ import annotations

import re

from rare_assets.teacher.interface import Answer, Unusable

# What endpoints say of an answer that came to its own end. Only what is listed here is whole: every
# other word (length, max_tokens, error, abort, safety, ...) is some way of having been stopped.
WHOLE = frozenset(
    [
        # OpenAI and most servers that follow it; with tools, the call is the answer
        *("stop", "tool_calls", "function_call"),
        # Anthropic, Bedrock, Cohere
        *("end_turn", "stop_sequence", "tool_use", "tool_call", "complete", "completed"),
        # TGI, Together, watsonx, llama.cpp, LM Studio, MLX
        *("eos", "eos_token", "eos_found", "stop_string", "stop_string_found", "word"),
        # AI21, Titan, Ernie and others
        *("endoftext", "end_of_text", "end", "finish", "finished", "done", "normal"),
    ]
)
_PREFIX = re.compile(r"^(finish|stop)_?reasons?_(?=.)")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WITHHELD = re.compile(
    r"filter|safety|moderat|polic|blocklist|block|prohibit|recitation|spii|sensitive|toxic|refus",
    re.I,
)


def is_whole(finish_reason: str) -> bool:
    """Return whether an answer with this finish reason came to its own end, however it is written.

    Example:
        >>> [is_whole(word) for word in ("stop", "FinishReason.STOP", "eosFound", "length")]
        [True, True, True, False]
    """
    words = re.sub(r"[^a-z]+", "_", _HUMP.sub("_", finish_reason.strip()).lower()).strip("_")
    return words in WHOLE or _PREFIX.sub("", words) in WHOLE


def unfinished(answer: Answer) -> Unusable | None:
    """Return why an answer did not come to its own end, `content_filter` or `cut`; None for a whole one."""
    word = answer.finish_reason
    if is_whole(word):
        return None
    if _WITHHELD.search(word):
        return Unusable(
            "content_filter", f"the endpoint filtered the answer (finish_reason {word})"
        )
    return Unusable("cut", f"the answer is not whole (finish_reason {word})")
