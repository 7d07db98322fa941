"""Connect to one endpoint: its address, headers and key, and the redirects that it sends."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

from rare_assets.teacher.address import OPENAI_URL, Address, address_of, endpoint_name
from rare_assets.teacher.faults import BadEnvironment
from rare_assets.teacher.options import EndpointOptions
from rare_assets.text.shown_url import shown, without_secrets

if TYPE_CHECKING:
    import ssl
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
        options: address, key, further headers and body fields. The key is sent as a bearer token, and to
            Azure in its own header; further headers go before the usual ones. Key, headers and long texts
            in the body are secrets.
        request_timeout: seconds until a request counts as lost.

    Raises:
        ValueError: the address is none, the key is missing, or key or headers can't be sent; the message
            does not repeat them.
    """

    def __init__(self, options: EndpointOptions, request_timeout: float) -> None:
        self._url = options.base_url or OPENAI_URL
        self._address = address_of(self._url)
        self._key = options.api_key.get_secret_value().strip() if options.api_key else ""
        if not self._key and options.base_url is None:
            raise ValueError("OpenAI's own endpoint needs a key: set OPENAI_API_KEY.")
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("The API key has characters that no HTTP header can carry.")
        given = options.extra_headers.items()
        self._headers = {name: value.get_secret_value() for name, value in given}
        for name, value in self._headers.items():
            if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
                raise ValueError(
                    f"The header {name!r} of RARE_EXTRA_HEADERS has characters that no HTTP header "
                    "can carry."
                )
        if self._key and self._address.is_azure:
            self._headers = {"api-key": self._key, **self._headers}
        self._extra_body = options.extra_body
        self._request_timeout = request_timeout
        self._lanes: list[_Lane] = []

    async def close(self) -> None:
        """Close all connections."""
        while self._lanes:
            await self._lanes.pop().client.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Send a request, and return the body of the response.

        Args:
            path: below the base URL, as `/chat/completions`.
            body: the request's JSON.

        Raises:
            openai.OpenAIError: as the client tells it; nothing is tried twice.
        """
        with self._lane() as client:
            return await client.post(path, cast_to=bytes, body=body)

    async def get(self, path: str) -> bytes:
        """Read what lies at a path; see `post`."""
        with self._lane() as client:
            return await client.get(path, cast_to=bytes)

    @property
    def client(self) -> openai.AsyncOpenAI:
        """A client for what is not a chat completion; it tries nothing twice."""
        return self._free_lane().client

    def name(self, model: str) -> str:
        """Return the endpoint's name for people, without secrets."""
        return self.redact(endpoint_name(self._url, model))

    def redact(self, text: str) -> str:
        """Return a text without the key, the headers, and what is secret in the URL and the body."""
        text = without_secrets(text, self._url, self._address.base_url)
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
        """Return a client with room for one more request."""
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
            http_client=_http_client(self._address, limits=limits, timeout=timeout),
        )
        self._lanes.append(_Lane(client))
        return self._lanes[-1]


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def _authorities() -> ssl.SSLContext:
    """Return the certificate authorities that clients trust by default, read once: each client would read them anew."""
    places = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    try:
        return _read_authorities(*places.values())
    except OSError as error:  # an SSLError is one
        where = ", ".join(f"{name}={place}" for name, place in places.items() if place)
        raise BadEnvironment(
            f"the certificate authorities ({where or 'of this system'}) can't be read: {error}"
        ) from error


@cache
def _read_authorities(*_: str | None) -> ssl.SSLContext:
    return _httpx().create_ssl_context()


def _httpx() -> Any:
    """Return httpx, or what this release of openai has in its place."""
    import openai

    base = openai.DefaultAsyncHttpxClient.__base__
    return importlib.import_module(base.__module__.partition(".")[0])


def import_client() -> None:
    """Import what a client of an endpoint imports no sooner than it is made and has sent something, for all
    processes that are forked from this one."""
    _httpx().AsyncHTTPTransport(verify=False)
    with suppress(ImportError):
        importlib.import_module("anyio._backends._asyncio")


def _http_client(address: Address, **options: Any) -> Any:
    """Return an HTTP client that sends a request again where its own host redirects it.

    Others turn a POST into a GET there. Another host gets neither key nor prompt. Errors name the proxy by
    which requests go; none is asked for what is on this machine.

    Raises:
        BadEnvironment: certificate authorities or proxies can't be used.
    """
    import openai

    httpx, proxy = _httpx(), address.proxy

    class Client(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            try:
                return await self._send_on(request, **options)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
                if proxy is None:
                    raise
                said = (
                    f"{error} (by the proxy {proxy}, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say)"
                )
                raise type(error)(said.lstrip(), request=request) from error

        async def _send_on(self, request: Any, **options: Any) -> Any:
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

    authorities = _authorities()
    try:
        return Client(verify=authorities, trust_env=not address.is_loopback, **options)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        proxies = getproxies()
        named = ", ".join(f"{scheme.upper()}_PROXY={shown(url)}" for scheme, url in proxies.items())
        said = without_secrets(error, *proxies.values())
        raise BadEnvironment(f"the proxies ({named}) can't be used: {said}") from error


def same_host_target(request: Any, response: Any) -> str | None:
    """Return where a response redirects to, if that is the same host and no less safe; else None."""
    if response.status_code not in _REDIRECTS or not response.headers.get("location"):
        return None
    target = urljoin(str(request.url), response.headers["location"])
    old, new = urlsplit(str(request.url)), urlsplit(target)
    downgraded = (old.scheme, new.scheme) == ("https", "http")
    if downgraded or new.scheme not in ("http", "https") or old.hostname != new.hostname:
        return None
    return target
