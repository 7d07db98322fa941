"""Find out by trying which options an endpoint takes, once for all requests that are refused meanwhile.

A refusal may be due to the request itself. So a short and harmless request goes out with the same options;
if it is answered, nothing is changed. Else one goes out without any option, and then one with each option.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeGuard

from rare_assets.teacher.dialect import COMPLETION_TOKENS, MODES, PARTS, Dialect, Manner
from rare_assets.teacher.faults import Fault, Kind
from rare_assets.teacher.interface import Answer, Ask

logger = logging.getLogger(__name__)

# Sends the short request of this number with the options of an ask; None if no more may be sent.
SendShort = Callable[[Ask, Manner, int], Awaitable[Answer | Fault | None]]
_WAITS = 5
_LONGEST_WAIT_S = 10.0
# A server that fails on an option it does not know says one of these, and fails with it again.
_FAILS = (500, 501)
# An outage passes by itself: it comes from an option only if requests without it are answered between
# those with it, so many times. Looked into once in so many seconds.
_TURNS = 3
_LOOKED_INTO_EVERY_S = 30.0


class Negotiation:
    """Find the manner in which an endpoint takes requests.

    Args:
        dialect: words the requests; learns the manner that is found.
        send_short: sends a short request with the options of an ask.
        remember: called with a manner that was learnt.
        name: of the endpoint, for people.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        send_short: SendShort,
        remember: Callable[[Manner], Awaitable[None]],
        name: str,
    ) -> None:
        # Refused requests that wait to know why.
        self._waiting = 0
        self._dialect = dialect
        self._send_short = send_short
        self._remember = remember
        self._name = name
        self._lock = asyncio.Lock()
        # No manner works at present, so that the next refusal need not try them all again.
        self._hopeless = False
        self._outage_looked_into = -_LOOKED_INTO_EVERY_S

    @property
    def busy(self) -> bool:
        """True while it is being found out; nothing else is sent meanwhile."""
        return self._waiting > 0

    def concerns(self, fault: Fault, ask: Ask, version: int, failed: int) -> bool:
        """Return whether a fault may come from how the request is worded.

        Args:
            fault: what the request met.
            ask: what was asked.
            version: of the dialect in which the request was worded.
            failed: faults that the same request has met before.
        """
        # Whatever its words: a max_tokens that exceeds the window reads like a prompt that does.
        refused = fault.kind is Kind.REFUSED and fault.status is not None
        fails = failed >= 2 and (fault.status in _FAILS or _is_outage(fault))
        unproven = version != self._dialect.version or not self._dialect.is_proven(ask)
        return (refused or fails) and unproven

    def taken(self, ask: Ask, manner: Manner) -> None:
        """Note that the endpoint answered a request in this manner."""
        self._hopeless = False
        self._dialect.prove(ask, manner)

    async def settle(self, ask: Ask, fault: Fault, version: int) -> bool:
        """Find out whether a fault came from the manner; return True if the ask is to be sent again in another.

        Args:
            ask: what was asked.
            fault: what the request met.
            version: of the dialect in which the request was worded.
        """
        self._waiting += 1
        try:
            async with self._lock:
                if self._dialect.version != version:
                    return True
                if self._hopeless or self._dialect.is_proven(ask):
                    return False
                return await self._settle(ask, fault)
        finally:
            self._waiting -= 1

    async def _settle(self, ask: Ask, fault: Fault) -> bool:
        trial = _Trial(ask, fault, self._send_short)
        before = self._dialect.manner
        if _is_outage(fault) and not await self._comes_from_options(trial, before):
            return False
        taken = await trial.takes(before)
        if taken is None:
            return False
        if taken:
            self._dialect.prove(ask)
            return False
        try:
            learnt = await self._find(trial, before)
        except _CanNotTell:
            return False
        if learnt is None:
            self._hopeless = True
            self._dialect.tried = "; ".join(trial.met)
            return False
        self._dialect.prove(ask, learnt)
        self._dialect.learn(learnt)
        logger.warning(
            "%s does not take requests as they were (%s). Found by trying: %s.",
            self._name,
            fault,
            learnt,
        )
        await self._remember(self._dialect.manner)
        return True

    async def _comes_from_options(self, trial: _Trial, before: Manner) -> bool:
        """Return whether what looks like an outage meets requests with options, and no others."""
        now = time.monotonic()
        if now - self._outage_looked_into < _LOOKED_INTO_EVERY_S:
            return False
        self._outage_looked_into = now
        floor, _ = self._floor(trial, before)
        return await trial.fails_in_turn(floor, before)

    def _floor(self, trial: _Trial, before: Manner) -> tuple[Manner, list[str]]:
        """Return the manner without any option, and the names of those left out."""
        mode = self._dialect.fixed_mode or MODES[-1]
        sent = [name for name in PARTS if name in before.parts_of(trial.ask)]
        if COMPLETION_TOKENS in before.parts_of(trial.ask):
            sent.append("max_tokens")
        return Manner(mode, before.without | {*sent, COMPLETION_TOKENS}, before.stream), sent

    async def _find(self, trial: _Trial, before: Manner) -> Manner | None:
        """Return the manner that leaves out as little as possible; None if none works."""
        floor, sent = self._floor(trial, before)
        if not await trial.must_tell(floor):
            floor = replace(floor, stream=not floor.stream)
            if not await trial.must_tell(floor):
                return None
        found = floor
        for name in sent:
            found = await self._with_part(trial, found, name)
        if COMPLETION_TOKENS not in before.without and "max_tokens" not in sent:
            found = replace(found, without=found.without - {COMPLETION_TOKENS})
        if trial.ask.schema is None:
            return replace(found, mode=before.mode)
        if self._dialect.fixed_mode is None:
            for mode in MODES[MODES.index(before.mode) : -1]:
                wider = replace(found, mode=mode)
                if wider != before and await trial.must_tell(wider):
                    return wider
        return found

    async def _with_part(self, trial: _Trial, found: Manner, name: str) -> Manner:
        """Return the same manner with this part, if it is taken."""
        wider = replace(found, without=found.without - {name})
        if name == "max_tokens" and not await trial.must_tell(wider):
            wider = replace(found, without=found.without - {COMPLETION_TOKENS})
        elif name == "max_tokens":
            return replace(wider, without=wider.without - {COMPLETION_TOKENS})
        return wider if await trial.must_tell(wider) else found


