"""Requests to Elasticsearch that outlast a server that is gone, and that check every item.

An msearch answers 200 with failures inside: each item is looked at, repeated if it failed in passing
(429, 502, 503, 504), and else reported by the name of its question.
"""

from __future__ import annotations

import base64
import itertools
import logging
import random
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from rare_assets.retriever.interface import IndexMissing
from rare_assets.text.shown_url import is_clear, shown_all, urls_of, without_secrets

PASSING = frozenset({429, 502, 503, 504})
# The major version that the client speaks.
CLIENT = "9"
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_reached: set[str] = set()  # URLs that this process has had a connection to


class ElasticsearchError(RuntimeError):
    """Elasticsearch refused something or is gone; the message says what and what to do.

    Attributes:
        status: HTTP status, 0 if there was no answer.
        kind: Elasticsearch's name for the error, as `index_not_found_exception`.
    """

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def not_offered(self) -> bool:
        """Whether this deployment, as a serverless one, does not let anybody do that."""
        return self.status in (405, 410) or "serverless" in str(self).lower()


class ElasticsearchSettingError(ElasticsearchError, ValueError):
    """Settings that contradict each other or are no address; the message names them."""


class Passing(Exception):
    """Part of a request failed in a way that another try may mend."""


class Connection:
    """An Elasticsearch server, of one or more nodes, and the alias that requests are about.

    Args: see `ElasticsearchRetriever`.
    """

    def __init__(
        self,
        url: str,
        index: str,
        *,
        api_key: str | SecretStr | None,
        username: str | None,
        password: str | SecretStr | None,
        ca_certs: str | None,
        request_timeout: float,
        wait_seconds: float,
        first_wait_seconds: float | None,
        threads: int,
    ) -> None:
        from elasticsearch import Elasticsearch

        hosts = [url_of_cloud_id(url)] if is_cloud_id(url) else urls_of(url)
        hosts = [_with_port(host) for host in hosts]
        self.url = shown_all(",".join(hosts))
        self._addresses = [_address(host) for host in hosts]
        wrong = ElasticsearchSettingError(
            f"ELASTICSEARCH_URL is {self.url!r}: give http(s)://host:port, or several with commas, or the "
            "cloud id of a hosted deployment. In a "
            "password that stands in it, write /, ?, #, @, % and , as %2F, %3F, %23, %40, %25 and %2C, or "
            "set ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD; a key goes to ELASTICSEARCH_API_KEY."
        )
        if not hosts or None in self._addresses:
            raise wrong
        if api_key and (username or password):
            raise ElasticsearchSettingError(
                "give ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and _PASSWORD, not both"
            )
        if bool(username) != bool(password):
            raise ElasticsearchSettingError(
                "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD go together: one is missing"
            )
        options: dict[str, Any] = {}
        if api_key:
            options["api_key"] = _reveal(api_key)
        if username and password:
            options["basic_auth"] = (username, _reveal(password))
        if ca_certs:
            if not all(host.startswith("https://") for host in hosts):
                raise ElasticsearchSettingError(
                    "ELASTICSEARCH_CA_CERTS is set, but ELASTICSEARCH_URL is not https"
                )
            options["ca_certs"] = ca_certs
        self._authorization = _authorization(options)
        self.index = index
        self.wait_seconds = wait_seconds
        self.first_wait_seconds = first_wait_seconds
        self.threads = threads
        self._closed = Event()
        # Statuses are retried with back-off here; the client would repeat them at once.
        try:
            self.client = Elasticsearch(
                hosts,
                request_timeout=request_timeout,
                max_retries=len(hosts),
                retry_on_status=(),
                connections_per_node=threads + 1,
                **options,
            )
        except ValueError as error:
            if ca_certs or "url" not in str(error).lower():
                raise ElasticsearchSettingError(without_secrets(error, url)) from None
            raise wrong from None

    def __repr__(self) -> str:
        return f"Connection({self.url!r}, index={self.index!r})"

    def close(self) -> None:
        """Close the connections; nobody waits for the server any more."""
        self._closed.set()
        self.client.close()

    def ask(self, what: str, call: Callable[[], Result], stop: Event | None = None) -> Result:
        """Send a request that may be repeated, for `wait_seconds` while the server can't answer."""
        from elastic_transport import (
            ApiError,
            ConnectionError,
            ConnectionTimeout,
            TlsError,
            TransportError,
        )

        if self.first_wait_seconds is not None and self.url not in _reached:
            self._reach(min(self.first_wait_seconds, self.wait_seconds))
        stop = stop or Event()
        deadline = None
        for attempt in itertools.count():
            try:
                answer = call()
                if deadline:
                    _log.warning("Elasticsearch answers again: %s", what)
                return answer
            except Passing as error:
                reason = str(error)
            except (ConnectionError, ConnectionTimeout) as error:
                # A server that dies ends a handshake so; else it is the certificate or scheme.
                if isinstance(error, TlsError) and "EOF" not in str(error):
                    raise ElasticsearchError(
                        f"no secure connection to Elasticsearch at {self.url} to {what}: {error} "
                        "(ELASTICSEARCH_CA_CERTS names the CA file; is the URL's scheme right?)"
                    ) from error
                reason = f"{type(error).__name__}: {error.message}"
            except TransportError as error:
                raise ElasticsearchError(
                    f"what answers at {self.url} is no Elasticsearch; could not {what}: {error}"
                ) from error
            except ApiError as error:
                kind, detail = error_reason(error.body)
                status = error.meta.status
                # The client's word for a server that is none, and an older server's for the client.
                if status < 300 or kind == "media_type_header_exception":
                    raise ElasticsearchError(self._other_product(), status, kind) from error
                if status in (401, 403):
                    raise ElasticsearchError(
                        f"Elasticsearch at {self.url} lets nobody {what} with these credentials "
                        f"({status} {kind}: {detail}): check ELASTICSEARCH_API_KEY or "
                        "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD, and their privileges "
                        f"on {self.index}*",
                        status,
                        kind,
                    ) from error
                # Closed means: another sync is setting k1 and b this very moment.
                if status not in PASSING and kind != "index_closed_exception":
                    raise ElasticsearchError(
                        f"Elasticsearch at {self.url} refused to {what}: {status} {kind}: {detail}",
                        status,
                        kind,
                    ) from error
                reason = f"{status} {kind}: {detail}"
            now = time.monotonic()
            if not deadline:
                deadline = now + self.wait_seconds
                _log.warning(
                    "Elasticsearch can't %s, waiting up to %g s: %s",
                    *(what, self.wait_seconds, reason),
                )
            delay = random.uniform(0.5, 1) * min(0.1 * 2**attempt, 5)
            over = now >= deadline or self._closed.is_set()
            if over or stop.wait(min(delay, deadline - now)):
                raise ElasticsearchError(
                    f"Elasticsearch at {self.url} could not {what} for {self.wait_seconds:g} s, "
                    f"at last because of {reason}. What is done is kept: run again when it is back"
                )
        raise AssertionError("unreachable")

    def _other_product(self) -> str:
        """Return what to tell of a server that answers, and does not take what the client sends."""
        from elastic_transport import TransportError

        remedy = "or unset ELASTICSEARCH_URL: the embedded index ranks alike"
        try:
            # Without the version that the client demands, which others refuse.
            answer = self.client.transport.perform_request(
                "GET", "/", headers={**self._authorization, "accept": "application/json"}
            )
            version = answer.body["version"]
            number, distribution = version["number"], version.get("distribution")
        except (TransportError, LookupError, TypeError, AttributeError):
            number = distribution = None
        if distribution == "opensearch":
            product = f"OpenSearch {number}, which is not supported"
            return (
                f"What answers at {self.url} is {product}: give the URL of an Elasticsearch {CLIENT}, "
                f"{remedy}"
            )
        product = f"Elasticsearch {number}" if number else "no Elasticsearch, or an older one"
        return (
            f"What answers at {self.url} is {product}, and version {CLIENT} or a serverless project is "
            f"needed: upgrade it, {remedy}"
        )

    def _reach(self, seconds: float) -> None:
        """Wait so long for a node that accepts connections; raises ElasticsearchError."""
        deadline = time.monotonic() + seconds
        for attempt in itertools.count():
            for host, port in filter(None, self._addresses):
                left = max(deadline - time.monotonic(), 0.1)
                try:
                    socket.create_connection((host, port), left / len(self._addresses)).close()
                except OSError as error:
                    reason = str(error)
                else:
                    _reached.add(self.url)
                    return
            if not attempt:
                _log.warning(
                    "No Elasticsearch at %s, waiting up to %g s for it: %s",
                    *(self.url, seconds, reason),
                )
            if time.monotonic() >= deadline:
                raise ElasticsearchError(
                    f"There is no Elasticsearch at {self.url}: {reason}. Start it, or change "
                    "ELASTICSEARCH_URL (unset: the embedded index)"
                )
            time.sleep(min(0.5, max(deadline - time.monotonic(), 0)))

    def optional(self, what: str, call: Callable[[], Any]) -> bool:
        """Whether a request that not every deployment offers was carried out."""
        try:
            self.ask(what, call)
        except ElasticsearchError as error:
            if not error.not_offered:
                raise
            _log.debug("left out, since not offered here: %s (%s)", what, error)
            return False
        return True

    def parallel(
        self, work: Callable[[Item, Event], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Results in the items' order, taking items only as threads get free for them.

        An error ends the waiting of all threads, which they learn from the event.
        """
        stop = Event()
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="elasticsearch") as pool:
            try:
                for item in items:
                    pending.append(pool.submit(work, item, stop))
                    if len(pending) >= 2 * self.threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def beside(self) -> Iterator[Callable[[Callable[[Event], Result]], Future[Result]]]:
        """A function that starts work in a thread of its own, one after the other.

        The end of the context ends the waiting of that thread, which it learns from the event.
        """
        stop = Event()
        pool = ThreadPoolExecutor(1, thread_name_prefix="elasticsearch-beside")
        try:
            yield lambda work: pool.submit(work, stop)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def search(
        self, what: str, index: str, body: Mapping[str, Any], stop: Event | None = None
    ) -> list[dict[str, Any]]:
        """Hits of one search that is whole: no shard was left out."""
        response = self.ask(
            what,
            lambda: self.client.search(index=index, allow_partial_search_results=False, **body),
            stop,
        )
        hits: list[dict[str, Any]] = response["hits"]["hits"]
        return hits

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Documents in an index that a query fits, none of its shards left out."""
        answer = self.ask(
            f"count what {index} holds", lambda: self.client.count(index=index, query=query)
        )
        if answer["_shards"]["failed"]:
            raise ElasticsearchError(
                f"Elasticsearch at {self.url} could not count all of {index}: a part of it did not "
                "answer. What is done is kept: run again"
            )
        return int(answer["count"])

    def msearch(
        self,
        names: Sequence[str],
        bodies: Sequence[Mapping[str, Any]],
        stop: Event,
        *,
        global_statistics: bool,
    ) -> list[list[dict[str, Any]]]:
        """Hits of several searches; those that fail in passing are repeated, others named."""
        found: list[list[dict[str, Any]]] = [[] for _ in bodies]
        pending = list(range(len(bodies)))

        def once() -> None:
            nonlocal pending
            header = {"allow_partial_search_results": False}
            answer = self.client.msearch(
                index=self.index,
                searches=[part for i in pending for part in (header, bodies[i])],
                search_type="dfs_query_then_fetch" if global_statistics else None,
                filter_path=[
                    *("responses.status", "responses.error", "responses.timed_out"),
                    *("responses._shards.failed", "responses.hits.hits._score"),
                    "responses.hits.hits.fields",
                ],
            )
            again, reason = [], ""
            for i, item in zip(pending, answer["responses"], strict=True):
                status = item.get("status", 200)
                if "error" in item:
                    kind, detail = error_reason(item)
                    if kind == "index_not_found_exception":
                        raise self.missing()
                    message = f"question {names[i]!r}: {status} {kind}: {detail}"
                    if status not in PASSING and kind != "index_closed_exception":
                        raise ElasticsearchError(
                            f"Elasticsearch at {self.url} refused the query of {message}",
                            *(status, kind),
                        )
                    again.append(i)
                    reason = reason or message
                elif item.get("timed_out") or item["_shards"]["failed"]:
                    again.append(i)
                    reason = reason or f"question {names[i]!r}: a part of the index did not answer"
                else:
                    found[i] = item.get("hits", {}).get("hits", [])
            pending = again
            if again:
                raise Passing(reason)

        if bodies:
            self.ask("search", once, stop)
        return found

    def overtaken(self, how: str) -> ElasticsearchError:
        return ElasticsearchError(
            f"the index {self.index!r} at {self.url} {how}: another sync, or somebody, changed it "
            "meanwhile; materialize corpus_index again"
        )

    def missing(self) -> IndexMissing:
        return IndexMissing(
            f"Elasticsearch at {self.url} has no index {self.index!r}: materialize corpus_index"
        )


def _reveal(secret: str | SecretStr) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret


def _authorization(options: Mapping[str, Any]) -> dict[str, str]:
    """The header that the client makes of its options."""
    if "api_key" in options:
        return {"authorization": f"ApiKey {options['api_key']}"}
    if "basic_auth" in options:
        token = base64.b64encode(":".join(options["basic_auth"]).encode()).decode()
        return {"authorization": f"Basic {token}"}
    return {}


def is_cloud_id(setting: str) -> bool:
    """Whether a setting is the cloud id of a hosted deployment, as its page shows it, and no URL."""
    return "://" not in setting and _of_cloud_id(setting) is not None


def url_of_cloud_id(setting: str) -> str:
    """Return the URL of the deployment that a cloud id names: `<name>:<base64 of domain$server$...>`.

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
    """Host and port, None if it is no such URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and host and port and is_clear(url)
    return (host, port) if is_address and host and port and not parts.fragment else None


def error_reason(body: object) -> tuple[str, str]:
    """Kind and reason of an error answer, the innermost there is."""
    error = body.get("error") if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "", str(error)[:500]
    for inner in [*error.get("root_cause", []), error.get("caused_by")]:
        if isinstance(inner, Mapping) and inner.get("type"):
            return str(inner["type"]), str(inner.get("reason"))[:500]
    return str(error.get("type", "")), str(error.get("reason"))[:500]


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
