"""An OpenAI-compatible endpoint on loopback that answers without a model and fails on demand.

A real HTTP server on an event loop of its own: in a thread (`with FakeEndpoint(...) as endpoint`) or
as a process (`python -m rare_assets_tests.support.fake_endpoint --latency 4 --port 8000`). What it answers
follows from the request's body alone; what it does wrong, from a script or from shares drawn by a
seed, the body and how often that body was seen, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import re
import signal
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import responses
from typing import Any, Self

from rare_assets_tests.support.servers import REFUSALS, SHAPES, STRUCTURED_SHAPES, streamed

_WORD = re.compile(r"[A-Za-z][A-Za-z-]{3,}")
# Documents stand between <document-code> or <document-code number="1"> and the closing tag.
_DOCUMENT = re.compile(r'<(document-\w+)(?: number="(\d+)")?>\n(.*?)</\1>', re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with one request; `name` is one of the methods of `_Faults`.

    `seconds` is for `slow` (how long it takes more) and for `throttled` and `unavailable` (what
    Retry-After says, None for no such header), `date` gives Retry-After as an HTTP date, `text` goes
    into an error's message.
    """

    name: str
    seconds: float | None = None
    date: bool = False
    text: str = ""


@dataclass
class Recorded:
    """A request as it arrived; times are of `time.monotonic`."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    arrived: float
    answered: float | None = None
    fault: str | None = None

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Response:
    """What is sent back. `close` ends the connection after `send_only` bytes of the body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False
    send_only: int | None = None


Handler = Callable[[Recorded], Awaitable[Response | None]]


