"""Classify failed requests: what a failure means for the request, for the rate, for the whole endpoint."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from rare_assets.teacher import wire
from rare_assets.teacher.pacing import parse_retry_after
from rare_assets.text.encodings import without_halves
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    import openai


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
    """Why a request brought no answer.

    Attributes:
        kind: what to do after it.
        reason: a snake_case word, as `rate_limited`.
        text: what the endpoint said, without the API key.
        status: HTTP status; None if there was none.
        retry_after: seconds that the endpoint asks to wait; None if it does not.
    """

    kind: Kind
    reason: str
    text: str
    status: int | None = None
    retry_after: float | None = None

    @property
    def may_be_of_the_answer(self) -> bool:
        """True if the endpoint may have refused what the model wrote, so that another attempt is worth its price.

        Some servers judge an answer themselves and send a status in its place.
        """
        return self.reason == "refused_by_endpoint" and self.status in (400, 422, 424)

    @property
    def overload(self) -> bool:
        """True if fewer requests at once might have helped."""
        return self.kind in (Kind.THROTTLED, Kind.UNREACHABLE) or self.reason == "timeout"

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.status else self.text


class BadEnvironment(Exception):
    """A variable of this process' environment lets no connection be made; the message names it."""


# What says that an account has nothing left, where no wait is asked for: waiting mends rates alone.
# Codes of OpenAI, Moonshot, DashScope, Zhipu; then sentences in the languages they come in.
_QUOTA = re.compile(
    r"insufficient[ _-]?(quota|balance|credit|fund)|billing|exceeded[_ ](your[_ ])?current[_ ]quota|arrear|payment[ _]required"
    r"|(credit|balance|quota)s?[ _](is |are |has been |have been )?(too low|exhausted|depleted|used up|exceeded|insufficient)"
    r"|(out of|no|not enough|insufficient|run out of) (\w+ )?(credit|balance|quota|fund)|\b(free tier|trial) (is )?(over|expired|ended)"
    r"|余额不足|餘額不足|欠费|欠費|充值|额度(不足|已|用)|額度(不足|已|用)|配额(不足|已|用)|配額(不足|已|用)|账户余额|套餐.{0,6}(到期|用完|不足)"
    r"|残高(が)?不足|クレジット.{0,8}(不足|使い|残)|利用(枠|上限).{0,12}(超|達|使い)|支払い|잔액|크레딧.{0,6}(부족|소진)|할당량.{0,6}(초과|소진)"
    r"|guthaben|kontingent.{0,30}(ersch[öo]pft|aufgebraucht|[üu]berschritten|verbraucht)|zahlung"
    r"|solde (est )?(insuffisant|[ée]puis)|cr[ée]dits? (insuffisant|[ée]puis)|quota.{0,30}(d[ée]pass|[ée]puis|atteint)"
    r"|saldo (insuficiente|agotado|esgotado)|cr[ée]ditos? (insuficiente|agotad|esgotad)|cuota.{0,30}(agotad|excedid|superad)|cota.{0,20}(excedid|esgotad)"
    r"|credito (insufficiente|esaurito)|недостаточно средств|баланс|квота.{0,20}(исчерпан|превышен)",
    re.I,
)
# A quota that a wait of seconds does not bring back.
_LONG_QUOTA = re.compile(r"per[ _]?(day|month)|daily|monthly|insufficient_quota", re.I)
_LONG_WAIT_S = 3600.0
# Some call a rate a quota, and say nothing of how long to wait.
_RATE = re.compile(
    r"(per|/)[ _]?(s|sec|second|m|min|minute)s?\b|per[ _]?base[ _]?model|\b[RT]PM\b", re.I
)
_LINK = re.compile(r"https?://\S+")
_TOO_LONG = re.compile(
    r"context[_ ](length|size|window)|maximum context|request too large|"
    r"exceeds? the available context|(prompt|input|message)s? (is|are) too (long|large)|"
    r"reduce the length",
    re.I,
)
# Said of a rate, too.
_MANY_TOKENS = re.compile(r"too many (input )?tokens", re.I)
# Where it can't be said of a rate.
_TOO_MANY_TOKENS = re.compile(r"\btokens?\b.{0,60}\b(exceed|must be <=?)", re.I | re.S)
_FILTERED = re.compile(r"content[_ ](filter|policy)|moderation|flagged|safety system", re.I)


def fault_of(error: Exception, redact: Callable[[str], str]) -> Fault:
    """Classify an exception of the openai client, or of reading its response.

    Args:
        error: the exception.
        redact: takes the API key out of a text.
    """
    import openai

    if isinstance(error, BadEnvironment):
        return Fault(Kind.FATAL, "environment", str(error))
    if isinstance(error, openai.APIStatusError):
        text = _said(error.body, redact) or redact(error.message)
        if 300 <= error.status_code < 400:
            return _moved(error, redact)
        wait = _asked_wait(error.response.headers, error.body)
        return status_fault(error.status_code, text, wait)
    if isinstance(error, TimeoutError):
        return Fault(Kind.TRANSIENT, "timeout", "no answer within the request timeout")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        name = type(cause).__name__ if cause else type(error).__name__
        text = redact(f"{name}: {cause}" if cause and str(cause) else f"{error.message} ({name})")
        if name in ("ConnectError", "ConnectTimeout", "ProxyError"):
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
    """Classify an HTTP error.

    Args:
        status: of the response.
        text: what the endpoint said, without the API key.
        retry_after: seconds that it asks to wait.

    Example:
        >>> status_fault(429, "Rate limit reached").kind.name
        'THROTTLED'
        >>> status_fault(429, "You exceeded your current quota").reason
        'quota'
    """

    def fault(kind: Kind, reason: str) -> Fault:
        return Fault(kind, reason, text, status, retry_after)

    if status in (401, 407):
        return fault(Kind.FATAL, "unauthorized")
    if status == 402 or (status == 429 and _is_quota(text, retry_after)):
        return fault(Kind.FATAL, "quota")
    too_long = _TOO_LONG.search(text) or (status != 429 and _MANY_TOKENS.search(text))
    if status in (413, 414) or (too_long and status not in (503, 529)):
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


