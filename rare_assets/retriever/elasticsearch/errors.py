"""Errors of the Elasticsearch engine, and how they are read out of a server's answer."""

from __future__ import annotations

from collections.abc import Mapping

# HTTP statuses that pass by themselves: too many requests, bad gateway, unavailable, gateway timeout.
PASSING = frozenset({429, 502, 503, 504})


class ElasticsearchError(RuntimeError):
    """Elasticsearch refused a request or can't be reached; the message says what to do.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        kind: Elasticsearch's name for the error, as `index_not_found_exception`.
    """

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def not_offered(self) -> bool:
        """True if this deployment offers the request to nobody, as serverless ones do not offer all."""
        return self.status in (405, 410) or "serverless" in str(self).lower()


class ElasticsearchSettingError(ElasticsearchError, ValueError):
    """Settings contradict each other or are no address; the message names them."""


class Passing(Exception):
    """A part of a request failed in a way that another try may mend."""


def error_reason(body: object) -> tuple[str, str]:
    """Return kind and reason of an error answer, the innermost that it has.

    >>> error_reason({"error": {"type": "outer", "root_cause": [{"type": "inner", "reason": "why"}]}})
    ('inner', 'why')
    """
    error = body.get("error") if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "", str(error)[:500]
    for inner in [*error.get("root_cause", []), error.get("caused_by")]:
        if isinstance(inner, Mapping) and inner.get("type"):
            return str(inner["type"]), str(inner.get("reason"))[:500]
    return str(error.get("type", "")), str(error.get("reason"))[:500]
