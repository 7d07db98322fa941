"""Send requests to one OpenAI-compatible endpoint: what may be sent, when, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rare_assets.teacher import wire
from rare_assets.teacher.brake import Brake
from rare_assets.teacher.budget import Budget
from rare_assets.teacher.connections import Connections
from rare_assets.teacher.dialect import Dialect, Manner
from rare_assets.teacher.faults import Fault, Kind, body_fault, fault_of
from rare_assets.teacher.finish import is_whole
from rare_assets.teacher.health import Health
from rare_assets.teacher.interface import Answer, Ask
from rare_assets.teacher.known import Memory
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.negotiation import Negotiation
from rare_assets.teacher.open_files import connections_within
from rare_assets.teacher.options import EndpointOptions, Limits
from rare_assets.teacher.pacing import AdaptiveLimit, RateLimit
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import Prices
from rare_assets.teacher.tally import Tally
from rare_assets.teacher.tokens import estimated_prompt_tokens
from rare_assets.teacher.window import advice, window_in, window_of

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

_GUESSED_COMPLETION_TOKENS = 256
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
    """A place among the requests in flight.

    Attributes:
        ticket: of the limit on requests in flight.
        tokens: expected of prompt and answer together.
        cost: expected, in US dollars.
        place: of the places that processes share; None without.
        taken_at: time of `time.monotonic`.
        taken: False once it was given back.
    """

    ticket: int
    tokens: float
    cost: float
    place: int | None = None
    taken_at: float = field(default_factory=time.monotonic)
    taken: bool = True


class Endpoint:
    """Send requests as fast as limits, rates and faults allow, and count what they use.

    Args:
        model: the model's name at the endpoint.
        options: where the endpoint is, and how it is spoken to.
        limits: how much may be asked, and how fast; in batches, all open requests count as in flight.
        prices: for costs, which are None without the model's price.
        halt: called with one message for people when no request may or can be sent any more.
        say: called with a sentence for people about what they would not expect.
        batch: requests go out in batches, at the Batch API's price.
        ledger: counts for limits and rates; default, this endpoint alone.
        places: places in flight that other processes on this machine take, too; default, none.

    Raises:
        ValueError: address, key or headers can't be used, or a limit on cost is set and the model has no
            price.
    """

    def __init__(
        self,
        *,
        model: str,
        options: EndpointOptions,
        limits: Limits,
        prices: Prices,
        halt: Callable[[str], None],
        say: Callable[[str], None] = logger.warning,
        batch: bool = False,
        ledger: Ledger | None = None,
        places: Places | None = None,
    ) -> None:
        self.model = model
        self._batch = batch
        self._limits = limits
        self._prices = prices
        self._say = say
        self._connections = Connections(options, limits.request_timeout)
        self._name = name = self._connections.name(model)
        has_price = prices.price(model) is not None
        if not has_price and limits.max_cost_usd is not None:
            raise ValueError(
                f"max_cost_usd is set, but the price of model {model} is unknown: "
                "give it in a price file (RARE_PRICES)."
            )
        self._books = ledger or Ledger()
        self._budget = Budget(limits, self._books, batch=batch, halt=halt, name=name)
        self._limit = AdaptiveLimit(self._most_in_flight(limits.max_concurrency))
        self._requests = self._rate_limit(limits.requests_per_minute, "requests")
        self._tokens = self._rate_limit(limits.tokens_per_minute, "tokens")
        self._paused_until = 0.0
        self._places = places
        self._without_place = False
        # Answers that came and are not on durable storage yet: they keep their places.
        self.unstored = 0
        self.dialect = Dialect(options.structured_output, options.extra_body)
        self.negotiation = Negotiation(
            self.dialect, send_short=self._send_short, remember=self._remember, name=name
        )
        self._memory = Memory(options.memory, model, name)
        self._window = options.window
        self._recalled = asyncio.Lock()
        self._is_recalled = False
        # Whether any text came from it: of one that gives none, nothing is worth keeping.
        self._has_spoken = False
        self.health = Health(
            name=name,
            patience=limits.patience,
            request_timeout=limits.request_timeout,
            halt=halt,
            short_request=self._short_request,
            in_flight=lambda: self._limit.in_flight,
            tried=lambda: self.dialect.tried,
        )
        most = limits.max_unusable_answers
        self.brake = Brake(self._books, most, halt=halt, name=name, redact=self.redact)
        self._tally = Tally(self._cost, has_price=has_price, say=say, name=name)
        self.usage = self._tally.usage

    def _most_in_flight(self, wanted: int) -> int:
        most = wanted if self._batch else connections_within(wanted)
        if most < wanted:
            self._say(
                f"{most} requests to {self} are in flight at most, not {wanted} (RARE_MAX_CONCURRENCY), "
                "since this process may have few files open: raise the limit (`ulimit -n`)."
            )
        return most

    def _rate_limit(self, per_minute: int | None, unit: str) -> RateLimit | None:
        if per_minute is None:
            return None
        return RateLimit(per_minute, time.time, self._books, f"{unit} a minute of {self}")

    def __str__(self) -> str:
        return self._name

    @property
    def limit(self) -> int:
        """Number of requests that may be in flight at present."""
        return self._limit.limit

    async def aclose(self) -> None:
        """Close the connections and the ledger."""
        self.take_no_more()
        await self._connections.close()
        self._books.close()

    async def recall(self) -> None:
        """Take over what earlier runs learnt of the endpoint; does so once."""
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
        """Tokens that prompt and answer may have together; None if that is not known."""
        return self._window or self._memory.known.window or None

    async def _listed_window(self) -> int | None:
        """Return the window that the endpoint's list of models tells; free, and no harm where it fails."""
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
        """Return the seconds until this ask may be sent; 0.0 for now, None for not before an answer comes."""
        if not self._limit.may_start(self.unstored):
            return None
        if self.health.in_doubt and self._limit.in_flight:
            return None
        if self.negotiation.busy:
            return None
        if self.brake.holds():
            return None
        if (wait := self._wait_for_money(ask)) != 0.0:
            return wait
        delay = self._paused_until - time.monotonic()
        for rate in (self._requests, self._tokens):
            if rate is not None:
                delay = max(delay, rate.delay())
        if delay > 0.0:
            return delay
        self._without_place = self._places is not None and not self._places.keep_one()
        return _PLACE_S if self._without_place else 0.0

    def _wait_for_money(self, ask: Ask) -> float | None:
        return self._budget.wait(lambda: self._expected_cost(ask), self._limit.in_flight)

    def keep_reserved(self) -> None:
        """Keep the reservations of requests that take longer than the request timeout, as batches do.

        Call it every minute or so while they are in flight.
        """
        self._budget.keep_reserved()

    def take(self, ask: Ask) -> Slot | None:
        """Take a place for a request that `wait` allowed; `send` or `free` gives it back.

        Returns None if another process has meanwhile taken what the limits had left.
        """
        cost = self._expected_cost(ask)
        if not self._budget.reserve(cost):
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
        """Give back the place that `wait` keeps ready, so that other steps can take it."""
        if self._places is not None:
            self._places.keep_none()

    def free(self, slot: Slot) -> None:
        """Give back the place of a cancelled request; does nothing if it was answered."""
        if slot.taken:
            self._give_back(slot)
            self._limit.abandon()

    def _give_back(self, slot: Slot) -> None:
        slot.taken = False
        if self._places is not None:
            self._places.free(slot.place)
        self._budget.give_back(slot.cost)

    def _expected_completion(self, ask: Ask) -> float:
        if self.usage.answered:
            return self.usage.completion_tokens / self.usage.answered
        return ask.max_tokens or _GUESSED_COMPLETION_TOKENS

    def _expected_cost(self, ask: Ask) -> float:
        prompt = estimated_prompt_tokens(ask)
        return self._cost(prompt, self._expected_completion(ask)) or 0.0

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        return self._prices.cost(self.model, prompt_tokens, completion_tokens, batch=self._batch)

    # ---- a request

    async def send(self, slot: Slot, ask: Ask, attempt: int, *, failed: int = 0) -> Answer | Fault:
        """Send one request, and return its answer, counted in `usage`, or the fault that it met.

        Args:
            slot: its place, as `take` returned it.
            ask: what is asked.
            attempt: its number, from 0.
            failed: faults that the same request has met before.
        """
        version = self.dialect.version
        result = await self._send(
            slot, ask, attempt, self.dialect.manner, self._limits.request_timeout
        )
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
        """Send the short request of this number; returns None where a limit allows no more requests."""
        messages = [{"role": "user", "content": _SHORT[number]}]
        if any(message["role"] == "system" for message in ask.messages):
            messages.insert(0, _SHORT_SYSTEM)
        short = replace(ask, key="", messages=tuple(messages), sample=0)
        if self._wait_for_money(short) != 0.0:
            return None
        slot = self.take(short)
        if slot is None:
            return None
        patience = min(self._limits.request_timeout, self._limits.patience.dead_after)
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
        """Return the answer in a response of status 200, or the fault that it holds.

        Args:
            response: the response's JSON.
            attempt: number of the attempt, from 0.
            latency_s: seconds until the response was there.
            ask: what was asked; None if that is not known any more.
        """
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
        """Return a text without the key, the headers, and what is secret in the URL and the body."""
        return self._connections.redact(text)

    def _slow_down(self, result: Answer | Fault) -> None:
        logger.info("%s throttles: %d requests in flight from now on", self, self.limit)
        if isinstance(result, Fault) and self._is_bearable(result.retry_after):
            # It refuses many, so the wait it asks for concerns all of them.
            self._paused_until = time.monotonic() + (result.retry_after or 0.0)

    def _is_bearable(self, wait: float | None) -> bool:
        return wait is not None and wait <= self._limits.patience.stalled_after

    def _correct(self, difference: float) -> None:
        if self._tokens is not None:
            self._tokens.correct(difference)

    def count(self, answer: Answer, *, short: bool = False) -> None:
        """Count a new answer; `short` marks one to a short request that only tested the endpoint."""
        cost = self._tally.count(answer)
        if cost is not None:
            self._budget.pay(cost)
        self.health.answered(short=short)

    def count_reused(self, answer: Answer) -> None:
        """Count an answer that came from storage."""
        self.health.went_on()
        self._tally.count_reused(answer)

    def waiting(self) -> str | None:
        """Return a sentence about what is waited for, once nothing has come for a while; else None."""
        now = time.monotonic()
        silent = now - self.health.moved_at
        if silent < self._limits.patience.silent_after:
            return None
        fault, in_flight = self.health.last_fault, self._limit.in_flight
        delays = [rate.delay() for rate in (self._requests, self._tokens) if rate is not None]
        if fault is not None:
            until = self._limits.patience.dead_after
            if fault.kind is Kind.THROTTLED:
                until = self._limits.patience.stalled_after
            asked = (
                "" if fault.retry_after is None else f" It asks to wait {fault.retry_after:g} s."
            )
            return (
                f"{self} has answered nothing for {silent:.0f} s, the last fault was: {fault}."
                f"{asked} It is tried again, until {until:g} s are over."
            )
        if not in_flight and delays and max(delays) > 0.0:
            return (
                f"The rate per minute of {self} is used up: the next request is sent in "
                f"{max(delays):.0f} s (RARE_REQUESTS_PER_MINUTE, RARE_TOKENS_PER_MINUTE)."
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
            f"each may take {self._limits.request_timeout:g} s (RARE_REQUEST_TIMEOUT)."
        )
