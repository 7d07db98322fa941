"""What single servers and gateways do otherwise than OpenAI, as they document it or people report it.

`REFUSALS` say no to a part of a request, each in its own words; `SHAPES` put an answer elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

# Status and body of a refusal; None to go on.
Refusal = Callable[[dict[str, Any]], "tuple[int, Any] | None"]


def _form(body: Mapping[str, Any]) -> str:
    return (body.get("response_format") or {}).get("type", "")


def _has(body: Mapping[str, Any], word: str) -> bool:
    return f'"{word}"' in json.dumps(body.get("response_format"))


def _gemini(body: dict[str, Any]) -> tuple[int, Any] | None:
    if not _has(body, "additionalProperties"):
        return None
    message = (
        'Invalid JSON payload received. Unknown name "additionalProperties" at '
        "'generation_config.response_schema': Cannot find field."
    )
    return 400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}]


def _system(body: dict[str, Any]) -> tuple[int, Any] | None:
    if all(message["role"] != "system" for message in body["messages"]):
        return None
    return 400, {"error": {"message": "Developer instruction is not enabled for models/gemma-3"}}


def _one_temperature(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body.get("temperature") in (None, 1, 1.0):
        return None
    message = "invalid temperature: only 1 is allowed for this model"
    return 400, {"error": {"message": message, "type": "invalid_request_error"}}


def _stream_only(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body.get("stream"):
        return None
    return 400, {"code": "InvalidParameter", "message": "This model only support stream mode"}


def _any(name: str, status: int, said: Any) -> Refusal:
    """Refuses whatever has a field."""
    return lambda body: (status, said) if name in body else None


def _forms(forms: tuple[str, ...], status: int, said: Any) -> Refusal:
    """Refuses these ways to ask for structure."""
    return lambda body: (status, said) if _form(body) in forms else None


def _keyword(word: str, status: int, said: Any) -> Refusal:
    return lambda body: (status, said) if _has(body, word) else None


_BOTH = ("json_schema", "json_object")
REFUSALS: dict[str, Refusal] = {
    "gemini": _gemini,
    "opaque": _any("response_format", 400, {}),
    "opaque-text": _any("response_format", 400, "Bad Request"),
    "fails": _any("response_format", 500, {"error": {"message": "Internal Server Error"}}),
    "not-implemented": _any("response_format", 501, {"detail": "Not Implemented"}),
    "overloaded": _any("response_format", 503, {"error": {"message": "Service Unavailable", "type": "unavailable"}}),
    "overloaded-529": _forms(("json_schema",), 529, {"type": "error", "error": {"type": "overloaded_error"}}),
    "gateway": _any("temperature", 502, "<html><h1>502 Bad Gateway</h1></html>"),
    "openrouter": _any("response_format", 404, {"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}}),
    "openrouter-200": _any("response_format", 200, {"error": {"message": "Provider returned error", "code": 400}}),
    "groq": _forms(("json_schema",), 400, {"error": {"message": "This model does not support response format `json_schema`."}}),
    "deepseek": _forms(("json_schema",), 422, {"error": {"message": "This response_format type is unavailable now"}}),
    "lm-studio": _forms(("json_object",), 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
    "bedrock": _any("response_format", 400, {"message": "Malformed input request: #: extraneous key [response_format] is not permitted"}),
    "vllm": _keyword("maxLength", 400, {"object": "error", "message": "Grammar error: unimplemented keys", "code": 400}),
    "max-length": _keyword("maxLength", 400, {"error": {"message": "'maxLength' is not supported"}}),
    "cerebras": _keyword("minLength", 422, {"message": "Unsupported JSON schema fields", "code": "wrong_api_format"}),
    "strict": _keyword("strict", 400, {"detail": [{"loc": ["body", "response_format", "json_schema", "strict"], "msg": "Extra inputs"}]}),
    "dashscope-json": _forms(_BOTH, 400, {"error": {"message": "Json mode response is not supported when enable_thinking is true"}}),
    "gemma": _system,
    "kimi": _one_temperature,
    "thinking": lambda body: (400, {"error": {"message": "`temperature` may only be set to 1 when thinking is enabled"}}) if body.get("temperature", 1) != 1 else None,
    "mistral": _any("seed", 422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}}),
    "gpt-5": _any("max_tokens", 400, {"error": {"message": "Unsupported parameter", "param": "max_tokens"}}),
    "no-limit": lambda body: (400, "no") if {"max_tokens", "max_completion_tokens"} & body.keys() else None,
    "small-window": lambda body: (400, {"error": {"message": "This model's maximum context length is 400 tokens, max_tokens is 500"}}) if (body.get("max_tokens") or body.get("max_completion_tokens") or 0) > 400 else None,
    "not-in-plan": _forms(_BOTH, 403, {"error": {"message": "Structured outputs are not part of your plan"}}),
    "moderated": _forms(_BOTH, 400, {"error": {"message": "flagged by content policy: response_format"}}),
    "dashscope-stream": _stream_only,
}  # fmt: skip


def _harmony(chain: str, content: str) -> dict[str, Any]:
    text = f"<|channel|>analysis<|message|>{chain}<|end|><|start|>assistant<|channel|>final<|message|>{content}<|return|>"
    return {"content": text}


# A message for a chain and a content.
Shape = Callable[[str, str], dict[str, Any]]
SHAPES: dict[str, Shape] = {
    "mistral": lambda chain, content: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": chain}]}, {"type": "text", "text": content}]},
    "magistral": lambda chain, content: {"content": f"[THINK]{chain}[/THINK]{content}"},
    "anthropic": lambda chain, content: {"content": [{"type": "thinking", "thinking": chain, "signature": "x"}, {"type": "text", "text": content}]},
    "openrouter": lambda chain, content: {"content": content, "reasoning_details": [{"type": "reasoning.text", "text": chain}]},
    "gemini": lambda chain, content: {"content": {"parts": [{"text": chain, "thought": True}, {"text": content}]}},
    "cohere": lambda chain, content: {"content": f"<|START_THINKING|>{chain}<|END_THINKING|><|START_RESPONSE|>{content}<|END_RESPONSE|>"},
    "gpt-oss": _harmony,
    "granite": lambda chain, content: {"content": f"Here is my thought process:\n{chain}\nHere is my response:\n{content}"},
    "template-head": lambda chain, content: {"content": f"{chain}\n</think>\n\n{content}"},
    "tokens-left": lambda chain, content: {"content": f"<think>{chain}</think>{content}<|im_end|>"},
    "all-in-chain": lambda chain, content: {"content": None, "reasoning_content": f"{chain}\n</think>\n{content}"},
}  # fmt: skip
# For structured answers alone.
STRUCTURED_SHAPES: dict[str, Shape] = {
    "misplaced": lambda chain, content: {"content": None, "reasoning_content": content},
    "tool-call": lambda chain, content: {"content": None, "tool_calls": [{"type": "function", "function": {"name": "json", "arguments": content}}]},
    "tool-use": lambda chain, content: {"content": [{"type": "tool_use", "name": "json", "input": json.loads(content)}]},
    "object": lambda chain, content: {"content": json.loads(content)},
}  # fmt: skip


def streamed(completion: dict[str, Any], *, done: bool = True) -> bytes:
    """A completion as server-sent events of some characters each, with a comment before them."""
    choice = completion["choices"][0]
    events: list[Any] = []

    def event(delta: dict[str, Any], **more: Any) -> None:
        part = {"index": 0, "delta": delta, **more}
        events.append({"model": completion["model"], "choices": [part]})

    event({"role": "assistant", "content": ""})
    for name, value in choice["message"].items():
        if not isinstance(value, str) or name == "role":
            continue
        for start in range(0, len(value), 7):
            event({name: value[start : start + 7]})
    if done:
        event({}, finish_reason=choice["finish_reason"])
        events.append({"choices": [], "usage": completion.get("usage")})
    lines = [f"data: {json.dumps(each)}\n\n" for each in events]
    return (": processing\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()
