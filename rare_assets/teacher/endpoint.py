"""One OpenAI-compatible endpoint: what may be sent to it when, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from rare_assets.teacher import wire
from rare_assets.teacher.brake import Brake
from rare_assets.teacher.faults import Fault, Kind, body_fault, fault_of
from rare_assets.teacher.health import Health, Patience
from rare_assets.teacher.interface import Answer, Ask, Usage
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.pacing import AdaptiveLimit, Pace
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.tokens import estimated_prompt_tokens
from rare_assets.text.shown_url import is_clear, shown, without_secrets

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
# A client's pool looks at all its connections for every request; several small pools are cheaper.
_LANE_WIDTH = 32
_LATENCIES_KEPT = 10_000
_GUESSED_COMPLETION_TOKENS = 256
# Rounding leaves less than this of reservations given back.
_NO_MONEY = 1e-9
_LOOK_AGAIN_S = 0.5
# The whole of a request that says nothing but that an endpoint answers.
_SHORT = ({"role": "user", "content": "What is a lake? Answer in one sentence."},)
# More parts of a request than an endpoint can refuse one after the other.
_ADAPTATIONS = 8


@dataclass(slots=True, eq=False)
class Slot:
    """A place among the requests in flight, taken at a time of `time.monotonic`, with what the
    request is expected to use."""

    ticket: int
    tokens: float
    cost: float
    taken_at: float = field(default_factory=time.monotonic)
    taken: bool = True


@dataclass(slots=True, eq=False)
class _Lane:
    """A client with its connections, and the requests that it has in flight."""

    client: openai.AsyncOpenAI
    in_flight: int = 0


class Endpoint:
    """Sends requests and keeps the books: limits, pace, adaptation, usage.

    Args:
        halt: called with one message for people when no request may or can be sent any more.
        batch: requests are collected into batches, at the price of those.
        ledger: where what the limits and rates hold for is counted; default, this endpoint's own
            requests.

    The others are those of `OpenAITeacher`.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None,
        api_key: SecretStr | None,
        max_concurrency: int,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        request_timeout: float,
        max_cost_usd: float | None,
        max_requests: int | None,
        prices: Prices,
        patience: Patience,
        halt: Callable[[str], None],
        max_unusable_answers: int = 0,
        batch: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.model = model
        self._batch = batch
        self._base_url = base_url or OPENAI_URL
        _require_address(self._base_url)
        self._key = api_key.get_secret_value().strip() if api_key else ""
        if not self._key and base_url is None:
            raise ValueError("OpenAI's own endpoint needs a key: set OPENAI_API_KEY.")
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("The API key has characters that no HTTP header can carry.")
        known = prices.price(model) is not None
        if max_cost_usd is not None and not known:
            raise ValueError(
                f"max_cost_usd is set, but the price of model {model} is unknown: "
                "give it in a price file (RARE_PRICES)."
            )
        self._prices = prices
        self._patience = patience
        self._halt = halt
        self._max_concurrency = max_concurrency
        self._request_timeout = request_timeout
        self._max_cost_usd = max_cost_usd
        self._max_requests = max_requests
        self._books = ledger or Ledger()
        # Without a limit nothing has to be entered.
        limited = max_requests is not None or max_cost_usd is not None
        self._ledger = self._books if limited else None
        self._limit = AdaptiveLimit(max_concurrency)
        self._requests = self._pace(requests_per_minute, "requests")
        self._tokens = self._pace(tokens_per_minute, "tokens")
        self.dialect = wire.Dialect()
        self._lanes: list[_Lane] = []
        self._rng = random.Random()
        self._paused_until = 0.0
        self._answered = 0
        self.health = Health(
            name=str(self),
            patience=patience,
            request_timeout=request_timeout,
            halt=halt,
            short_request=self._short_request,
            in_flight=lambda: self._limit.in_flight,
        )
        self.brake = Brake(
            self._books, max_unusable_answers, halt=halt, name=str(self), redact=self.redact
        )
        # Answers that came and are not on durable storage yet: they keep their places.
        self.unstored = 0
        self.usage = Usage(cost_usd=0.0 if known else None, reused_cost_usd=0.0 if known else None)

    def _pace(self, per_minute: int | None, unit: str) -> Pace | None:
        if per_minute is None:
            return None
        return Pace(per_minute, time.time, self._books, f"{unit} a minute of {self}")

    def __str__(self) -> str:
        return self.redact(f"the endpoint {shown(self._base_url)} (model {self.model})")

    @property
    def limit(self) -> int:
        """Requests allowed in flight at present."""
        return self._limit.limit

    async def aclose(self) -> None:
        """Close the connections."""
        while self._lanes:
            await self._lanes.pop().client.close()
        self._books.close()

    # ---- before a request

    def wait(self, ask: Ask) -> float | None:
        """Seconds until this ask may be sent: 0.0 now, None not before something in flight ends."""
        if not self._limit.may_start(self.unstored):
            return None
        if self.health.in_doubt and self._limit.in_flight:
            return None
        if self.brake.holds():
            return None
        if self._ledger is not None and (wait := self._wait_for_money(self._ledger, ask)) != 0.0:
            return wait
        delay = self._paused_until - time.monotonic()
        for pace in (self._requests, self._tokens):
            if pace is not None:
                delay = max(delay, pace.delay())
        return max(0.0, delay)

    def _wait_for_money(self, ledger: Ledger, ask: Ask) -> float | None:
        """As `wait`, for what the limits on requests and cost leave."""
        spent = ledger.spent()
        kept = "Everything answered is kept; the next run goes on from there."
        if self._max_requests is not None and spent.requests >= self._max_requests:
            self._halt(
                f"The limit of {self._max_requests} requests (max_requests) to {self} is reached. "
                f"{kept}"
            )
            return None
        if self._max_cost_usd is None:
            return 0.0
        if spent.cost_usd >= self._max_cost_usd:
            self._halt(
                f"The limit of ${self._max_cost_usd:g} (max_cost_usd) at {self} is reached: new "
                f"answers cost ${spent.cost_usd:.6g}. {kept}"
            )
            return None
        expected = self._expected_cost(ask)
        if spent.cost_usd + spent.reserved_usd + expected <= self._max_cost_usd:
            return 0.0
        if self._limit.in_flight:
            return None
        if ledger.shared and spent.reserved_usd > _NO_MONEY:
            return _LOOK_AGAIN_S  # another step's answers may cost less than expected
        if not self._batch:
            return 0.0  # one may show that answers cost less than expected
        self._halt(
            f"The limit of ${self._max_cost_usd:g} (max_cost_usd) at {self} leaves no room: new "
            f"answers cost ${spent.cost_usd:.6g} so far, the next is expected to cost "
            f"${expected:.6g}. {kept}"
        )
        return None

    def take(self, ask: Ask) -> Slot:
        """Take a place for a request that `wait` allowed; `send` or `free` gives it back."""
        completion = self._expected_completion(ask)
        slot = Slot(
            ticket=self._limit.start(),
            tokens=estimated_prompt_tokens(ask) + (ask.max_tokens or completion),
            cost=self._expected_cost(ask),
        )
        self.usage.requests += 1
        if self._ledger is not None:
            self._ledger.add(requests=1, reserved_usd=slot.cost)
        if self._requests is not None:
            self._requests.take()
        if self._tokens is not None:
            self._tokens.take(slot.tokens)
        return slot

    def free(self, slot: Slot) -> None:
        """Give a place back whose request was cancelled; does nothing if it was answered."""
        if slot.taken:
            self._give_back(slot)
            self._limit.abandon()

    def _give_back(self, slot: Slot) -> None:
        slot.taken = False
        if self._ledger is not None:
            self._ledger.add(reserved_usd=-slot.cost)

    def _expected_completion(self, ask: Ask) -> float:
        if self._answered:
            return self.usage.completion_tokens / self._answered
        return ask.max_tokens or _GUESSED_COMPLETION_TOKENS

    def _expected_cost(self, ask: Ask) -> float:
        prompt = estimated_prompt_tokens(ask)
        return self._cost(prompt, self._expected_completion(ask)) or 0.0

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        return self._prices.cost(self.model, prompt_tokens, completion_tokens, batch=self._batch)

    # ---- a request

    async def send(
        self, slot: Slot, ask: Ask, attempt: int, *, within: float | None = None
    ) -> Answer | Fault:
        """Send one request. An answer returned has been counted in `usage`."""
        body = self.dialect.body(self.model, ask, attempt)
        result = await self._request(body, ask, attempt, within or self._request_timeout)
        self._give_back(slot)
        overload = isinstance(result, Fault) and result.overload
        if self._limit.finish(slot.ticket, throttled=overload):
            self._slow_down(result)
        if isinstance(result, Answer):
            self.count(result)
            self._correct(result.prompt_tokens + result.completion_tokens - slot.tokens)
            return result
        self._correct(-slot.tokens)
        if result.kind is Kind.THROTTLED:
            self.usage.rate_limited += 1
        if self.dialect.adapt(body, result.status, result.text):
            logger.info("%s does not support all that was sent, adapting: %s", self, result)
            return replace(result, kind=Kind.ADAPTED)
        return result

    async def _short_request(self, ask: Ask) -> Answer | Fault | None:
        """Send a short and harmless request with the options of `ask`, to see whether the endpoint
        answers anything; None where a limit allows no more requests."""
        short = replace(ask, key="", messages=_SHORT, sample=0)
        patience = min(self._request_timeout, self._patience.dead_after)
        result: Answer | Fault | None = None
        for _ in range(_ADAPTATIONS):
            if self._ledger is not None and self._wait_for_money(self._ledger, short) != 0.0:
                return None
            slot = self.take(short)
            try:
                result = await self.send(slot, short, 0, within=patience)
            finally:
                self.free(slot)
            if isinstance(result, Answer) or result.kind is not Kind.ADAPTED:
                break
        return result

    async def _request(
        self, body: dict[str, Any], ask: Ask, attempt: int, within: float
    ) -> Answer | Fault:
        started = time.monotonic()
        lane = self._lane()
        lane.in_flight += 1
        try:
            async with asyncio.timeout(within):
                content = await lane.client.post("/chat/completions", cast_to=bytes, body=body)
            response = wire.parse_json(content)
        except Exception as error:
            return fault_of(error, self.redact)
        finally:
            lane.in_flight -= 1
        latency = round(time.monotonic() - started, 3)
        try:
            answer = wire.read_answer(response, attempt=attempt, latency_s=latency, ask=ask)
        except ValueError:
            return body_fault(response, self.redact)
        return answer if answer.model else replace(answer, model=self.model)

    def _lane(self) -> _Lane:
        """A client with room for one more request."""
        for lane in self._lanes:
            if lane.in_flight < _LANE_WIDTH:
                return lane
        import openai

        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=_LANE_WIDTH,
            max_keepalive_connections=_LANE_WIDTH,
            keepalive_expiry=30.0,
        )
        timeout = openai.Timeout(self._request_timeout, connect=min(10.0, self._request_timeout))
        client = openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
        )
        self._lanes.append(_Lane(client))
        return self._lanes[-1]

    @property
    def client(self) -> openai.AsyncOpenAI:
        """A client for what is not a chat completion; it tries nothing twice."""
        return self._lane().client

    def redact(self, text: str) -> str:
        """A text without the API key and what is secret in the URL."""
        text = without_secrets(text, self._base_url)
        return text.replace(self._key, "[API key]") if self._key else text

    def _slow_down(self, result: Answer | Fault) -> None:
        logger.info("%s throttles: %d requests in flight from now on", self, self.limit)
        if isinstance(result, Fault) and self._is_bearable(result.retry_after):
            # It refuses many, so the wait it asks for concerns all of them.
            self._paused_until = time.monotonic() + (result.retry_after or 0.0)

    def _is_bearable(self, wait: float | None) -> bool:
        return wait is not None and wait <= self._patience.stalled_after

    def _correct(self, difference: float) -> None:
        if self._tokens is not None:
            self._tokens.correct(difference)

    def count(self, answer: Answer) -> None:
        """Count a new answer."""
        usage = self.usage
        self._answered += 1
        usage.retries += answer.attempt > 0
        usage.estimated += answer.estimated
        usage.prompt_tokens += answer.prompt_tokens
        usage.completion_tokens += answer.completion_tokens
        cost = self._cost(answer.prompt_tokens, answer.completion_tokens)
        if usage.cost_usd is not None and cost is not None:
            usage.cost_usd += cost
            if self._ledger is not None:
                self._ledger.add(cost_usd=cost)
        usage.answered += 1
        if len(usage.latencies_s) < _LATENCIES_KEPT:
            usage.latencies_s.append(answer.latency_s)
        else:  # reservoir sampling: every answer so far has the same chance to be in the sample
            place = self._rng.randrange(self._answered)
            if place < _LATENCIES_KEPT:
                usage.latencies_s[place] = answer.latency_s
        self.health.answered()

    def count_reused(self, answer: Answer) -> None:
        """Count an answer that came from storage."""
        self.health.went_on()
        usage = self.usage
        usage.answers_reused += 1
        usage.reused_prompt_tokens += answer.prompt_tokens
        usage.reused_completion_tokens += answer.completion_tokens
        cost = self._cost(answer.prompt_tokens, answer.completion_tokens)
        if usage.reused_cost_usd is not None and cost is not None:
            usage.reused_cost_usd += cost

    def waiting(self) -> str | None:
        """What is waited for, for people, once nothing has come for a while; else None."""
        now = time.monotonic()
        silent = now - self.health.moved_at
        if silent < self._patience.silent_after:
            return None
        fault, in_flight = self.health.last_fault, self._limit.in_flight
        paces = [pace.delay() for pace in (self._requests, self._tokens) if pace is not None]
        if fault is not None:
            until = self._patience.dead_after
            if fault.kind is Kind.THROTTLED:
                until = self._patience.stalled_after
            asked = (
                "" if fault.retry_after is None else f" It asks to wait {fault.retry_after:g} s."
            )
            return (
                f"{self} has answered nothing for {silent:.0f} s, the last fault was: {fault}."
                f"{asked} It is tried again, until {until:g} s are over."
            )
        if not in_flight and paces and max(paces) > 0.0:
            return (
                f"The rate per minute of {self} is used up: the next request is sent in "
                f"{max(paces):.0f} s (RARE_REQUESTS_PER_MINUTE, RARE_TOKENS_PER_MINUTE)."
            )
        if self._batch:
            return f"{self} works on {in_flight} requests in batches, which may take a day."
        return (
            f"{self} has answered nothing for {silent:.0f} s: {in_flight} requests are in flight, "
            f"each may take {self._request_timeout:g} s (RARE_REQUEST_TIMEOUT)."
        )


def _require_address(url: str) -> None:
    """Raise ValueError for what is no URL of an endpoint, without repeating it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and is_clear(url)
        parts.port  # noqa: B018 (raises where it is no number)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"OPENAI_BASE_URL is {shown(url)!r}: give http(s)://host/v1, with the key in OPENAI_API_KEY. "
            "In a password that stands in it, write /, ?, # and @ as %2F, %3F, %23 and %40."
        )
