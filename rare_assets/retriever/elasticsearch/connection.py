"""Send requests to Elasticsearch, which outlast an outage of the server, and check every item of an answer.

An msearch answers 200 even if some searches failed: each of these is repeated if its failure may pass (429,
502, 503, 504), and else reported by the name of its question.
"""

from __future__ import annotations

import itertools
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from rare_assets.retriever.elasticsearch.address import (
    authorization,
    client_options,
    no_address,
    nodes_of,
)
from rare_assets.retriever.elasticsearch.errors import (
    PASSING,
    ElasticsearchError,
    ElasticsearchSettingError,
    Passing,
    error_reason,
)
from rare_assets.retriever.interface import IndexMissing
from rare_assets.text.shown_url import without_secrets

if TYPE_CHECKING:
    from elastic_transport import ApiError, TransportError
    from elasticsearch import Elasticsearch

# The major version that the client speaks.
CLIENT = "9"

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_reached: set[str] = set()  # URLs that this process has had a connection to


class Connection:
    """A connection to an Elasticsearch server of one or more nodes, and the alias that requests are about.

    Args: as of `ElasticsearchRetriever`.

    Raises:
        ElasticsearchSettingError: the settings contradict each other or are no address.
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
        nodes = nodes_of(url)
        options = client_options(
            nodes.urls, api_key=api_key, username=username, password=password, ca_certs=ca_certs
        )
        self.url = nodes.shown
        self.index = index
        self.wait_seconds = wait_seconds
        self.first_wait_seconds = first_wait_seconds
        self.threads = threads
        self._addresses = nodes.addresses
        self._authorization = authorization(options)
        self._closed = Event()
        options |= {"request_timeout": request_timeout, "connections_per_node": threads + 1}
        try:
            self.client = _client(nodes.urls, options)
        except ValueError as error:
            if ca_certs or "url" not in str(error).lower():
                raise ElasticsearchSettingError(without_secrets(error, url)) from None
            raise no_address(nodes.shown) from None

    def __repr__(self) -> str:
        return f"Connection({self.url!r}, index={self.index!r})"

    def close(self) -> None:
        """Close the connections, and end the waiting of all requests."""
        self._closed.set()
        self.client.close()

    def ask(self, what: str, call: Callable[[], Result], stop: Event | None = None) -> Result:
        """Send a request, and repeat it for `wait_seconds` while the server can't answer.

        Args:
            what: what the request is to do, as a verb for people.
            call: sends the request; called again after each failure that may pass.
            stop: ends the waiting when another thread sets it.

        Raises:
            ElasticsearchError: the server refuses the request, or did not answer in time.
        """
        from elastic_transport import ApiError, TransportError

        if self.first_wait_seconds is not None and self.url not in _reached:
            self._reach(min(self.first_wait_seconds, self.wait_seconds))
        stop = stop or Event()
        deadline = None
        for attempt in itertools.count():
            try:
                answer = call()
            except Passing as error:
                reason = str(error)
            except TransportError as error:
                reason = self._passing_transport_error(what, error)
            except ApiError as error:
                reason = self._passing_api_error(what, error)
            else:
                if deadline:
                    _log.warning("Elasticsearch answers again: %s", what)
                return answer
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

    def _passing_transport_error(self, what: str, error: TransportError) -> str:
        """Return why no answer came, if another try may bring one. Raises ElasticsearchError."""
        from elastic_transport import ConnectionError, ConnectionTimeout, TlsError

        if not isinstance(error, ConnectionError | ConnectionTimeout):
            raise ElasticsearchError(
                f"what answers at {self.url} is no Elasticsearch; could not {what}: {error}"
            ) from error
        # A server that dies ends a handshake so; else it is the certificate or scheme.
        if isinstance(error, TlsError) and "EOF" not in str(error):
            raise ElasticsearchError(
                f"no secure connection to Elasticsearch at {self.url} to {what}: {error} "
                "(ELASTICSEARCH_CA_CERTS names the CA file; is the URL's scheme right?)"
            ) from error
        return f"{type(error).__name__}: {error.message}"

    def _passing_api_error(self, what: str, error: ApiError) -> str:
        """Return what a server answered, if another try may bring more. Raises ElasticsearchError."""
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
                *(status, kind),
            ) from error
        # Closed means: another sync is setting k1 and b this very moment.
        if status not in PASSING and kind != "index_closed_exception":
            raise ElasticsearchError(
                f"Elasticsearch at {self.url} refused to {what}: {status} {kind}: {detail}",
                *(status, kind),
            ) from error
        return f"{status} {kind}: {detail}"

    def _other_product(self) -> str:
        """Return a sentence about a server that answers and does not understand the client."""
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
        """Wait for a node that accepts connections. Raises ElasticsearchError after so many seconds."""
        deadline = time.monotonic() + seconds
        for attempt in itertools.count():
            for host, port in self._addresses:
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
        """Send a request that not every deployment offers; returns False if this one does not offer it."""
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
        """Yield the results of `work` in the items' order; items are read as threads get free for them.

        Args:
            work: called with an item and an event, which is set once another thread has failed.
            items: read lazily.
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
    def background_worker(self) -> Iterator[Callable[[Callable[[Event], Result]], Future[Result]]]:
        """Return a function that starts work in one other thread, one piece after the other.

        The work is called with an event, which is set at the end of the context.
        """
        stop = Event()
        pool = ThreadPoolExecutor(1, thread_name_prefix="elasticsearch-background")
        try:
            yield lambda work: pool.submit(work, stop)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def search(
        self, what: str, index: str, body: Mapping[str, Any], stop: Event | None = None
    ) -> list[dict[str, Any]]:
        """Return the hits of one search over all shards of an index.

        Args:
            what: what the search is for, as a verb for people.
            index: its name or alias.
            body: of the search.
            stop: ends the waiting when another thread sets it.
        """
        response = self.ask(
            what,
            lambda: self.client.search(index=index, allow_partial_search_results=False, **body),
            stop,
        )
        hits: list[dict[str, Any]] = response["hits"]["hits"]
        return hits

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Return the number of documents in an index that a query fits, over all of its shards."""
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
        """Return the hits of several searches, in their order; searches that fail for a moment are repeated.

        Args:
            names: of the questions, for messages.
            bodies: of the searches.
            stop: ends the waiting when another thread sets it.
            global_statistics: count terms over all shards of the index before ranking.

        Raises:
            IndexMissing: there is no index of that name.
            ElasticsearchError: a search is refused; the message names its question.
        """
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
                failure = self._passing_failure(item, names[i])
                if failure is None:
                    found[i] = item.get("hits", {}).get("hits", [])
                else:
                    again.append(i)
                    reason = reason or failure
            pending = again
            if again:
                raise Passing(reason)

        if bodies:
            self.ask("search", once, stop)
        return found

    def _passing_failure(self, item: Mapping[str, Any], name: str) -> str | None:
        """Return why a search of an msearch is to be repeated; None if it is whole.

        Raises IndexMissing and ElasticsearchError if another try does not help.
        """
        if "error" in item:
            status = item.get("status", 200)
            kind, detail = error_reason(item)
            if kind == "index_not_found_exception":
                raise self.missing()
            message = f"question {name!r}: {status} {kind}: {detail}"
            if status not in PASSING and kind != "index_closed_exception":
                raise ElasticsearchError(
                    f"Elasticsearch at {self.url} refused the query of {message}",
                    *(status, kind),
                )
            return message
        if item.get("timed_out") or item["_shards"]["failed"]:
            return f"question {name!r}: a part of the index did not answer"
        return None

    def concurrent_sync_error(self, how: str) -> ElasticsearchError:
        """Return the error for an index that another sync has changed meanwhile; `how` is the sentence's verb."""
        return ElasticsearchError(
            f"the index {self.index!r} at {self.url} {how}: another sync, or somebody, changed it "
            "meanwhile; materialize corpus_index again"
        )

    def missing(self) -> IndexMissing:
        """Return the error for an alias that points to no index."""
        return IndexMissing(
            f"Elasticsearch at {self.url} has no index {self.index!r}: materialize corpus_index"
        )


def _client(urls: Sequence[str], options: Mapping[str, Any]) -> Elasticsearch:
    """Return a client that leaves statuses to `Connection.ask`: it would repeat them at once, without a pause."""
    from elasticsearch import Elasticsearch

    return Elasticsearch(urls, max_retries=len(urls), retry_on_status=(), **options)


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in tuples of `size`, the last of which may be shorter.

    >>> list(batched("abc", 2))
    [('a', 'b'), ('c',)]
    """
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
