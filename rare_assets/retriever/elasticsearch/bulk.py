"""Send bulk requests to Elasticsearch: every item is checked, and what is wrong with one harms no other.

An item that fails for a moment is sent again. If the server never takes an item while it takes others, the
document is at fault: it is too large for the server's memory or for one request, or has a value that no
field can hold. A stand-in is written in its place, and the caller is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore, Event, Lock
from typing import Any, NamedTuple

from rare_assets.retriever.elasticsearch.connection import Connection
from rare_assets.retriever.elasticsearch.errors import (
    PASSING,
    ElasticsearchError,
    Passing,
    error_reason,
)

BULK_BYTES = 10 * 1024 * 1024
# How long an item is sent again together with others before it is tried alone, at most.
PATIENCE_SECONDS = 10.0
# Times that an item is tried alone, nothing else being sent, and the pause between them.
ALONE_TIMES = 3
ALONE_PAUSE_SECONDS = 0.5
# Statuses that are about whoever asks, or about the index, and never about a document.
_NOT_THE_DOCUMENTS = frozenset({401, 403, 404, 405, 409, 410})
_TOO_LARGE = 413
# More refusals in one request, if they are most of it, are no longer a matter of single documents.
_FEW = 5

Action = dict[str, Any]


class Problem(NamedTuple):
    """Why an item was not carried out: HTTP status (0 without an answer), Elasticsearch's name, its words."""

    status: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.status or ""), self.kind))) + f": {self.detail}"


class Refusal(NamedTuple):
    """An action that the server does not take."""

    action: Action
    problem: Problem


