"""A real HTTP server in front of Elasticsearch that records requests and makes some of them fail."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def lines(self) -> list[Any]:
        """What a bulk or msearch body holds."""
        return [json.loads(line) for line in self.body.splitlines()]


class Proxy:
    """Forwards to Elasticsearch; set `refuse` or `change` to play its faults.

    `refuse(request)` gives (status, error) for a request that is not to be forwarded, or None.
    `change(request, answer)` changes an answer in place, or does nothing.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.requests: list[Request] = []
        self.refuse: Callable[[Request], tuple[int, dict[str, Any]] | None] = lambda request: None
        self.change: Callable[[Request, Any], None] = lambda request, answer: None
        self.url = ""

    def sent(self, part: str) -> list[Request]:
        """Requests with this in their path."""
        return [request for request in self.requests if part in request.path]

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        if refused := self.refuse(request):
            return refused[0], {"error": refused[1], "status": refused[0]}
        host = urlsplit(self.target)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k != "host"}
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        self.change(request, answer)
        return response.status, answer


@contextmanager
def running_proxy(target: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy on loopback, until the block ends; on a free port unless one is given."""
    proxy = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(
                self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body
            )
            status, answer = proxy.answer(request)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=9")
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = forward  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
