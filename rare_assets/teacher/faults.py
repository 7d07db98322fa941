"""What a failed request means: for this request, for the pace, for the whole endpoint."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rare_assets.teacher import wire
from rare_assets.teacher.pacing import parse_retry_after


class Kind(Enum):
    """What to do after a fault."""

    THROTTLED = "send it later, and fewer at once"
    TRANSIENT = "send it again later: a number of times if others are answered, else for some time"
    UNREACHABLE = "send it again later, until the endpoint counts as dead"
    ADAPTED = "send it again now, without what the endpoint does not support"
    REFUSED = "this request never gets better, the others go on as long as any is answered"
    FATAL = "no request gets better, unless others are answered"


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that brought no answer. `text` is what the endpoint said, free of the API key."""

    kind: Kind
    reason: str
    text: str
    status: int | None = None
    retry_after: float | None = None

    @property
    def overload(self) -> bool:
        """Whether fewer requests at once could have helped."""
        return self.kind in (Kind.THROTTLED, Kind.UNREACHABLE) or self.reason == "timeout"

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.status else self.text


_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|insufficient[ _]balance", re.I)
_TOO_LONG = re.compile(
    r"context[_ ](length|size|window)|maximum context|too many (input )?tokens|request too large|"
    r"exceeds? the available context|(prompt|input|message)s? (is|are) too (long|large)|"
    r"reduce the length",
    re.I,
)
# Where it can't be said of a rate.
_TOO_MANY_TOKENS = re.compile(r"\btokens?\b.{0,60}\b(exceed|must be <=?)", re.I | re.S)
_FILTERED = re.compile(r"content[_ ](filter|policy)|moderation|flagged|safety system", re.I)


def fault_of(error: Exception, redact: Callable[[str], str]) -> Fault:
    """Classify an exception of the openai client (or of reading its response)."""
    import openai

    if isinstance(error, openai.APIStatusError):
        text = _said(error.body, redact) or redact(error.message)
        now = time.time()
        headers = error.response.headers
        retry_after = parse_retry_after(headers.get("retry-after"), now=now)
        return status_fault(error.status_code, text, retry_after)
    if isinstance(error, TimeoutError):
        return Fault(Kind.TRANSIENT, "timeout", "no answer within the request timeout")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        name = type(cause).__name__ if cause else type(error).__name__
        text = redact(f"{name}: {cause}" if cause and str(cause) else f"{error.message} ({name})")
        if name in ("ConnectError", "ConnectTimeout"):
            return Fault(Kind.UNREACHABLE, "unreachable", text)
        if name in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "TooManyRedirects"):
            return Fault(Kind.FATAL, "bad_request", text)
        if isinstance(error, openai.APITimeoutError):
            return Fault(Kind.TRANSIENT, "timeout", "no answer within the request timeout")
        return Fault(Kind.TRANSIENT, "connection", text)
    if isinstance(error, UnicodeEncodeError):
        return Fault(Kind.REFUSED, "not_sendable", redact(f"text is not valid Unicode: {error}"))
    if isinstance(error, json.JSONDecodeError):
        start = redact(error.doc)[:100]
        return Fault(Kind.TRANSIENT, "unreadable", f"the response is not JSON: {start!r}")
    return Fault(Kind.TRANSIENT, "unreadable", redact(f"{type(error).__name__}: {error}"))


def status_fault(status: int, text: str, retry_after: float | None = None) -> Fault:
    """Classify an HTTP error by its status and what the endpoint said."""

    def fault(kind: Kind, reason: str) -> Fault:
        return Fault(kind, reason, text, status, retry_after)

    if status in (401, 407):
        return fault(Kind.FATAL, "unauthorized")
    if status == 402 or (status == 429 and _QUOTA.search(text)):
        return fault(Kind.FATAL, "quota")
    too_long = _TOO_LONG.search(text) and status not in (503, 529)
    if status in (413, 414) or too_long:
        return fault(Kind.REFUSED, "context_length")
    if status in (429, 503, 529):
        return fault(Kind.THROTTLED, "rate_limited")
    if status >= 500 or status in (408, 409, 425):
        return fault(Kind.TRANSIENT, "server_error")
    if _TOO_MANY_TOKENS.search(text):
        return fault(Kind.REFUSED, "context_length")
    if _FILTERED.search(text):
        return fault(Kind.REFUSED, "content_filter")
    return fault(Kind.REFUSED, "not_found" if status == 404 else "refused_by_endpoint")


def response_fault(status: int, body: Any, redact: Callable[[str], str]) -> Fault:
    """Classify an HTTP error by its status and body."""
    return status_fault(status, _said(body, redact))


def body_fault(body: Any, redact: Callable[[str], str]) -> Fault:
    """Classify a response of status 200 that isn't a chat completion, or says that it is an error.

    Some proxies send the status of the endpoint behind them as `code` of the error in the body.
    """
    error = wire.error_in(body)
    if error is None:
        text = _said(body, redact)
        return Fault(Kind.TRANSIENT, "unreadable", f"not a chat completion: {text}", 200)
    text = _said(error, redact)
    for name in ("code", "status", "status_code"):
        code = str(error.get(name)) if isinstance(error, Mapping) else ""
        if re.fullmatch(r"[45]\d\d", code):
            return status_fault(int(code), text)
    return Fault(Kind.TRANSIENT, "server_error", f"an error in place of an answer: {text}", 200)


def _said(body: object, redact: Callable[[str], str]) -> str:
    """Message, code and parameter of an error body, as one short text."""
    marks: list[str] = []
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        if isinstance(inner, Mapping):
            marks = [str(inner[name]) for name in ("code", "type", "param") if inner.get(name)]
            body = inner.get("message") or inner.get("detail") or dict(inner)
        else:
            body = inner
    text = body if isinstance(body, str) else json.dumps(body) if body else ""
    # Redacted before it is cut: half a key would not be recognized.
    text = redact(text).strip()[:600]
    return f"{text} ({redact(', '.join(marks))})" if marks else text
