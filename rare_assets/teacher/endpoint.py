"""One OpenAI-compatible endpoint: what may be sent to it when, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rare_assets.teacher import wire
from rare_assets.teacher.address import address_of
from rare_assets.teacher.brake import Brake
from rare_assets.teacher.connections import Connections
from rare_assets.teacher.dialect import Dialect, Manner
from rare_assets.teacher.faults import Fault, Kind, body_fault, fault_of
from rare_assets.teacher.finish import is_whole
from rare_assets.teacher.health import Health, Patience
from rare_assets.teacher.interface import Answer, Ask, Usage
from rare_assets.teacher.known import Folder, Memory
from rare_assets.teacher.ledger import NO_MONEY, Ledger
from rare_assets.teacher.negotiation import Negotiation
from rare_assets.teacher.pacing import AdaptiveLimit, Pace
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.tokens import estimated_prompt_tokens
from rare_assets.teacher.window import advice, window_in, window_of
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
_LATENCIES_KEPT = 10_000
_GUESSED_COMPLETION_TOKENS = 256
_LOOK_AGAIN_S = 0.5
# Until a place in flight is looked for again, which another process may free at any time.
_PLACE_S = 0.05
# For a list of models.
_LIST_S = 5.0
# The whole of a request that says nothing but that an endpoint answers; two, since one may be refused.
_SHORT = ("What is a lake? Answer in one sentence.", "Name three colours of the rainbow.")
# A conversation as that of the ask, where it has a system part.
_SHORT_SYSTEM = {"role": "system", "content": "You answer in one sentence."}


@dataclass(slots=True, eq=False)
class Slot:
    """A place among the requests in flight, taken at a time of `time.monotonic`, with what the
    request is expected to use."""

    ticket: int
    tokens: float
    cost: float
    place: int | None = None
    taken_at: float = field(default_factory=time.monotonic)
    taken: bool = True


class Endpoint:
    """Sends requests and keeps the books: limits, pace, adaptation, usage.

    Args:
        halt: called with one message for people when no request may or can be sent any more.
        say: called with a sentence for people about what they would not expect.
        batch: requests are collected into batches, at the price of those.
        ledger: where what the limits and rates hold for is counted; default, this endpoint's own
            requests.
        memory: where what is learnt of the endpoint is kept; default, nowhere.
        window: tokens that prompt and answer may have together, where that is known beforehand.
        places: places in flight that others on this machine take, too; default, only this one's.

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
        say: Callable[[str], None] = logger.warning,
        max_unusable_answers: int = 0,
        batch: bool = False,
        ledger: Ledger | None = None,
        structured_output: str | None = None,
        extra_headers: Mapping[str, SecretStr] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        memory: Folder | None = None,
        window: int | None = None,
        places: Places | None = None,
    ) -> None:
        self.model = model
        self._batch = batch
        self._given_url = base_url or OPENAI_URL
        address = address_of(self._given_url)
        self._base_url = address.base_url
        self._key = api_key.get_secret_value().strip() if api_key else ""
        if not self._key and base_url is None:
            raise ValueError("OpenAI's own endpoint needs a key: set OPENAI_API_KEY.")
        self._connections = Connections(
            address, self._key, extra_headers or {}, extra_body or {}, request_timeout
        )
        known = prices.price(model) is not None
        if max_cost_usd is not None and not known:
            raise ValueError(
                f"max_cost_usd is set, but the price of model {model} is unknown: "
                "give it in a price file (RARE_PRICES)."
            )
        self._prices = prices
        self._patience = patience
        self._halt = halt
        self._say = say
        self._max_concurrency = max_concurrency
        self._request_timeout = request_timeout
        self._max_cost_usd = max_cost_usd
        self._max_requests = max_requests
        self._books = ledger or Ledger()
        # Without a limit nothing has to be entered.
        limited = max_requests is not None or max_cost_usd is not None
        self._ledger = self._books if limited else None
        self._limit = AdaptiveLimit(max_concurrency)
        self._places = places
        self._without_place = False
        self._requests = self._pace(requests_per_minute, "requests")
        self._tokens = self._pace(tokens_per_minute, "tokens")
        self.dialect = Dialect(structured_output, extra_body)
        self._memory = Memory(memory, model, str(self))
        self._window = window
        self._recalled = asyncio.Lock()
        self._is_recalled = False
        # Whether any text came from it: of one that gives none, nothing is worth keeping.
        self._has_spoken = False
        self.negotiation = Negotiation(
            self.dialect, send_short=self._send_short, remember=self._remember, name=str(self)
        )
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
            tried=lambda: self.dialect.tried,
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
        return self._connections.redact(endpoint_name(self._given_url, self.model), self._given_url)

    @property
    def limit(self) -> int:
        """Requests allowed in flight at present."""
        return self._limit.limit

    async def aclose(self) -> None:
        """Close the connections."""
        self.take_no_more()
        await self._connections.close()
        self._books.close()

    async def recall(self) -> None:
        """Take over what earlier runs learnt of the endpoint, once."""
        async with self._recalled:
            if not self._is_recalled:
                self._is_recalled = True
                known = await asyncio.to_thread(self._memory.load)
                if known.manner is not None:
                    self.dialect.learn(known.manner)
                if known.window is None and self._memory.folder is not None:
                    await self._learn_window(await self._listed_window() or 0)

    @property
    def window(self) -> int | None:
        """Tokens that prompt and answer may have together, where that is known."""
        return self._window or self._memory.known.window or None

    async def _listed_window(self) -> int | None:
        """The window that the endpoint's list of models tells; free, and no harm where it fails."""
        try:
            async with asyncio.timeout(_LIST_S):
                return window_of(
                    wire.parse_json(await self._connections.get("/models")), self.model
                )
        except Exception as error:
            logger.info("%s lists no models: %s", self, fault_of(error, self.redact))
            return None

    async def _learn_window(self, window: int) -> None:
        known = replace(self._memory.known, window=window)
        await asyncio.to_thread(self._memory.save, known)

    async def _note_window(self, fault: Fault) -> None:
        """Learn the window from the first refusal that tells it."""
        window = window_in(fault.text) if fault.reason == "context_length" else None
        if window is None or self.window == window:
            return
        await self._learn_window(window)
        self._say(
            f"{self} takes {window:,} tokens at once, and refuses longer prompts. {advice(window)}"
        )

    async def _remember(self, manner: Manner) -> None:
        known = replace(self._memory.known, manner=manner)
        await asyncio.to_thread(self._memory.save, known)

    # ---- before a request

    def wait(self, ask: Ask) -> float | None:
        """Seconds until this ask may be sent: 0.0 now, None not before something in flight ends."""
        if not self._limit.may_start(self.unstored):
            return None
        if self.health.in_doubt and self._limit.in_flight:
            return None
        if self.negotiation.busy:
            return None
        if self.brake.holds():
            return None
        if self._ledger is not None and (wait := self._wait_for_money(self._ledger, ask)) != 0.0:
            return wait
        delay = self._paused_until - time.monotonic()
        for pace in (self._requests, self._tokens):
            if pace is not None:
                delay = max(delay, pace.delay())
        if delay > 0.0:
            return delay
        self._without_place = self._places is not None and not self._places.keep_one()
        return _PLACE_S if self._without_place else 0.0

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
        if ledger.shared and spent.reserved_usd > NO_MONEY:
            return _LOOK_AGAIN_S  # another step's answers may cost less than expected
        if not self._batch:
            return 0.0  # one may show that answers cost less than expected
        self._halt(
            f"The limit of ${self._max_cost_usd:g} (max_cost_usd) at {self} leaves no room: new "
            f"answers cost ${spent.cost_usd:.6g} so far, the next is expected to cost "
            f"${expected:.6g}. {kept}"
        )
        return None

    def take(self, ask: Ask) -> Slot | None:
        """Take a place for a request that `wait` allowed; `send` or `free` gives it back. None if
        another process has meanwhile taken what the limits had left."""
        cost = self._expected_cost(ask)
        if self._ledger is not None and not self._ledger.reserve(
            cost, max_requests=self._max_requests, max_cost_usd=self._max_cost_usd
        ):
            return None
        completion = self._expected_completion(ask)
        slot = Slot(
            ticket=self._limit.start(),
            tokens=estimated_prompt_tokens(ask) + (ask.max_tokens or completion),
            cost=cost,
            place=self._places.take() if self._places is not None else None,
        )
        self.usage.requests += 1
        if self._requests is not None:
            self._requests.take()
        if self._tokens is not None:
            self._tokens.take(slot.tokens)
        return slot

    def take_no_more(self) -> None:
        """Leave to other steps the place that `wait` has found and nobody has taken."""
        if self._places is not None:
            self._places.keep_none()

    def free(self, slot: Slot) -> None:
        """Give a place back whose request was cancelled; does nothing if it was answered."""
        if slot.taken:
            self._give_back(slot)
            self._limit.abandon()

    def _give_back(self, slot: Slot) -> None:
        slot.taken = False
        if self._places is not None:
            self._places.free(slot.place)
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

    async def send(self, slot: Slot, ask: Ask, attempt: int, *, failed: int = 0) -> Answer | Fault:
        """Send one request. An answer returned has been counted in `usage`.

        Args:
            failed: faults that the same request has met before.
        """
        version = self.dialect.version
        result = await self._send(slot, ask, attempt, self.dialect.manner, self._request_timeout)
        if isinstance(result, Fault):
            await self._note_window(result)
        if isinstance(result, Answer) or not self.negotiation.concerns(
            result, ask, version, failed
        ):
            return result
        if await self.negotiation.settle(ask, result, version):
            return replace(result, kind=Kind.ADAPTED)
        return result

    async def _send(
        self,
        slot: Slot,
        ask: Ask,
        attempt: int,
        manner: Manner,
        within: float,
        *,
        short: bool = False,
    ) -> Answer | Fault:
        body = self.dialect.body(self.model, ask, attempt, manner)
        result = await self._request(body, ask, attempt, within)
        self._give_back(slot)
        overload = isinstance(result, Fault) and result.overload
        if self._limit.finish(slot.ticket, throttled=overload):
            self._slow_down(result)
        if isinstance(result, Answer):
            self.count(result, short=short)
            self.negotiation.taken(ask, manner)
            self._correct(result.prompt_tokens + result.completion_tokens - slot.tokens)
            return result
        self._correct(-slot.tokens)
        if result.kind is Kind.THROTTLED:
            self.usage.rate_limited += 1
        return result

    async def _short_request(self, ask: Ask) -> Answer | Fault | None:
        """Send a short and harmless request with the options of `ask`, to see whether the endpoint
        answers anything; None where a limit allows no more requests."""
        version = self.dialect.version
        result = await self._send_short(ask, self.dialect.manner, 0)
        if isinstance(result, Answer) or result is None:
            return result
        concerns = self.negotiation.concerns(result, ask, version, 2)
        if concerns and await self.negotiation.settle(ask, result, version):
            return await self._send_short(ask, self.dialect.manner, 0)
        return result

    async def _send_short(self, ask: Ask, manner: Manner, number: int) -> Answer | Fault | None:
        """One short request; `number` says which."""
        messages = [{"role": "user", "content": _SHORT[number]}]
        if any(message["role"] == "system" for message in ask.messages):
            messages.insert(0, _SHORT_SYSTEM)
        short = replace(ask, key="", messages=tuple(messages), sample=0)
        if self._ledger is not None and self._wait_for_money(self._ledger, short) != 0.0:
            return None
        slot = self.take(short)
        if slot is None:
            return None
        patience = min(self._request_timeout, self._patience.dead_after)
        try:
            return await self._send(slot, short, 0, manner, patience, short=True)
        finally:
            self.free(slot)

    async def _request(
        self, body: dict[str, Any], ask: Ask, attempt: int, within: float
    ) -> Answer | Fault:
        started = time.monotonic()
        try:
            async with asyncio.timeout(within):
                content = await self._connections.post("/chat/completions", body)
            response = wire.parse_json(content)
        except Exception as error:
            return fault_of(error, self.redact)
        latency = round(time.monotonic() - started, 3)
        return self.read(response, attempt=attempt, latency_s=latency, ask=ask)

    def read(
        self, response: Any, *, attempt: int, latency_s: float, ask: Ask | None
    ) -> Answer | Fault:
        """The answer in a response of status 200, or the fault that it tells."""
        try:
            answer = wire.read_answer(response, attempt=attempt, latency_s=latency_s, ask=ask)
        except ValueError:
            return body_fault(response, self.redact)
        if answer.blank and is_whole(answer.finish_reason) and not wire.wrote_tokens(response):
            # Nobody wrote it: a server that is down behind its gateway.
            return Fault(Kind.TRANSIENT, "blank", "an answer of no text and no tokens", 200)
        self._has_spoken = self._has_spoken or not answer.blank
        answer = replace(answer, unstored=answer.blank and not self._has_spoken)
        return answer if answer.model else replace(answer, model=self.model)

    @property
    def client(self) -> openai.AsyncOpenAI:
        """A client for what is not a chat completion; it tries nothing twice."""
        return self._connections.client

    def redact(self, text: str) -> str:
        """A text without the API key, secret headers and what is secret in the URL."""
        return self._connections.redact(text, self._given_url)

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

    def count(self, answer: Answer, *, short: bool = False) -> None:
        """Count a new answer; `short` if it was asked for to see whether there would be one."""
        usage = self.usage
        self._answered += 1
        usage.retries += answer.attempt > 0
        usage.estimated += answer.estimated
        self._note_cut(answer)
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
        self.health.answered(short=short)

    def _note_cut(self, answer: Answer) -> None:
        if not answer.cut_prompt:
            return
        self.usage.cut_prompts += 1
        if self.usage.cut_prompts == 1:
            self._say(
                f"{self} says that it read {answer.prompt_tokens:,} tokens of a prompt of about twice as many "
                "or more: it cut the prompt, and may not have seen the gold document. Raise its window "
                "(Ollama: num_ctx; llama.cpp: -c; vLLM: --max-model-len), or set max_context_tokens of "
                "reasoning; then run with refresh, since these answers are stored."
            )

    def count_reused(self, answer: Answer) -> None:
        """Count an answer that came from storage."""
        self.health.went_on()
        usage = self.usage
        usage.answers_reused += 1
        self._note_cut(answer)
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
        if not in_flight and self._without_place:
            return (
                "All places in flight of this machine are taken by other steps (RARE_MAX_IN_FLIGHT): "
                f"the next request to {self} is sent as soon as one is free."
            )
        if self._batch:
            return f"{self} works on {in_flight} requests in batches, which may take a day."
        return (
            f"{self} has answered nothing for {silent:.0f} s: {in_flight} requests are in flight, "
            f"each may take {self._request_timeout:g} s (RARE_REQUEST_TIMEOUT)."
        )


def endpoint_name(url: str | None, model: str) -> str:
    """An endpoint for people, and under which what is learnt of it is kept. Raises ValueError."""
    return f"the endpoint {shown(address_of(url or OPENAI_URL).base_url)} (model {model})"
