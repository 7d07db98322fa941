"""Tell from failed requests whether one request is at fault, or the endpoint.

What happens to other requests decides, not the words of a message. A refusal is due to the request itself
as long as others are answered. Where many different requests are refused in a row, a short and harmless one
tells whether the endpoint refuses all of them. An outage is waited for by time; a request that fails while
others are answered is given up after some tries.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from rare_assets.teacher.faults import Fault, Kind
from rare_assets.teacher.interface import Answer, Ask
from rare_assets.teacher.pacing import full_jitter
from rare_assets.teacher.tokens import estimated_prompt_tokens

logger = logging.getLogger(__name__)

# So many different requests refused in a row, none answered between: it may be the endpoint.
REFUSED_IN_A_ROW = 10
# Of these one is enough for the doubt: they mostly speak of the key, the model or the path.
DOUBTFUL = frozenset([401, 402, 403, 404, 405, 406, 407, 410])
# A request that runs into its timeout has taken long enough: it is not tried as often as others.
TIMEOUT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failing requests are repeated, in seconds and tries.

    Attributes:
        dead_after: seconds in which every request fails until the endpoint counts as dead.
        stalled_after: seconds in which every request is throttled until it does.
        tries: requests for one answer until its ask is given up, while others are answered.
        backoff: seconds, the base of the exponential back-off; see `pacing.full_jitter`.
        backoff_cap: seconds, its longest wait.
        silent_after: seconds without an answer until people are told what is waited for.

    Example:
        >>> Patience(dead_after=30.0).tries
        6
    """

    dead_after: float = 120.0
    stalled_after: float = 600.0
    tries: int = 6
    backoff: float = 0.5
    backoff_cap: float = 30.0
    silent_after: float = 20.0


@dataclass(slots=True)
class Tries:
    """The faults that one attempt at an ask has met so far; times are of `time.monotonic`.

    Attributes:
        failed: failures since the last outage.
        since: time of the first of them.
        outages: outages of the endpoint that had ended when `failed` began to count.
        tested: a short request was answered while this one failed.
        throttled: times that it was throttled.
        throttled_since: time of the first of them.
    """

    failed: int = 0
    since: float | None = None
    outages: int = 0
    tested: bool = False
    throttled: int = 0
    throttled_since: float | None = None


