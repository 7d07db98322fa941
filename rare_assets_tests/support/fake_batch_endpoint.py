"""The fake endpoint with files and batches: what OpenAI's Batch API does, on loopback.

A batch is worked through in the background by the same code, faults included, that answers chat
requests; a request whose connection would be dropped, or that is throttled, becomes a line of the
error file. Results come in shuffled order.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import json
import random
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rare_assets_tests.support.fake_endpoint import (
    FakeEndpoint,
    Recorded,
    Response,
    error_response,
    json_response,
)


class FakeBatchEndpoint(FakeEndpoint):
    """Plays /v1/files and /v1/batches besides /v1/chat/completions.

    Args:
        expire_after: for each batch in the order of creation, how many of its requests are worked
            through until it expires (None: all). Batches beyond the list never expire.
        fail_with: for each batch likewise, the (code, message) with which it fails validation.
        queue: requests in one batch at most; a larger one fails for lack of room in the queue.
        max_requests, max_bytes: of one file.
        drop: so many calls of the API (method, pattern of the path) are carried out, and then lose
            their answer.
        loses: requests with this text in them have no line in any result.
        unseen: so many times what was just made is not found.
        words: another server's words for a batch's states.

    While `hold` is set, batches stay in progress.
    """

    def __init__(
        self,
        *,
        expire_after: Iterable[int | None] = (),
        fail_with: Iterable[tuple[str, str] | None] = (),
        queue: int | None = None,
        max_requests: int = 50_000,
        max_bytes: int = 200_000_000,
        drop: dict[tuple[str, str], int] | None = None,
        loses: str | None = None,
        unseen: int = 0,
        words: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.expire_after = deque(expire_after)
        self.fail_with = deque(fail_with)
        self.queue = queue
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.drop = dict(drop or {})
        self.loses = loses
        self.unseen = unseen
        self.unseen_left: dict[str, int] = {}
        self.words = words or {}
        self.hold = False
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self._work: set[asyncio.Task[None]] = set()
        self.route("POST", r"/v1/files", self._upload)
        self.route("GET", r"/v1/files/[^/]+/content", self._content)
        self.route("POST", r"/v1/batches", self._create)
        self.route("GET", r"/v1/batches", self._list)
        self.route("GET", r"/v1/batches/[^/]+", self._retrieve)
        self.route("POST", r"/v1/batches/[^/]+/cancel", self._cancel)

    @property
    def handed_in(self) -> list[str]:
        """The custom ids of all batches, in the order in which they came."""
        return [
            json.loads(line)["custom_id"]
            for batch in self.batches.values()
            for line in self.files[batch["input_file_id"]].splitlines()
        ]

    async def _handle(self, recorded: Recorded) -> Response | None:
        path = recorded.path.partition("?")[0]
        self.calls.append((recorded.method, path))
        sent = recorded.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and sent != self.key:
            return error_response(
                401, f"Incorrect API key provided: {sent}", code="invalid_api_key"
            )
        response = await super()._handle(recorded)
        for (method, pattern), left in self.drop.items():
            if left and method == recorded.method and re.fullmatch(pattern, path):
                self.drop[method, pattern] = left - 1
                return None
        return response

    # ---- files

    async def _upload(self, recorded: Recorded) -> Response:
        head = f"Content-Type: {recorded.headers['content-type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in email.message_from_bytes(
                head + recorded.raw, policy=email.policy.HTTP
            ).iter_parts()
        }
        if parts["purpose"].get_content().strip() != "batch":
            return error_response(400, "Invalid purpose", param="purpose")
        content = parts["file"].get_payload(decode=True)
        if len(content) > self.max_bytes:
            return error_response(413, "The file is too large")
        return json_response(200, self._file(content, parts["file"].get_filename(), "batch"))

    def _file(self, content: bytes, name: str, purpose: str) -> dict[str, Any]:
        file_id = f"file-{len(self.files)}-{hashlib.sha256(content).hexdigest()[:8]}"
        self.files[file_id] = content
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }

    def _is_unseen(self, name: str) -> bool:
        left = self.unseen_left.setdefault(name, self.unseen)
        self.unseen_left[name] = left - 1
        return left > 0

    async def _content(self, recorded: Recorded) -> Response:
        name = urlsplit(recorded.path).path.split("/")[3]
        content = self.files.get(name)
        if content is None or self._is_unseen(name):
            return error_response(404, "No such File object")
        return Response(200, content, {"Content-Type": "application/octet-stream"})

    # ---- batches

    async def _create(self, recorded: Recorded) -> Response:
        wanted = recorded.body
        if wanted["input_file_id"] not in self.files or wanted["completion_window"] != "24h":
            return error_response(400, "Invalid file or completion window")
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": wanted["endpoint"],
            "input_file_id": wanted["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "created_at": int(time.time()),
            "metadata": wanted.get("metadata"),
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
        }
        self.batches[batch["id"]] = batch
        expire = self.expire_after.popleft() if self.expire_after else None
        failure = self.fail_with.popleft() if self.fail_with else None
        task = asyncio.create_task(self._process(batch, recorded, expire, failure))
        self._work.add(task)
        task.add_done_callback(self._worked)
        return json_response(200, batch)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error

    async def _list(self, recorded: Recorded) -> Response:
        query = parse_qs(urlsplit(recorded.path).query)
        newest = list(reversed(self.batches.values()))
        if after := query.get("after"):
            newest = newest[[batch["id"] for batch in newest].index(after[0]) + 1 :]
        page = newest[: int(query.get("limit", ["20"])[0])]
        return json_response(
            200,
            {
                "object": "list",
                "data": page,
                "has_more": len(page) < len(newest),
                "last_id": page[-1]["id"] if page else None,
            },
        )

    async def _retrieve(self, recorded: Recorded) -> Response:
        batch = self.batches.get(urlsplit(recorded.path).path.split("/")[3])
        if batch is None or self._is_unseen(batch["id"]):
            return error_response(404, "No such batch")
        status = self.words.get(batch["status"], batch["status"])
        return json_response(200, {**batch, "status": status})

    async def _cancel(self, recorded: Recorded) -> Response:
        batch = self.batches[urlsplit(recorded.path).path.split("/")[3]]
        if batch["status"] in ("completed", "expired", "failed", "cancelled"):
            return error_response(409, f"Cannot cancel a batch with status {batch['status']}")
        batch["status"] = "cancelling"
        return json_response(200, batch)

    async def _process(
        self,
        batch: dict[str, Any],
        recorded: Recorded,
        expire_after: int | None,
        failure: tuple[str, str] | None,
    ) -> None:
        await asyncio.sleep(0)
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if failure is None and len(lines) > self.max_requests:
            failure = ("invalid_request", "The file has too many requests")
        if failure is None and self.queue is not None and len(lines) > self.queue:
            failure = ("token_limit_exceeded", "Enqueued token limit reached")
        if failure is None and len({line["custom_id"] for line in lines}) < len(lines):
            failure = ("duplicate_custom_id", "custom_id is not unique")
        if failure is not None:
            code, message = failure
            error = {"code": code, "message": message, "line": None, "param": None}
            batch["errors"] = {"object": "list", "data": [error]}
            batch["status"] = "failed"
            return
        batch["status"] = "in_progress"
        good, bad = [], []
        for number, line in enumerate(lines):
            if expire_after is not None and number >= expire_after:
                error = {"code": "batch_expired", "message": "It did not end within its window."}
                bad.append({"custom_id": line["custom_id"], "response": None, "error": error})
                continue
            if batch["status"] == "cancelling":
                break
            response = await self._answer(line, recorded)
            if self.loses is not None and self.loses in json.dumps(line["body"]):
                continue
            result = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "error": None}
            if response is None:
                error = {"code": "server_error", "message": "The request was lost."}
                bad.append({**result, "response": None, "error": error})
                continue
            try:
                body = json.loads(response.body)
            except ValueError:
                body = response.body.decode()
            result["response"] = {"status_code": response.status, "request_id": "r", "body": body}
            (good if response.status == 200 else bad).append(result)
        while self.hold and batch["status"] != "cancelling":  # noqa: ASYNC110 (set by other threads)
            await asyncio.sleep(0.002)
        for results, field in ((good, "output_file_id"), (bad, "error_file_id")):
            random.Random(batch["id"]).shuffle(results)
            content = b"".join(json.dumps(result).encode() + b"\n" for result in results)
            if results:
                batch[field] = self._file(content, field, "batch_output")["id"]
        ended = "expired" if expire_after is not None else "completed"
        ended = "cancelled" if batch["status"] == "cancelling" else ended
        batch[f"{ended}_at"] = int(time.time())
        batch["status"] = ended

    async def _answer(self, line: dict[str, Any], recorded: Recorded) -> Response | None:
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        raw = json.dumps(line["body"]).encode()
        return await self._chat(replace(recorded, raw=raw, path=line["url"]))
