"""One OpenAI-compatible endpoint: what may be sent to it when, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from rare_assets.resources.teacher import wire
from rare_assets.resources.teacher.faults import Fault, Kind, body_fault, fault_of
from rare_assets.resources.teacher.interface import Answer, Ask, Usage
from rare_assets.resources.teacher.ledger import Ledger
from rare_assets.resources.teacher.pacing import AdaptiveLimit, Pace, full_jitter
from rare_assets.resources.teacher.pricing import Prices

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
# Of the first requests, so many refused in a row mean that something is wrong with all.
REFUSED_IN_A_ROW = 10
# So many asks in a row given up after all their tries mean that the endpoint is broken.
GIVEN_UP_IN_A_ROW = 10
# A client's pool looks at all its connections for every request; several small pools are cheaper.
_LANE_WIDTH = 32
_LATENCIES_KEPT = 10_000
_GUESSED_COMPLETION_TOKENS = 256
# Rounding leaves less than this of reservations given back.
_NO_MONEY = 1e-9
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long faults of the transport are put up with, in seconds and tries.

    `dead_after`: without any connection, until the endpoint counts as dead. `stalled_after`: of
    nothing but throttling, until it does. `tries`: requests for one answer before its ask is given
    up. `backoff` and `backoff_cap`: base and longest wait of the back-off.
    """

    dead_after: float = 60.0
    stalled_after: float = 600.0
    tries: int = 6
    backoff: float = 0.5
    backoff_cap: float = 30.0