def json_response(status: int, content: Any, **headers: str) -> Response:
    """A JSON response; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(content).encode()
    return Response(status, body, {"Content-Type": "application/json", **named})


def error_response(
    status: int, message: str, *, code: str | None = None, param: str | None = None, **headers: str
) -> Response:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "fake_error", "code": code, "param": param}
    return json_response(status, {"error": error}, **headers)


class FakeEndpoint:
    """Plays /v1/chat/completions; more routes can be added with `route`.

    Args:
        latency: seconds until a chat request is answered.
        spread: of the latency, so much more or less at most, by the request: 0.5 is half to one and a half.
        script: faults of the first chat requests in order of arrival (None: no fault).
        fault_for: the fault of a request body, None for what script and shares say.
        shares: fault name or `Fault` -> the share of the other chat requests that meet it.
        refuses: optional parts answered with 400, of json_schema, bounds, json_object,
            temperature, seed, max_tokens.
        thinking: how a chain is sent: "reasoning_content", "reasoning", "think" (in tags), or None.
        key: the only API key accepted; None accepts any.
        models: the only model names known; None knows all.
        usage: whether responses say how many tokens they took; a text is sent in its place, as JSON.
        answer: gives the content for a request body, None for the usual.
        capacity: chat requests handled at once; more are throttled.
        server: of `servers.REFUSALS` (several with commas between), whose refusals it has.
        shape: of `servers.SHAPES` and `STRUCTURED_SHAPES`, where its answers stand.
        stream: whether it streams, though nobody asks for it.
        seed: of the shares.
        tls: what it serves https with; default, it serves http.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        spread: float = 0.0,
        script: Iterable[Fault | str | None] = (),
        fault_for: Callable[[dict[str, Any]], Fault | str | None] | None = None,
        shares: Mapping[Fault | str, float] | None = None,
        refuses: Iterable[str] = (),
        thinking: str | None = None,
        key: str | None = None,
        models: Iterable[str] | None = None,
        usage: bool | str = True,
        answer: Callable[[dict[str, Any]], str | None] | None = None,
        capacity: int | None = None,
        server: str = "",
        shape: str | None = None,
        stream: bool = False,
        seed: int = 0,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.latency = latency
        self.spread = spread
        # While it is, no good answer leaves.
        self.held = False
        self.script = deque(_as_fault(fault) for fault in script)
        self.fault_for = fault_for
        self.shares = {_as_fault(fault): share for fault, share in (shares or {}).items()}
        self.refuses = set(refuses)
        self.thinking = thinking
        self.key = key
        self.models = None if models is None else set(models)
        self.usage = usage
        self.answer = answer
        self.capacity = capacity
        self.server = [REFUSALS[name] for name in server.split(",") if name]
        self.shape = {**SHAPES, **STRUCTURED_SHAPES}[shape] if shape else None
        self.stream = stream
        self.seed = seed
        self.requests: list[Recorded] = []
        self.in_flight = 0
        self.high_water = 0
        self.keep_requests = True
        self.counts: Counter[str] = Counter()
        self.error: Exception | None = None
        self._seen: Counter[bytes] = Counter()
        self._routes: dict[tuple[str, str], Handler] = {}
        self._port = port
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._done: asyncio.Event | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.route("POST", r"/v1/chat/completions", self._chat)
        self.route("GET", r"/stats", self._stats)

    # ---- life

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}/v1"

    @property
    def port(self) -> int:
        return self._port

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self.serve(ready.set)), daemon=True
        )
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fake endpoint did not start")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._loop is not None
        assert self._done is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        if self.error is not None:
            raise RuntimeError("the fake endpoint failed") from self.error

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until `stop` or the end of the context; calls `ready` once it listens."""
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", self._port, backlog=1024, ssl=self._tls
        )
        self._port = server.sockets[0].getsockname()[1]
        ready()
        await self._done.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stop(self) -> None:
        """End `serve` from its own loop."""
        if self._done is not None:
            self._done.set()

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Send requests whose path matches the regular expression to `handler`.

        A handler that returns None drops the connection.
        """
        self._routes[method, path] = handler

    # ---- HTTP

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (recorded := await _read_request(reader)) is not None:
                response = await self._handle(recorded)
                recorded.answered = time.monotonic()
                if response is None:
                    break
                _write(writer, response)
                await writer.drain()
                if response.close:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.error = error
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _handle(self, recorded: Recorded) -> Response | None:
        path = recorded.path.partition("?")[0]
        for (method, pattern), handler in self._routes.items():
            if method == recorded.method and re.fullmatch(pattern, path):
                return await handler(recorded)
        return error_response(404, f"no such path: {path}")

    async def _stats(self, recorded: Recorded) -> Response:
        content = {"requests": sum(self.counts.values()), "high_water": self.high_water}
        return json_response(200, {**content, "outcomes": dict(self.counts)})

    # ---- chat completions

    async def _chat(self, recorded: Recorded) -> Response | None:
        if self.keep_requests:
            self.requests.append(recorded)
        self.in_flight += 1
        self.high_water = max(self.high_water, self.in_flight)
        try:
            fault = self._draw(recorded.raw)
            recorded.fault = fault.name if fault else None
            response = self._refusal(recorded)
            if response is not None:
                self.counts["refused"] += 1
                return response
            self.counts[fault.name if fault else "good"] += 1
            if fault is not None and hasattr(_Faults, fault.name):
                return await getattr(_Faults, fault.name)(self, fault, recorded)
            apart = random.Random(recorded.raw).uniform(-self.spread, self.spread)
            await asyncio.sleep(self.latency * (1 + apart))
            while self.held:  # noqa: ASYNC110 (set from another thread)
                await asyncio.sleep(0.02)
            return self._completed(recorded.body, fault)
        finally:
            self.in_flight -= 1

    def _draw(self, raw: bytes) -> Fault | None:
        """The fault of this request."""
        if self.capacity is not None and self.in_flight > self.capacity:
            return Fault("throttled")
        if self.fault_for and (fault := self.fault_for(json.loads(raw))):
            return _as_fault(fault)
        if self.script:
            return self.script.popleft()
        if not self.shares:
            return None
        content = hashlib.sha256(raw).digest()
        self._seen[content] += 1
        drawn = random.Random(f"{self.seed}/{content.hex()}/{self._seen[content]}").random()
        for fault, share in self.shares.items():
            if drawn < share:
                return fault
            drawn -= share
        return None

    def _refusal(self, recorded: Recorded) -> Response | None:
        """The error for what this endpoint does not accept at all."""
        sent = recorded.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and sent != self.key:
            message = f"Incorrect API key provided: {sent}"
            return error_response(401, message, code="invalid_api_key")
        body = recorded.body
        if self.models is not None and body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist"
            return error_response(404, message, code="model_not_found")
        for refuse in self.server:
            if (refused := refuse(body)) is not None:
                status, said = refused
                if isinstance(said, str):
                    return Response(status, said.encode(), {"Content-Type": "text/plain"})
                return json_response(status, said)
        form = body.get("response_format", {})
        if form.get("type") in self.refuses:
            message = (
                f"Invalid parameter: 'response_format' of type '{form['type']}' is not supported "
                "with this model."
            )
            return error_response(400, message, param="response_format")
        if "bounds" in self.refuses and re.search(r'"m(in|ax)Length"', json.dumps(form)):
            message = "Invalid schema for response_format: 'minLength' is not permitted."
            return error_response(400, message, param="response_format")
        for name in ("temperature", "seed", "max_tokens"):
            if name in body and name in self.refuses:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return error_response(400, message, code="unsupported_parameter", param=name)
        return None

    def _completed(self, body: dict[str, Any], fault: Fault | None = None) -> Response:
        """A chat completion, with the usage as it was given (which may be no JSON of Python's)."""
        completion = self._completion(body, fault)
        if self.stream or body.get("stream"):
            whole = fault is None or fault.name != "half_stream"
            kind = {"Content-Type": "text/event-stream"}
            return Response(200, streamed(completion, done=whole), kind)
        response = json_response(200, completion)
        if isinstance(self.usage, str):
            response.body = response.body.replace(b'"GIVEN"', self.usage.encode())
        return response

    def _completion(self, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        content = (self.answer(body) if self.answer else None) or answer_to(body)
        chain = f"The request has {len(body['messages'])} messages; weighing them one by one."
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        finish: str | None = "stop"
        if self.thinking == "think":
            message["content"] = f"<think>\n{chain}\n</think>\n\n{content}"
        elif self.thinking is not None:
            message[self.thinking] = chain
        elif self.shape is not None:
            message |= self.shape(chain, content)
        match fault.name if fault else None:
            case "empty":
                message["content"] = ""
            case "null":
                message["content"] = None
            case "cut":
                message["content"] = content[: len(content) // 2]
                finish = "length"
            case "finish":
                # The endpoint's word for it, if it has one.
                message["content"] = content[: len(content) // 2]
                finish = fault.text or None if fault else None
            case "whole":
                finish = fault.text or None if fault else None
            case "broken_json":
                message["content"] = content.replace(":", " ", 1)
            case "fenced":
                message["content"] = f"Here you are:\n```json\n{content}\n```\nI hope this helps."
            case "refusal":
                message["content"] = None
                message["refusal"] = "I can't help with that."
            case "repeats":
                message["content"] = (fault.text if fault else "") or "a" * 4_000
            case "filtered":
                message["content"] = ""
                finish = "content_filter"
            case None | "half_stream" | "nothing":
                pass
            case name:
                raise ValueError(f"no such fault: {name}")
        prompt = sum(len(part["content"]) for part in body["messages"])
        response: dict[str, Any] = {
            "id": "chatcmpl-" + hashlib.sha256(json.dumps(body).encode()).hexdigest()[:12],
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        if isinstance(self.usage, str):
            response["usage"] = "GIVEN"
        elif fault is not None and fault.name == "nothing":
            message["content"] = ""
            response["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        elif self.usage:
            tokens = {"prompt_tokens": prompt // 4, "completion_tokens": len(content) // 4}
            response["usage"] = {**tokens, "total_tokens": sum(tokens.values())}
        return response


class _Faults:
    """Faults that are not a completion; others are parts of `_completion`."""

    @staticmethod
    def _retry_after(fault: Fault) -> dict[str, str]:
        if fault.seconds is None:
            return {}
        if fault.date:
            return {"Retry_After": formatdate(time.time() + fault.seconds, usegmt=True)}
        return {"Retry_After": f"{fault.seconds:g}"}

    @staticmethod
    async def throttled(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        headers = _Faults._retry_after(fault)
        message = fault.text or "Rate limit reached for requests"
        return error_response(429, message, code="rate_limit_exceeded", **headers)

    @staticmethod
    async def unavailable(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        return error_response(503, "The server is overloaded", **_Faults._retry_after(fault))

    @staticmethod
    async def quota(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        message = "You exceeded your current quota, please check your plan and billing details."
        return error_response(429, message, code="insufficient_quota")

    @staticmethod
    async def server_error(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        await asyncio.sleep(endpoint.latency)
        return error_response(500, fault.text or "The server had an error")

    @staticmethod
    async def bad_gateway(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        return Response(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})

    @staticmethod
    async def bad_request(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        return error_response(400, fault.text or "This request is not valid.")

    @staticmethod
    async def late_refusal(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        await asyncio.sleep(fault.seconds or 0.0)
        return error_response(400, "Bad request")

    @staticmethod
    async def unauthorized(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        sent = recorded.headers.get("authorization", "").removeprefix("Bearer ")
        return error_response(401, f"Incorrect API key provided: {sent}", code="invalid_api_key")

    @staticmethod
    async def too_long(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        message = "This model's maximum context length is 4096 tokens, you asked for 9000."
        return error_response(400, message, code="context_length_exceeded", param="messages")

    @staticmethod
    async def policy(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        message = "The prompt triggered the content management policy."
        return error_response(400, message, code="content_filter")

    @staticmethod
    async def dropped(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> None:
        await asyncio.sleep(endpoint.latency)

    @staticmethod
    async def half_body(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        await asyncio.sleep(endpoint.latency)
        response = endpoint._completed(recorded.body)
        response.close, response.send_only = True, len(response.body) // 2
        return response

    @staticmethod
    async def not_json(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        return Response(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})

    @staticmethod
    async def error_in_200(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        return json_response(200, {"error": {"message": "upstream failed", "code": 502}})

    @staticmethod
    async def slow(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        await asyncio.sleep(endpoint.latency + (fault.seconds or 0.0))
        return endpoint._completed(recorded.body)

    @staticmethod
    async def error_in_choice(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        completion = endpoint._completion(recorded.body, None)
        choice = completion["choices"][0]
        choice["message"]["content"] = choice["message"]["content"][:20]
        choice |= {
            "finish_reason": "error",
            "error": {"code": 502, "message": "upstream broke off"},
        }
        return json_response(200, completion)

    @staticmethod
    async def json_validate_failed(
        endpoint: FakeEndpoint, fault: Fault, recorded: Recorded
    ) -> Response:
        """Groq's: the sample fits no schema."""
        message = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation'."
        error = {"message": message, "code": "json_validate_failed", "failed_generation": "{oops"}
        return json_response(400, {"error": error})

    @staticmethod
    async def firewall(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        page = b"<html><title>403 Forbidden</title>Request blocked</html>"
        return Response(403, page, {"Content-Type": "text/html"})

    @staticmethod
    async def asks_to_wait(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        """Throttles and says how long in the body, as Google does, or in milliseconds (`date`)."""
        seconds = fault.seconds or 0.0
        if fault.date:
            return error_response(429, "Slow down", **{"Retry_After_Ms": f"{1000 * seconds:g}"})
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:g}s"}
        message = "You exceeded your current quota, please check your plan and billing details."
        error = {"code": 429, "message": message, "details": [retry]}
        return json_response(429, [{"error": error}])

    @staticmethod
    async def status(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        """`text` is the status, and after a blank what the endpoint says."""
        status, _, message = fault.text.partition(" ")
        headers = _Faults._retry_after(fault)
        return error_response(int(status), message or "Something is wrong.", **headers)

    @staticmethod
    async def hangs(endpoint: FakeEndpoint, fault: Fault, recorded: Recorded) -> Response:
        await asyncio.Event().wait()
        raise AssertionError


def _as_fault(fault: Fault | str | None) -> Any:
    return Fault(fault) if isinstance(fault, str) else fault


async def _read_request(reader: asyncio.StreamReader) -> Recorded | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Recorded(method, path, headers, raw, time.monotonic())


def _write(writer: asyncio.StreamWriter, response: Response) -> None:
    headers = {"Content-Length": str(len(response.body)), **response.headers}
    lines = [f"HTTP/1.1 {response.status} {responses.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    writer.write(head + response.body[: response.send_only])


# ---- answers


def answer_to(body: dict[str, Any]) -> str:
    """What the endpoint answers to a chat request: JSON where a schema is given, else reasoning."""
    schema = _schema_of(body)
    prompt = max((part["content"] for part in body["messages"]), key=len)
    rng = random.Random(hashlib.sha256(json.dumps(_asked(body)).encode()).digest())
    words = _words_of(prompt)
    if schema is not None:
        return json.dumps(_fill(schema, schema, words, rng))
    numbers = [number for _, number, _ in _DOCUMENT.findall(prompt)]
    steps = [f"Document {number} speaks of {_phrase(words, rng, 6)}." for number in numbers]
    steps = steps or [f"The text speaks of {_phrase(words, rng, 6)}."]
    reasoning = f"The problem is about {_phrase(words, rng, 8)}. {' '.join(steps)}"
    return f"{reasoning} Together they lead to it.\n\n<answer>{_phrase(words, rng, 5)}</answer>"


def _asked(body: dict[str, Any]) -> list[Any]:
    """What of a request decides its answer: not how the structure was asked for."""
    return [body["model"], [part["content"] for part in body["messages"]], body.get("seed")]


def _schema_of(body: dict[str, Any]) -> dict[str, Any] | None:
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    text = body["messages"][-1]["content"]
    marked = re.search(r"JSON schema[^\n]*:\n(?=\{)", text)
    if marked is None:
        return None
    return json.JSONDecoder().raw_decode(text, marked.end())[0]


def _words_of(prompt: str) -> list[str]:
    """Words to answer with: of the documents in the prompt if there are any."""
    documents = " ".join(text for _, _, text in _DOCUMENT.findall(prompt))
    return _WORD.findall(documents) or _WORD.findall(prompt) or ["nothing"]


def _phrase(words: list[str], rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(words) for _ in range(length))


def _fill(
    schema: dict[str, Any], root: dict[str, Any], words: list[str], rng: random.Random
) -> Any:
    if "$ref" in schema:
        return _fill(root["$defs"][schema["$ref"].rpartition("/")[2]], root, words, rng)
    for choices in ("anyOf", "oneOf", "allOf"):
        if choices in schema:
            return _fill(schema[choices][0], root, words, rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return {
                # Short as a reference answer is.
                name: _phrase(words, rng, 3) if name == "answer" else _fill(part, root, words, rng)
                for name, part in schema.get("properties", {}).items()
            }
        case "array":
            count = max(1, schema.get("minItems", 1))
            return [_fill(schema.get("items", {}), root, words, rng) for _ in range(count)]
        case "integer" | "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
        case "null":
            return None
    text = (
        f"Considering {_phrase(words, rng, 9)}, how does {_phrase(words, rng, 5)} follow from "
        f"{_phrase(words, rng, 7)} without {_phrase(words, rng, 4)}?"
    )
    return text[: schema.get("maxLength")]


def main() -> None:
    """Serve until interrupted; prints the base URL as its first line."""
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible endpoint.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer")
    parser.add_argument("--spread", type=float, default=0.0, help="of the latency, both ways")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--thinking", choices=["reasoning_content", "reasoning", "think"])
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help="share of requests that meet a fault, such as throttled=0.05; may be repeated",
    )
    parser.add_argument("--refuse", action="append", default=[], metavar="PART")
    parser.add_argument("--server", default="", help=f"of {', '.join(REFUSALS)}")
    parser.add_argument("--shape", choices=[*SHAPES, *STRUCTURED_SHAPES])
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    shares = {name: float(share) for name, _, share in (f.partition("=") for f in options.fault)}
    endpoint = FakeEndpoint(
        latency=options.latency,
        spread=options.spread,
        shares=shares,
        refuses=options.refuse,
        thinking=options.thinking,
        server=options.server,
        shape=options.shape,
        stream=options.stream,
        seed=options.seed,
        port=options.port,
    )
    endpoint.keep_requests = False

    async def serve() -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, endpoint.stop)
        await endpoint.serve(lambda: print(endpoint.url, flush=True))

    asyncio.run(serve())


if __name__ == "__main__":
    main()
