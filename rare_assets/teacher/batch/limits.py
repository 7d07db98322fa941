"""Limit how large batches are, and how often they are looked at."""

from __future__ import annotations

from dataclasses import dataclass

# What the Batch API of OpenAI takes in one file.
MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How large batches are, and how often they are looked at.

    Attributes:
        max_requests, max_bytes: the largest file that the endpoint takes.
        max_open_requests: most requests in all batches together, which bounds memory.
        poll_s, poll_cap_s: seconds, the first and the longest pause between two looks at a batch.

    Raises:
        ValueError: a limit is below 1.
    """

    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    max_open_requests: int = 4 * MAX_REQUESTS
    poll_s: float = 5.0
    poll_cap_s: float = 60.0

    def __post_init__(self) -> None:
        if min(self.max_requests, self.max_bytes, self.max_open_requests) < 1:
            raise ValueError("The limits of a batch must be at least 1.")