class Bulk:
    """Write to an index, in requests that may run at the same time.

    Args:
        connection: to the server.
        stand_in: returns the action that is carried out in place of a refused one. None: a refusal is an
            error.
    """

    def __init__(
        self, connection: Connection, stand_in: Callable[[Action], Action] | None = None
    ) -> None:
        from elasticsearch.helpers import streaming_bulk

        self._connection = connection
        self._stand_in = stand_in
        self._streaming_bulk = streaming_bulk
        self._places = BoundedSemaphore(connection.threads)
        self._turn = Lock()
        self._patience = min(PATIENCE_SECONDS, connection.wait_seconds / 4)

    def write(self, actions: Sequence[Action], stop: Event) -> list[Refusal]:
        """Carry out actions; returns those that the server refuses for good.

        Args:
            actions: as `elasticsearch.helpers` takes them, each with the name of its `shard`.
            stop: ends the waiting when another thread sets it.

        Raises:
            ElasticsearchError: the server takes nothing, or refuses too much, or another sync has claimed
                the index.
        """
        from elastic_transport import ConnectionError

        rest = list(actions)
        refused: list[Refusal] = []
        began, tries = time.monotonic(), 0

        def once() -> None:
            nonlocal rest, tries
            tries += 1
            impatient = tries > 1 and time.monotonic() - began >= self._patience
            try:
                problems = self._send(rest)
            except ConnectionError as error:
                if not impatient or self._stand_in is None:
                    raise
                problems = [Problem(0, type(error).__name__, str(error.message))] * len(rest)
            left, smaller, wrong = self._sorted(rest, problems)
            # What is done must not be sent again by another try.
            rest = [action for action, _ in left]
            for refusal in wrong:
                self._replace(refusal, stop)
                refused.append(refusal)
            for part in (smaller[: len(smaller) // 2], smaller[len(smaller) // 2 :]):
                if part:
                    refused.extend(self.write(part, stop))
            if left and impatient and self._stand_in is not None:
                for action, problem in left:
                    if (judged := self._judge(action, problem, stop)) is not None:
                        refused.append(judged)
                    rest.remove(action)
            elif left:
                raise Passing(f"{_name(left[0][0])}: {left[0][1]}")

        what = f"write {len(actions)} documents from {_name(actions[0])} on"
        self._connection.ask(what, once, stop)
        return refused

    def _sorted(
        self, actions: Sequence[Action], problems: Sequence[Problem | None]
    ) -> tuple[list[tuple[Action, Problem]], list[Action], list[Refusal]]:
        """Return what is to be sent again, what in smaller requests, and what is refused for good.

        Raises:
            ElasticsearchError: what is refused is no single document's fault.
        """
        left: list[tuple[Action, Problem]] = []
        smaller: list[Action] = []
        wrong: list[Refusal] = []
        for action, problem in zip(actions, problems, strict=True):
            if problem is None:
                continue
            if problem.kind == "index_not_found_exception":
                raise self._connection.concurrent_sync_error(
                    f"no longer takes {_name(action)} from this sync"
                )
            if not problem.status or problem.status in PASSING:
                left.append((action, problem))
            elif problem.status == _TOO_LARGE and len(actions) > 1:
                smaller.append(action)
            elif self._stand_in is None or problem.status in _NOT_THE_DOCUMENTS:
                raise self._error(action, problem)
            else:
                wrong.append(Refusal(action, problem))
        if len(wrong) > _FEW and 2 * len(wrong) > len(actions):
            raise self._error(*wrong[0], f"; so are {len(wrong)} of {len(actions)} sent with it")
        return left, smaller, wrong

    def _judge(self, action: Action, problem: Problem, stop: Event) -> Refusal | None:
        """Try an item alone, and replace it if the server takes its stand-in but never the item.

        Returns the refusal of an item that was replaced; None if it was carried out.

        Raises:
            Passing: the server takes nothing at the moment.
        """
        assert self._stand_in is not None
        with self._alone():
            for tried in range(ALONE_TIMES):
                if tried and stop.wait(ALONE_PAUSE_SECONDS):
                    raise Passing("another request failed")
                found = self._try(action)
                if found is None:
                    return None
                problem = found
            if (other := self._try(self._stand_in(action))) is not None:
                raise Passing(f"{_name(action)}: {other}")
        # Others of its kind need not be waited for as long.
        self._patience = min(self._patience, ALONE_PAUSE_SECONDS)
        return Refusal(action, problem)

    def _replace(self, refusal: Refusal, stop: Event) -> None:
        assert self._stand_in is not None
        stand_in = self._stand_in(refusal.action)

        def once() -> None:
            with self._place():
                (problem,) = self._sent([stand_in])
            if problem is None:
                return
            if problem.status in PASSING:
                raise Passing(f"{_name(stand_in)}: {problem}")
            raise self._error(*refusal)

        self._connection.ask(f"write what stands for {_name(refusal.action)}", once, stop)

    def _try(self, action: Action) -> Problem | None:
        from elastic_transport import ConnectionError

        try:
            (problem,) = self._sent([action])
        except ConnectionError as error:
            return Problem(0, type(error).__name__, str(error.message))
        return problem

    def _send(self, actions: Sequence[Action]) -> list[Problem | None]:
        with self._place():
            return self._sent(actions)

    def _sent(self, actions: Sequence[Action]) -> list[Problem | None]:
        """Send actions once; returns what is wrong with each, None if it is done."""
        from elastic_transport import ApiError

        answers = self._streaming_bulk(
            self._connection.client,
            # What an action is about goes along in it, beside what the server reads.
            ({k: v for k, v in action.items() if k != "shard"} for action in actions),
            chunk_size=len(actions),
            max_chunk_bytes=BULK_BYTES,
            raise_on_error=False,
            require_alias=True,
            filter_path=["errors", "items.*.status", "items.*.error"],
        )
        problems: list[Problem | None] = []
        try:
            for done, item in answers:
                ((operation, outcome),) = item.items()
                status = outcome["status"]
                gone = operation == "delete" and status == 404 and "error" not in outcome
                problems.append(None if done or gone else Problem(status, *error_reason(outcome)))
        except ApiError as error:
            if error.meta.status not in PASSING | {_TOO_LARGE}:
                raise
            # With it stand those that were not sent any more: all of them are tried again.
            left = len(actions) - len(problems)
            kind, detail = error_reason(error.body)
            if not error.body and error.meta.status == _TOO_LARGE:
                detail = "too large for a request"
            problems += [Problem(error.meta.status, kind, detail)] * left
        return problems

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places of those that send."""
        with self._turn:
            self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Take all places, so that nothing else is sent meanwhile."""
        with self._turn:
            for _ in range(self._connection.threads):
                self._places.acquire()
            try:
                yield
            finally:
                for _ in range(self._connection.threads):
                    self._places.release()

    def _error(self, action: Action, problem: Problem, more: str = "") -> ElasticsearchError:
        return ElasticsearchError(
            f"Elasticsearch at {self._connection.url} could not {action['_op_type']} "
            f"{_name(action)}: {problem}{more}",
            *(problem.status, problem.kind),
        )


def _name(action: Mapping[str, Any]) -> str:
    source = action.get("_source", action)
    return f"document {source.get('doc_id', action['_id'])!r:.300} of shard {source['shard']!r}"