def _is_quota(text: str, retry_after: float | None) -> bool:
    if retry_after is None:
        # What a link is called says nothing.
        said = _LINK.sub("", text)
        of_a_rate = _RATE.search(said) and not _LONG_QUOTA.search(said)
        return not of_a_rate and _QUOTA.search(said) is not None
    # Gemini says "exceeded your current quota" of a rate per minute, too, and how long to wait.
    return _LONG_QUOTA.search(text) is not None and (
        retry_after > _LONG_WAIT_S or _QUOTA.search(text) is not None
    )


def _asked_wait(headers: Mapping[str, str], body: object) -> float | None:
    """Return the seconds that an error asks to wait, in its headers or its body; None if it does not."""
    milliseconds = headers.get("retry-after-ms")
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(wait := float(milliseconds or "") / 1000):
            return max(0.0, wait)
    asked = parse_retry_after(headers.get("retry-after"), now=time.time())
    return _wait_in(body) if asked is None else asked


_DELAYS = {"retryDelay": 1.0, "retry_delay": 1.0, "retry_after": 1.0, "retry_after_seconds": 1.0, "retry_after_ms": 0.001}  # fmt: skip
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRY_AGAIN = re.compile(
    r"(?:try again|retry) in ((?:\d+(?:\.\d+)?\s*(?:ms|s|m|h)[a-z]*\s*)+)", re.I
)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")


def _wait_in(body: object) -> float | None:
    """Return the seconds that an error's body asks to wait, as Google's retryDelay or Groq's sentence does."""
    if isinstance(body, str):
        match = _TRY_AGAIN.search(body)
        if match is None:
            return None
        return sum(float(value) * _UNITS[unit] for value, unit in _PIECE.findall(match[1]))
    if isinstance(body, Mapping):
        for name, unit in _DELAYS.items():
            given = body.get(name)
            if isinstance(given, Mapping):  # protobuf's seconds and nanos
                given = given.get("seconds")
            match = _DURATION.fullmatch(str(given)) if given is not None else None
            if match is not None:
                return float(match[1]) * (_UNITS[match[2]] if match[2] else unit)
        body = list(body.values())
    if isinstance(body, list):
        return next((wait for part in body if (wait := _wait_in(part)) is not None), None)
    return None


def _moved(error: openai.APIStatusError, redact: Callable[[str], str]) -> Fault:
    """Return the fault of a redirect to another host, which gets neither key nor prompt."""
    target = shown(urljoin(str(error.request.url), error.response.headers.get("location", "")))
    text = redact(f"it redirects to {target.removesuffix('/chat/completions')}")
    return Fault(Kind.FATAL, "moved", text, error.status_code)


def response_fault(status: int, body: Any, redact: Callable[[str], str]) -> Fault:
    """Classify an HTTP error by its status and body."""
    return status_fault(status, _said(body, redact), _wait_in(body))


def body_fault(body: Any, redact: Callable[[str], str]) -> Fault:
    """Classify a response of status 200 that is no chat completion, or holds an error.

    Some proxies send the status of the endpoint behind them as the `code` of the error in the body.
    """
    error = wire.error_in(body)
    if error is None:
        text = _said(body, redact)
        return Fault(Kind.TRANSIENT, "unreadable", f"not a chat completion: {text}", 200)
    text = _said(error, redact)
    for name in ("code", "status", "status_code"):
        code = str(error.get(name)) if isinstance(error, Mapping) else ""
        if re.fullmatch(r"[45]\d\d", code):
            return status_fault(int(code), text, _wait_in(error))
    return Fault(Kind.TRANSIENT, "server_error", f"an error in place of an answer: {text}", 200)


def _said(body: object, redact: Callable[[str], str]) -> str:
    """Return message, code and parameter of an error body as one short text."""
    marks: list[str] = []
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        if isinstance(inner, Mapping):
            marks = [str(inner[name]) for name in ("code", "type", "param") if inner.get(name)]
            # What a model wrote that was no use; and Google's name of a quota.
            for name in ("failed_generation", "details"):
                if inner.get(name):
                    marks.append(f"{name}: {json.dumps(inner[name], ensure_ascii=False)}"[:400])
            body = inner.get("message") or inner.get("detail") or dict(inner)
        else:
            body = inner
    text = body if isinstance(body, str) else json.dumps(body) if body else ""
    # Redacted before it is cut: half a key would not be recognized.
    text = redact(text).strip()[:600]
    said = f"{text} ({redact(', '.join(marks))})" if marks else text
    return without_halves(said)
