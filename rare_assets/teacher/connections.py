"""Connections to one endpoint: its address, headers and key, and what redirects it sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from pydantic import SecretStr

from rare_assets.teacher.address import Address
from rare_assets.text.shown_url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

# A client's pool looks at all its connections for every request; several small pools are cheaper.
_LANE_WIDTH = 32
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 3
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Shorter values would be found in words.
_SECRET_LENGTH = 4
_SECRET_BODY_LENGTH = 16


@dataclass(slots=True, eq=False)
class _Lane:
    """A client with its connections, and the requests that it has in flight."""

    client: openai.AsyncOpenAI
    in_flight: int = 0


class Connections:
    """Clients of one endpoint, as many as its requests in flight need.

    Args:
        address: where it is.
        key: sent as a bearer token, and to Azure in its own header; "" for none.
        headers: further headers of every request, which go before the usual ones; secrets.
        extra_body: of this, long texts are secrets, too.
        request_timeout: seconds until a request counts as lost.

    Raises:
        ValueError: key or headers can't be sent; the message does not repeat them.
    """

    def __init__(
        self,
        address: Address,
        key: str,
        headers: Mapping[str, SecretStr],
        extra_body: Mapping[str, Any],
        request_timeout: float,
    ) -> None:
        if not (key.isascii() and key.isprintable()):
            raise ValueError("The API key has characters that no HTTP header can carry.")
        self._headers = {name: value.get_secret_value() for name, value in headers.items()}
        for name, value in self._headers.items():
            if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
                raise ValueError(
                    f"The header {name!r} of RARE_EXTRA_HEADERS has characters that no HTTP header "
                    "can carry."
                )
        if key and address.is_azure:
            self._headers = {"api-key": key, **self._headers}
        self._address = address
        self._key = key
        self._extra_body = extra_body
        self._request_timeout = request_timeout
        self._lanes: list[_Lane] = []

    async def close(self) -> None:
        """Close all connections."""
        while self._lanes:
            await self._lanes.pop().client.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Send a request. Errors are those of the openai client."""
        with self._lane() as client:
            return await client.post(path, cast_to=bytes, body=body)

    async def get(self, path: str) -> bytes:
        """As `post`, for what is only read."""
        with self._lane() as client:
            return await client.get(path, cast_to=bytes)

    @property
    def client(self) -> openai.AsyncOpenAI:
        """A client for what is not a chat completion; it tries nothing twice."""
        return self._free_lane().client

    def redact(self, text: str, url: str) -> str:
        """A text without key, headers, and what is secret in the URL as it was given."""
        text = without_secrets(text, url, self._address.base_url)
        words = [self._key, *self._headers.values()]
        words += [word for value in self._headers.values() for word in value.split()]
        secrets = {word for word in words if len(word) >= _SECRET_LENGTH}
        secrets |= {each for each in _texts(self._extra_body) if len(each) >= _SECRET_BODY_LENGTH}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "[API key]" if secret == self._key else "[hidden]")
        return text

    @contextmanager
    def _lane(self) -> Iterator[openai.AsyncOpenAI]:
        lane = self._free_lane()
        lane.in_flight += 1
        try:
            yield lane.client
        finally:
            lane.in_flight -= 1

    def _free_lane(self) -> _Lane:
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
            base_url=self._address.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=timeout,
            default_headers=self._headers,
            default_query=dict(self._address.query),
            http_client=_http_client()(limits=limits, timeout=timeout),
        )
        self._lanes.append(_Lane(client))
        return self._lanes[-1]


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def _http_client() -> Any:
    """A class of HTTP clients that send a request again where its own host redirects it.

    Others turn a POST into a GET there. Another host gets neither key nor prompt.
    """
    import openai

    class Client(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            if request.method != "POST":
                return await super().send(request, **options)
            options["follow_redirects"] = False
            for _ in range(_HOPS):
                response = await super().send(request, **options)
                target = same_host_target(request, response)
                if target is None:
                    break
                await response.aclose()
                headers = [(n, v) for n, v in request.headers.items() if n.lower() != "host"]
                request = self.build_request(
                    "POST",
                    target,
                    headers=headers,
                    content=await request.aread(),
                    extensions=request.extensions,
                )
            return response

    return Client


def same_host_target(request: Any, response: Any) -> str | None:
    """Where a response redirects to, if that is the same host and no less safe."""
    if response.status_code not in _REDIRECTS or not response.headers.get("location"):
        return None
    target = urljoin(str(request.url), response.headers["location"])
    old, new = urlsplit(str(request.url)), urlsplit(target)
    downgraded = (old.scheme, new.scheme) == ("https", "http")
    if downgraded or new.scheme not in ("http", "https") or old.hostname != new.hostname:
        return None
    return target
