"""Read which nodes a setting names, and with which credentials they are asked."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from rare_assets.retriever.elasticsearch.errors import ElasticsearchSettingError
from rare_assets.text.shown_url import is_clear, shown_all, urls_of

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")


class Nodes(NamedTuple):
    """The nodes of one server.

    Attributes:
        urls: one URL a node, with its port.
        addresses: host and port of each node, in the same order.
        shown: the URLs for people, without secrets.
    """

    urls: list[str]
    addresses: list[tuple[str, int]]
    shown: str


def nodes_of(setting: str) -> Nodes:
    """Return the nodes that a setting names: URLs with commas between them, or a cloud id.

    Raises:
        ElasticsearchSettingError: a part of it is no URL of a node; the message shows no password.

    Example:
        >>> nodes_of("http://a:9200,https://b").addresses
        [('a', 9200), ('b', 443)]
    """
    given = [url_of_cloud_id(setting)] if is_cloud_id(setting) else urls_of(setting)
    urls = [_with_port(url) for url in given]
    shown = shown_all(",".join(urls))
    addresses = [address for url in urls if (address := _address(url)) is not None]
    if not urls or len(addresses) < len(urls):
        raise no_address(shown)
    return Nodes(urls, addresses, shown)


def no_address(shown: str) -> ElasticsearchSettingError:
    """Return the error for a setting, given as people may see it, that names no nodes."""
    return ElasticsearchSettingError(
        f"ELASTICSEARCH_URL is {shown!r}: give http(s)://host:port, or several with commas, or the "
        "cloud id of a hosted deployment. In a "
        "password that stands in it, write /, ?, #, @, % and , as %2F, %3F, %23, %40, %25 and %2C, or "
        "set ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD; a key goes to ELASTICSEARCH_API_KEY."
    )


def client_options(
    urls: Sequence[str],
    *,
    api_key: str | SecretStr | None,
    username: str | None,
    password: str | SecretStr | None,
    ca_certs: str | None,
) -> dict[str, Any]:
    """Return credentials and CA file as the Elasticsearch client takes them.

    Raises:
        ElasticsearchSettingError: they contradict each other or the nodes' URLs.
    """
    if api_key and (username or password):
        raise ElasticsearchSettingError(
            "give ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and _PASSWORD, not both"
        )
    if bool(username) != bool(password):
        raise ElasticsearchSettingError(
            "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD go together: one is missing"
        )
    if ca_certs and not all(url.startswith("https://") for url in urls):
        raise ElasticsearchSettingError(
            "ELASTICSEARCH_CA_CERTS is set, but ELASTICSEARCH_URL is not https"
        )
    options: dict[str, Any] = {}
    if api_key:
        options["api_key"] = _reveal(api_key)
    if username and password:
        options["basic_auth"] = (username, _reveal(password))
    if ca_certs:
        options["ca_certs"] = ca_certs
    return options


def authorization(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the header that the client makes of its options; empty without credentials."""
    if "api_key" in options:
        return {"authorization": f"ApiKey {options['api_key']}"}
    if "basic_auth" in options:
        token = base64.b64encode(":".join(options["basic_auth"]).encode()).decode()
        return {"authorization": f"Basic {token}"}
    return {}


def is_cloud_id(setting: str) -> bool:
    """Return whether a setting is the cloud id of a hosted deployment, as its page shows it, and no URL."""
    return "://" not in setting and _of_cloud_id(setting) is not None


def url_of_cloud_id(setting: str) -> str:
    """Return the URL of the deployment that a cloud id names: `<name>:<base64 of domain$server$...>`.

    Raises:
        ValueError: it is no cloud id.

    Example:
        >>> url_of_cloud_id("search:ZXhhbXBsZS5jb20kYWJjJGRlZg==")
        'https://abc.example.com:443'
    """
    found = _of_cloud_id(setting)
    if found is None:
        raise ValueError("not a cloud id")
    domain, server = found
    host, _, port = domain.partition(":")
    return f"https://{server}.{host}:{port or 443}"


def _of_cloud_id(setting: str) -> tuple[str, str] | None:
    """Return domain and server that a cloud id names; None if it is none."""
    _, colon, encoded = setting.strip().rpartition(":")
    try:
        parts = base64.b64decode(encoded, validate=True).decode("ascii").split("$")
    except ValueError:
        return None
    is_one = colon and len(parts) >= 2 and all(map(_HOST.fullmatch, parts[:2]))
    return (parts[0], parts[1]) if is_one else None


def _with_port(url: str) -> str:
    """Return an https URL that has no port with its own, as hosted deployments are written."""
    try:
        parts = urlsplit(url)
        is_without = parts.scheme == "https" and parts.hostname and parts.port is None
    except ValueError:
        return url
    if not is_without or not is_clear(url) or parts.netloc.endswith(":"):
        return url
    return parts._replace(netloc=f"{parts.netloc}:443").geturl()


def _address(url: str) -> tuple[str, int] | None:
    """Return host and port; None if it is no URL of a node."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and host and port and is_clear(url)
    return (host, port) if is_address and host and port and not parts.fragment else None


def _reveal(secret: str | SecretStr) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
