"""Keep to the limits on requests and cost, counted in a ledger that several teachers may share."""

from __future__ import annotations

from collections.abc import Callable

from rare_assets.teacher.ledger import NO_MONEY, Ledger
from rare_assets.teacher.options import Limits

# Until the ledger is looked at again, where another step's answers may cost less than expected.
_LOOK_AGAIN_S = 0.5
# What is reserved was left by a process that is gone where nobody has entered anything for as long as a request
# may take, and at least for so long: a batch, which takes hours, is looked at every minute.
_SILENT_S = 90.0
_KEPT = "Everything answered is kept; the next run goes on from there."


class Budget:
    """Tell when a request may be paid for. Without a limit nothing is entered in the ledger.

    Args:
        limits: `max_requests` and `max_cost_usd` count here, and `request_timeout`.
        ledger: counts requests, costs and reservations.
        batch: requests go out as a whole batch, which may not cost more than is left.
        halt: called with one message for people when a limit is reached.
        name: of the endpoint, for people.
    """

    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        *,
        batch: bool,
        halt: Callable[[str], None],
        name: str,
    ) -> None:
        self._max_requests = limits.max_requests
        self._max_cost_usd = limits.max_cost_usd
        self._limited = limits.max_requests is not None or limits.max_cost_usd is not None
        self._silent_s = max(_SILENT_S, 1.1 * limits.request_timeout)
        self._ledger = ledger
        self._batch = batch
        self._halt = halt
        self._name = name

    def wait(self, expected: Callable[[], float], in_flight: int) -> float | None:
        """Return the seconds until a request may be sent; 0.0 for now.

        None means: not before a request in flight ends, or never, after `halt` was called.

        Args:
            expected: returns the expected cost in US dollars; called only if there is a limit on cost.
            in_flight: requests of this endpoint that are not answered yet.
        """
        if not self._limited:
            return 0.0
        spent = self._ledger.spent()
        if self._max_requests is not None and spent.requests >= self._max_requests:
            self._halt(
                f"The limit of {self._max_requests} requests (max_requests) to {self._name} is "
                f"reached. {_KEPT}"
            )
            return None
        if self._max_cost_usd is None:
            return 0.0
        if spent.cost_usd >= self._max_cost_usd:
            self._halt(
                f"The limit of ${self._max_cost_usd:g} (max_cost_usd) at {self._name} is reached: new "
                f"answers cost ${spent.cost_usd:.6g}. {_KEPT}"
            )
            return None
        expected_usd = expected()
        if spent.cost_usd + spent.reserved_usd + expected_usd <= self._max_cost_usd:
            return 0.0
        if in_flight:
            return None
        if self._ledger.shared and spent.reserved_usd > NO_MONEY:
            # A process that was killed gives nothing back.
            self._ledger.forget_reserved(self._silent_s)
            return _LOOK_AGAIN_S
        if not self._batch:
            return 0.0  # one may show that answers cost less than expected
        self._halt(
            f"The limit of ${self._max_cost_usd:g} (max_cost_usd) at {self._name} leaves no room: new "
            f"answers cost ${spent.cost_usd:.6g} so far, the next is expected to cost "
            f"${expected_usd:.6g}. {_KEPT}"
        )
        return None

    def reserve(self, usd: float) -> bool:
        """Reserve a request and its expected cost in US dollars; False if others have taken what was left."""
        return not self._limited or self._ledger.reserve(
            usd, max_requests=self._max_requests, max_cost_usd=self._max_cost_usd
        )

    def give_back(self, usd: float) -> None:
        """Give back the US dollars that were reserved for a request that is over."""
        if self._limited:
            self._ledger.add(reserved_usd=-usd)

    def pay(self, usd: float) -> None:
        """Count the cost of an answer, in US dollars."""
        if self._limited:
            self._ledger.add(cost_usd=usd)

    def keep_reserved(self) -> None:
        """Keep the reservations alive, since their requests are still in flight."""
        if self._limited:
            self._ledger.add()