class _CanNotTell(Exception):
    """The endpoint throttles or is gone, or a limit is reached."""


class _Trial:
    """Short requests with the options of one ask, whose request met `fault`."""

    def __init__(self, ask: Ask, fault: Fault, send_short: SendShort) -> None:
        self.ask = ask
        self.met: list[str] = []
        self._send_short = send_short
        self._refusal = (fault.status, fault.text)
        # Whether what looks like an outage was found to come from the options.
        self._outage_is_refusal = False

    async def fails_in_turn(self, floor: Manner, before: Manner) -> bool:
        """Return whether requests in the manner `floor` are answered while those in `before` fail, in turns.

        If so, an outage counts as a refusal from then on.
        """
        for turn in range(_TURNS):
            if not isinstance(await self._send_short(self.ask, floor, turn % 2), Answer):
                return False
            if not _is_outage(await self._send_short(self.ask, before, turn % 2)):
                return False
        self._outage_is_refusal = True
        return True

    async def must_tell(self, manner: Manner) -> bool:
        """Return the same as `takes`; raise _CanNotTell instead of returning None."""
        taken = await self.takes(manner)
        if taken is None:
            raise _CanNotTell
        return taken

    async def takes(self, manner: Manner) -> bool | None:
        """Return whether the endpoint takes requests in a manner; None if that can't be told now."""
        result = await self._sent(manner, 0)
        if self._is_refusal(result) and (result.status, result.text) != self._refusal:
            # One request alone may be refused for itself.
            result = await self._sent(manner, 1)
        if isinstance(result, Answer) or (result is not None and result.reason == "blank"):
            return True
        if self._is_refusal(result):
            self.met.append(f"{manner} (HTTP {result.status})")
            return False
        return None

    async def _sent(self, manner: Manner, number: int) -> Answer | Fault | None:
        for _ in range(_WAITS):
            result = await self._send_short(self.ask, manner, number)
            waits = isinstance(result, Fault) and result.kind is Kind.THROTTLED
            if not (isinstance(result, Fault) and waits) or self._is_refusal(result):
                return result
            await asyncio.sleep(min(result.retry_after or 1.0, _LONGEST_WAIT_S))
        return None

    def _is_refusal(self, result: Answer | Fault | None) -> TypeGuard[Fault]:
        if self._outage_is_refusal and _is_outage(result):
            return True
        return isinstance(result, Fault) and (
            result.kind is Kind.REFUSED or result.status in _FAILS
        )


def _is_outage(result: Answer | Fault | None) -> bool:
    """Return whether a fault mostly says that the server is away or has too much to do."""
    return (
        isinstance(result, Fault)
        and result.kind in (Kind.TRANSIENT, Kind.THROTTLED)
        and result.status not in (429, *_FAILS)
        and result.reason not in ("timeout", "blank")
    )