class Health:
    """Judge the faults of one endpoint.

    Args:
        name: of the endpoint, for people.
        patience: how long faults are put up with.
        request_timeout: seconds until a request counts as lost; only named in messages.
        halt: called with one message for people when no request can be sent any more.
        short_request: sends a short request with the options of an ask; returns None if none may be sent.
        in_flight: returns the number of requests in flight.
        tried: returns the ways to word a request that were tried in vain; "" for none.

    Attributes:
        moved_at: when an ask last came to anything, a refusal of its own included (`time.monotonic`).
        answered_at: when a request was last answered; None before the first answer.
        last_fault: since the last answer.
    """

    def __init__(
        self,
        *,
        name: str,
        patience: Patience,
        request_timeout: float,
        halt: Callable[[str], None],
        short_request: Callable[[Ask], Awaitable[Answer | Fault | None]],
        in_flight: Callable[[], int],
        tried: Callable[[], str] = str,
    ) -> None:
        self.patience = patience
        self.moved_at = time.monotonic()
        self.answered_at: float | None = None
        self.last_fault: Fault | None = None
        self._name = name
        self._request_timeout = request_timeout
        self._halt = halt
        self._short_request = short_request
        self._in_flight = in_flight
        self._tried = tried
        self._rng = random.Random()
        self._refused = 0
        self._shortest_refused = 0
        self._doubt: Fault | None = None
        self._cleared: set[int | None] = set()
        self._down_since: float | None = None
        self._timeouts = 0
        # The asks that fail at present, with their failures since the last answer.
        self._failing: Counter[int] = Counter()
        self._outages = 0
        self._throttled_since: float | None = None
        self._tested = asyncio.Lock()
        self._tested_at: float | None = None
        self._test_passed = False

    @property
    def in_doubt(self) -> bool:
        """True if the endpoint may refuse everything, so that nothing is sent beside what is in flight."""
        return self._doubt is not None

    def answered(self, *, short: bool = False) -> None:
        """Note that a request was answered: whatever was wrong with the endpoint is over.

        An answer to a short request tells nothing of the asks that failed meanwhile.
        """
        self.answered_at = self.moved_at = time.monotonic()
        if self._doubt is not None:
            # Refused beside answers: from now on it takes more of the same to be in doubt.
            self._cleared.add(self._doubt.status)
        self._refused = 0
        self._doubt = None
        # Several asks that failed again and again met an outage: it says nothing of any of them.
        if not short and len(self._failing) > 1 and max(self._failing.values()) > 1:
            self._outages += 1
        self.reached()

    def reached(self) -> None:
        """Note that the endpoint did what a call asked, which need not be an answer."""
        self._down_since = self._throttled_since = self.last_fault = None
        self._timeouts = 0
        self._failing.clear()

    def went_on(self) -> None:
        """Note progress that needed no request."""
        self.moved_at = time.monotonic()

    async def retry_delay(
        self,
        fault: Fault,
        tries: Tries,
        ask: Ask | None,
        *,
        sent_at: float = float("inf"),
        queued: Iterable[Ask] = (),
    ) -> float | str:
        """Return the seconds until a failed request is sent again, or the reason why it is given up.

        Calls `halt` if the endpoint itself turns out to be at fault.

        Args:
            fault: what the request met.
            tries: the faults that the same attempt has met; counted here.
            ask: what was asked; None for a call that is no chat completion.
            sent_at: when the request was sent (`time.monotonic`).
            queued: asks that wait to be sent; if one of them is much shorter, it will tell what a refusal
                means.
        """
        now = time.monotonic()
        match fault.kind:
            case Kind.ADAPTED:
                return 0.0
            case Kind.FATAL if None in (ask, self.answered_at, fault.status):
                self._halt(f"{self._name} refuses to work: {fault}. {remedy(fault)}")
                return "endpoint_error"
        self.last_fault = fault
        match fault.kind:
            case Kind.THROTTLED:
                return self._after_throttling(fault, tries, now)
            case Kind.UNREACHABLE:
                return self._after_no_connection(fault, tries, now)
            case Kind.TRANSIENT:
                return await self._after_failure(fault, tries, ask, now)
        return await self._after_refusal(fault, ask, sent_at, queued)

    # ---- refusals

    async def _after_refusal(
        self, fault: Fault, ask: Ask | None, sent_at: float, queued: Iterable[Ask]
    ) -> str:
        self.moved_at = time.monotonic()
        self._down_since = None
        if ask is None or fault.status is None:  # nothing that the endpoint said
            return fault.reason
        if self.answered_at is not None and sent_at < self.answered_at:  # beside an answer
            return fault.reason
        size = estimated_prompt_tokens(ask)
        self._shortest_refused = min(size, self._shortest_refused) if self._refused else size
        self._refused += 1
        doubtful = fault.status in DOUBTFUL or fault.kind is Kind.FATAL
        doubtful = doubtful and fault.status not in self._cleared
        if self._doubt is None and (doubtful or self._refused >= REFUSED_IN_A_ROW):
            self._doubt = fault
        if self._doubt is not None and not self._in_flight():
            shortest = min(map(estimated_prompt_tokens, queued), default=None)
            if shortest is None or 2 * shortest > self._shortest_refused:
                await self._refuses_all(ask)
        return fault.reason

    async def judge_refusals(self, fault: Fault, number: int, ask: Ask) -> None:
        """Find out whether the endpoint refuses everything, after `number` refusals at once and no answer."""
        if number >= REFUSED_IN_A_ROW or fault.status in DOUBTFUL:
            self._refused, self._doubt = number, fault
            await self._refuses_all(ask)

    async def _refuses_all(self, ask: Ask) -> None:
        """Settle the doubt by a short request."""
        fault, refused = self._doubt, self._refused
        result = await self._short_request(ask)
        if self._doubt is None or fault is None:
            logger.info("%s refuses single requests: %s", self._name, fault)
            return
        if isinstance(result, Fault) and result.kind in (Kind.REFUSED, Kind.FATAL):
            several = f"{refused} different requests" if refused > 1 else "a request"
            beside = "them" if refused > 1 else "it"
            tried = (
                f" Tried in vain, each with a short request: {self._tried()}."
                if self._tried()
                else ""
            )
            self._halt(
                f"{self._name} refused {several}, one after the other, and a short one beside "
                f"{beside}: {fault}.{tried} {remedy(fault)}"
            )
        self._doubt = None  # where the short one met another fault, the next refusal asks again

    # ---- outages

    def _after_no_connection(self, fault: Fault, tries: Tries, now: float) -> float:
        patience = self.patience.dead_after
        self._down_since = self._down_since or now
        if now - self._down_since >= patience:
            self._halt(
                f"{self._name} has not been reachable for {patience:g} s: {fault}. "
                "Check OPENAI_BASE_URL, and that the server runs."
            )
        tries.failed += 1
        return self._backoff(tries.failed, cap=patience / 4)

    async def _after_failure(
        self, fault: Fault, tries: Tries, ask: Ask | None, now: float
    ) -> float | str:
        patience = self.patience
        timeout = fault.reason == "timeout"
        if tries.outages != self._outages:
            tries.failed, tries.since, tries.tested = 0, None, False
            tries.outages = self._outages
        tries.failed += 1
        tries.since = tries.since or now
        self._down_since = self._down_since or now
        self._timeouts += timeout
        self._failing[id(tries)] += 1
        spent = tries.failed >= (min(TIMEOUT_TRIES, patience.tries) if timeout else patience.tries)
        late = now - self._down_since >= patience.dead_after
        if not (spent or late):
            return self._backoff(tries.failed, cap=patience.dead_after / 4)
        # Alone among others that are answered, it is the request; where several fail, who knows.
        answered = self.answered_at is not None and self.answered_at >= tries.since
        alive = tries.tested or (answered and len(self._failing) == 1)
        if alive and spent:
            return "endpoint_error"
        if not alive and ask is not None:
            # It gets one try more: the outage may have ended just now.
            alive = tries.tested = await self.answers_a_short_one(ask, since=tries.since)
        if late and not alive:
            self._halt(self._dead(fault, now - (self._down_since or now)))
        return self._backoff(1 if alive else tries.failed, cap=patience.dead_after / 4)

    def _dead(self, fault: Fault, seconds: float) -> str:
        kept = "Everything answered is kept; run again when it answers."
        if fault.reason == "timeout":
            return (
                f"{self._name} accepts requests and answers none: {self._timeouts} in a row ran "
                f"into the timeout of {self._request_timeout:g} s. Check the server, or raise "
                f"RARE_REQUEST_TIMEOUT if its answers take longer. {kept}"
            )
        return (
            f"{self._name} has failed every request for {seconds:.3g} s, {len(self._failing)} asks "
            f"in a row, the last with: {fault}. Check the server and OPENAI_BASE_URL. {kept}"
        )

    async def answers_a_short_one(self, ask: Ask, *, since: float = 0.0) -> bool:
        """Return whether the endpoint answers a short request; sends one, unless one was sent just before.

        Args:
            ask: its options are those of the request.
            since: only an answer after this time of `time.monotonic` counts.
        """
        async with self._tested:
            now = time.monotonic()
            if self._tested_at is None or now - self._tested_at >= self.patience.dead_after / 4:
                result = await self._short_request(ask)
                self._tested_at, self._test_passed = now, isinstance(result, Answer)
            return self._test_passed and self._tested_at >= since

    # ---- throttling

    def _after_throttling(self, fault: Fault, tries: Tries, now: float) -> float | str:
        patience = self.patience.stalled_after
        tries.throttled += 1
        tries.throttled_since = tries.throttled_since or now
        self._throttled_since = self._throttled_since or now
        self._down_since = None
        wait = fault.retry_after or 0.0
        if wait > patience and self._answered_within(patience):
            return "rate_limited"
        if wait > patience or now - self._throttled_since >= patience:
            asked = f" and asks to wait {wait:g} s" if wait else ""
            self._halt(
                f"{self._name} throttles every request{asked}: {fault}. Lower RARE_MAX_CONCURRENCY, "
                "set RARE_REQUESTS_PER_MINUTE or RARE_TOKENS_PER_MINUTE, or run again later."
            )
        # Its own only if others were answered not long ago: else all are throttled.
        if now - tries.throttled_since >= patience and self._answered_within(patience / 4):
            return "rate_limited"
        if fault.retry_after is None:
            return self._backoff(tries.throttled)
        # Never earlier than asked; spread out, since others were asked the same.
        return wait + self._rng.uniform(0.0, max(self.patience.backoff, 0.1 * wait))

    def _answered_within(self, seconds: float) -> bool:
        return self.answered_at is not None and time.monotonic() - self.answered_at < seconds

    def _backoff(self, tries: int, *, cap: float = float("inf")) -> float:
        cap = min(cap, self.patience.backoff_cap)
        return full_jitter(tries, base=self.patience.backoff, cap=cap, rng=self._rng)


def remedy(fault: Fault) -> str:
    """Return what to do about an endpoint that refuses everything."""
    if fault.reason == "moved":
        return "Set OPENAI_BASE_URL to that address, if it is the one that you mean: your key is not sent there by itself."
    if fault.reason == "environment":
        return "Mend these variables of the environment, or unset them."
    if fault.reason == "quota":
        return "The account has no quota left: add credit or use another key."
    if fault.status == 407:
        return "A proxy before it asks for a password: write it into HTTP_PROXY or HTTPS_PROXY."
    if fault.status in (401, 403):
        return "It does not accept the API key: check OPENAI_API_KEY and its rights."
    if fault.status in (404, 405, 410):
        return "Check RARE_MODEL and OPENAI_BASE_URL (it usually ends in /v1)."
    return "Check RARE_MODEL, OPENAI_BASE_URL, OPENAI_API_KEY and the options of the run."
