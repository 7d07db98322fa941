"""Read an endpoint's address from what people put into OPENAI_BASE_URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from rare_assets.text.shown_url import is_clear, shown

OPENAI_URL = "https://api.openai.com/v1"
# What is asked for below the base URL: people paste the whole URL of a request.
_PASTED = re.compile(
    r"(/chat/completions|/completions|/responses|/embeddings|/models|/batches|/files)/*\Z"
)
_AROUND = " \t\r\n\v\f\"'<>\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"
_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


class Address(NamedTuple):
    """A base URL, and the query that every request to it carries (Azure's `api-version`)."""

    base_url: str
    query: Mapping[str, str]

    @property
    def is_azure(self) -> bool:
        """True if Azure serves it, which wants the key in a header of its own."""
        return self._host.endswith(_AZURE)

    @property
    def is_loopback(self) -> bool:
        """True if it is on this machine, where no proxy has anything to reach."""
        if self._host == "localhost" or self._host.endswith(".localhost"):
            return True
        try:
            return ip_address(self._host).is_loopback
        except ValueError:
            return False

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def proxy(self) -> str | None:
        """The proxy by which this process' environment has it reached, as people may see it; None without."""
        parts = urlsplit(self.base_url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or self.is_loopback or proxy_bypass(parts.netloc.rpartition("@")[2]):
            return None
        return shown(proxy)


def address_of(url: str) -> Address:
    """Read a base URL, or the whole URL of a request.

    Raises:
        ValueError: it is no URL of an endpoint; the message shows no secret of it.

    Example:
        >>> address_of(" https://host/v1/chat/completions?api-version=1 ")
        Address(base_url='https://host/v1', query={'api-version': '1'})
    """
    url = url.strip(_AROUND)
    try:
        parts = urlsplit(url)
        good = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and is_clear(url)
        parts.port  # noqa: B018 (raises where it is no number)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"OPENAI_BASE_URL is {shown(url)!r}: give http(s)://host/v1, with the key in OPENAI_API_KEY. "
            "In a password that stands in it, write /, ?, # and @ as %2F, %3F, %23 and %40."
        )
    path = _PASTED.sub("", parts.path)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Address(urlunsplit((parts.scheme.lower(), parts.netloc, path, "", "")), query)


def endpoint_name(url: str | None, model: str) -> str:
    """Return the name of a model at an endpoint; what is learnt of it is kept under this name.

    Args:
        url: base URL; None for OpenAI's own.
        model: the model's name there.

    Raises:
        ValueError: the URL is no URL of an endpoint.

    Example:
        >>> endpoint_name("https://user:password@host/v1", "a-model")
        'the endpoint https://host/v1 (model a-model)'
    """
    return f"the endpoint {shown(address_of(url or OPENAI_URL).base_url)} (model {model})"