@dataclass(slots=True)
class Tries:
    """The faults that one attempt at an ask has met so far."""

    failed: int = 0
    unreachable: int = 0
    throttled: int = 0
    throttled_since: float | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """A place among the requests in flight, with what the request is expected to use."""

    ticket: int
    tokens: float
    cost: float
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
        batch: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.model = model
        self._batch = batch
        self._base_url = base_url or OPENAI_URL
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
        self._refused_in_a_row = 0
        self._given_up_in_a_row = 0
        self._unreachable_since: float | None = None
        self._throttled_since: float | None = None
        # Answers that came and are not on durable storage yet: they keep their places.
        self.unstored = 0
        self.usage = Usage(cost_usd=0.0 if known else None, reused_cost_usd=0.0 if known else None)

    def _pace(self, per_minute: int | None, unit: str) -> Pace | None:
        if per_minute is None:
            return None
        return Pace(per_minute, time.time, self._books, f"{unit} a minute of {self}")

    def __str__(self) -> str:
        parts = urlsplit(self._base_url)
        host = parts.netloc.rpartition("@")[2]  # without user and password
        url = urlunsplit((parts.scheme, host, parts.path, "", ""))
        return self.redact(f"the endpoint {url} (model {self.model})")

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
            tokens=wire.estimated_prompt_tokens(ask) + (ask.max_tokens or completion),
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
        prompt = wire.estimated_prompt_tokens(ask)
        return self._cost(prompt, self._expected_completion(ask)) or 0.0

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        return self._prices.cost(self.model, prompt_tokens, completion_tokens, batch=self._batch)

    # ---- a request

    async def send(self, slot: Slot, ask: Ask, attempt: int) -> Answer | Fault:
        """Send one request. An answer returned has been counted in `usage`."""
        body = self.dialect.body(self.model, ask, attempt)
        result = await self._request(body, ask, attempt)
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

    async def _request(self, body: dict[str, Any], ask: Ask, attempt: int) -> Answer | Fault:
        started = time.monotonic()
        lane = self._lane()
        lane.in_flight += 1
        try:
            async with asyncio.timeout(self._request_timeout):
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
        """A text without the API key."""
        return text.replace(self._key, "[API key]") if self._key else text

    def _slow_down(self, result: Answer | Fault) -> None:
        logger.info("%s throttles: %d requests in flight from now on", self, self.limit)
        if isinstance(result, Fault) and result.retry_after:
            # It refuses many, so the wait it asks for concerns all of them.
            self._paused_until = time.monotonic() + result.retry_after

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
        if len(usage.latencies_s) < _LATENCIES_KEPT:
            usage.latencies_s.append(answer.latency_s)
        else:  # reservoir sampling: every answer so far has the same chance to be in the sample
            place = self._rng.randrange(self._answered)
            if place < _LATENCIES_KEPT:
                usage.latencies_s[place] = answer.latency_s
        self._refused_in_a_row = self._given_up_in_a_row = 0
        self.reached()

    def count_reused(self, answer: Answer) -> None:
        """Count an answer that came from storage."""
        usage = self.usage
        usage.answers_reused += 1
        usage.reused_prompt_tokens += answer.prompt_tokens
        usage.reused_completion_tokens += answer.completion_tokens
        cost = self._cost(answer.prompt_tokens, answer.completion_tokens)
        if usage.reused_cost_usd is not None and cost is not None:
            usage.reused_cost_usd += cost

    def reached(self) -> None:
        """The endpoint did what it was asked, so whatever was wrong with it is over."""
        self._unreachable_since = self._throttled_since = None

    # ---- after a fault

    def after(self, fault: Fault, tries: Tries) -> float | str:
        """Seconds until the request is sent again, or the reason why it never is."""
        now = time.monotonic()
        if fault.kind is not Kind.UNREACHABLE:
            self._unreachable_since = None
        match fault.kind:
            case Kind.ADAPTED:
                return 0.0
            case Kind.FATAL:
                self._halt(f"{self} refuses to work: {fault}. {_remedy(fault)}")
                return "endpoint_error"
            case Kind.REFUSED:
                return self._after_refusal(fault)
            case Kind.UNREACHABLE:
                return self._after_no_connection(fault, tries, now)
            case Kind.THROTTLED:
                return self._after_throttling(fault, tries, now)
            case Kind.TRANSIENT:
                return self._after_failure(fault, tries)

    def _after_refusal(self, fault: Fault) -> str:
        self._refused_in_a_row += 1
        if self._answered == 0 and fault.status in (404, 405):
            self._halt(f"{self} does not answer chat completions: {fault}. {_remedy(fault)}")
        elif self._answered == 0 and self._refused_in_a_row >= REFUSED_IN_A_ROW:
            self._halt(
                f"{self} refused each of the first {self._refused_in_a_row} requests, the last "
                f"with: {fault}. Check RARE_MODEL, OPENAI_BASE_URL and the options of the run."
            )
        return fault.reason

    def _after_no_connection(self, fault: Fault, tries: Tries, now: float) -> float:
        patience = self._patience.dead_after
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since >= patience:
            self._halt(
                f"{self} has not been reachable for {patience:g} s: {fault}. "
                "Check OPENAI_BASE_URL, and that the server runs."
            )
        tries.unreachable += 1
        return self._backoff(tries.unreachable, cap=patience / 4)

    def _after_throttling(self, fault: Fault, tries: Tries, now: float) -> float | str:
        patience = self._patience.stalled_after
        tries.throttled += 1
        tries.throttled_since = tries.throttled_since or now
        self._throttled_since = self._throttled_since or now
        wait = fault.retry_after or 0.0
        if wait > patience or now - self._throttled_since >= patience:
            asked = f" and asks to wait {wait:g} s" if wait else ""
            self._halt(
                f"{self} throttles every request{asked}: {fault}. Lower RARE_MAX_CONCURRENCY, set "
                "RARE_REQUESTS_PER_MINUTE or RARE_TOKENS_PER_MINUTE, or run again later."
            )
        if now - tries.throttled_since >= patience:
            return "rate_limited"
        if fault.retry_after is None:
            return self._backoff(tries.throttled)
        # Never earlier than asked; spread out, since others were asked the same.
        return wait + self._rng.uniform(0.0, max(self._patience.backoff, 0.1 * wait))

    def _after_failure(self, fault: Fault, tries: Tries) -> float | str:
        tries.failed += 1
        if tries.failed < self._patience.tries:
            return self._backoff(tries.failed)
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= GIVEN_UP_IN_A_ROW:
            self._halt(
                f"{self} failed {self._given_up_in_a_row} asks in a row, {tries.failed} requests "
                f"each, the last with: {fault}. Check the server and OPENAI_BASE_URL."
            )
        return "endpoint_error"

    def _backoff(self, tries: int, *, cap: float = float("inf")) -> float:
        cap = min(cap, self._patience.backoff_cap)
        return full_jitter(tries, base=self._patience.backoff, cap=cap, rng=self._rng)


def _remedy(fault: Fault) -> str:
    return {
        "unauthorized": "It does not accept the API key: check OPENAI_API_KEY and its rights.",
        "quota": "The account has no quota left: add credit or use another key.",
        "not_found": "Check RARE_MODEL and OPENAI_BASE_URL (it usually ends in /v1).",
    }.get(fault.reason, "Check OPENAI_BASE_URL and OPENAI_API_KEY.")
