"""Options of teachers: how an endpoint is reached, and how much may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from rare_assets.teacher.health import Patience
from rare_assets.teacher.known import Folder


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Where an endpoint is, and how it is spoken to.

    Attributes:
        base_url: up to and with its /v1. Default: OpenAI's own.
        api_key: OpenAI's own endpoint needs one; many local servers want none.
        structured_output: how JSON is asked for, one of `dialect.MODES`. Default: found out by trying.
        extra_headers, extra_body: sent with every request; they replace what is sent otherwise.
        memory: folder that keeps what is learnt of the endpoint for the next run. Default: none.
        window: tokens that prompt and answer may have together, if that is known beforehand.

    Example:
        >>> local = EndpointOptions(base_url="http://localhost:8000/v1", extra_body={"top_k": 20})
    """

    base_url: str | None = None
    api_key: SecretStr | None = None
    structured_output: str | None = None
    extra_headers: Mapping[str, SecretStr] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    memory: Folder | None = None
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is asked of an endpoint, and how fast; None is no limit.

    Attributes:
        max_concurrency: most requests in flight; fewer while the endpoint throttles.
        requests_per_minute: most requests started per minute, evenly spaced.
        tokens_per_minute: most prompt and completion tokens per minute, estimated from the request (four
            bytes a token, plus `max_tokens`) and corrected by the answer.
        request_timeout: seconds until a request counts as lost.
        max_cost_usd: stop once new answers cost this much, in US dollars; the model needs a price.
        max_requests: stop after this many requests to the endpoint.
        max_unusable_answers: stop after this many new answers of which none could be used; 0: never.
        patience: how long failing requests are repeated.

    Example:
        >>> careful = Limits(max_concurrency=8, requests_per_minute=60, max_cost_usd=5.0)
    """

    max_concurrency: int = 64
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    request_timeout: float = 600.0
    max_cost_usd: float | None = None
    max_requests: int | None = None
    max_unusable_answers: int = 20
    patience: Patience = field(default_factory=Patience)


DEFAULT_ENDPOINT = EndpointOptions()
DEFAULT_LIMITS = Limits()
