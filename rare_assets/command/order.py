"""Which run of `rare-assets run` may start next, so that the endpoint is busy and never waits for all.

Questions and the index wait for the documents of all shards, of which an id may stand for two texts:
that is free to find out before anything is asked, and paid for afterwards. Hard negatives and reasoning
wait for the index. Runs that ask and runs that don't have places of their own, since the latter would
leave the endpoint idle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from rare_assets.command.plan import Planner, Stale
from rare_assets.corpus.shards import Shard
from rare_assets.retriever import IndexState
from rare_assets.stages import documents
from rare_assets.stages.order import AFTER_DOCUMENTS

DOCUMENTS_JOB, INDEX_JOB, ASKING_JOB = "documents_job", "corpus_index_job", "rare_job"


class Task(NamedTuple):
    """A run that may start: a job, restricted to these assets, for one shard or for none."""

    job: str
    assets: tuple[str, ...]
    shard: str | None


class Schedule:
    """Hands out tasks in an order that keeps the endpoint busy.

    Args:
        planner: what is stale.
        shards: all of the source; documents and index are made for the whole corpus.
        registered: keys of all shards that the index is to hold.
        asked: keys of the shards to ask about.
        asking_at_once: runs that ask the teacher side by side.
        ahead: runs more that may start already, where the pool `teacher` holds them back: they mine
            and check meanwhile, and ask as soon as a place is free.
        at_once: runs in all; one that doesn't ask may always start beside those that ask.
        under_way: tasks that another command has started already, and `finished` will be told of; their
            shards, and the index, are looked at again when they are done.
        decided: called with a shard, the stages that were looked at, and those found stale.
    """

    def __init__(
        self,
        planner: Planner,
        shards: Sequence[Shard],
        registered: list[str],
        asked: Iterable[str],
        *,
        asking_at_once: int,
        ahead: int = 0,
        at_once: int,
        under_way: Collection[Task] = (),
        decided: Callable[[str, Sequence[str], list[Stale]], None],
    ) -> None:
        self._planner = planner
        self._registered = registered
        self._asking_at_once = asking_at_once
        self._ahead = ahead
        self._at_once = at_once
        self._decided = decided
        self._asked = set(asked)
        shards_of = {
            job: {task.shard for task in under_way if task.job == job and task.shard is not None}
            for job in (DOCUMENTS_JOB, ASKING_JOB)
        }
        stale = [s.key for s in shards if planner.documents(s) is not None]
        self._documents = deque(key for key in stale if key not in shards_of[DOCUMENTS_JOB])
        # Documents that the index waits for, shards that others ask about, and those with their documents,
        # with their questions.
        self._unread = {*stale, *shards_of[DOCUMENTS_JOB]}
        self._asked_by_others = shards_of[ASKING_JOB]
        self._read = deque(
            s.key
            for s in shards
            if s.key in self._asked - self._unread and s.key not in self._asked_by_others
        )
        self._with_questions: deque[str] = deque()
        self._index_stale: bool | None = None
        self._index_begun = self._index_of_others = any(t.job == INDEX_JOB for t in under_way)
        self._index: IndexState | None = None

    def next(self, running: Sequence[Task]) -> Task | None:
        """Return a task that may start beside the running ones; None if none may."""
        index_due = self._index_due()
        asking = sum(task.job == ASKING_JOB for task in running)
        if asking < self._asking_at_once + self._ahead and (task := self._next_asking()):
            return task
        if len(running) - asking >= max(1, self._at_once - asking):
            return None
        if self._documents:
            return Task(DOCUMENTS_JOB, (documents.NAME,), self._documents.popleft())
        if index_due:
            self._index_begun = True
            return Task(INDEX_JOB, ("corpus_index",), None)
        return None

    def _index_due(self) -> bool:
        """Return True if all documents are stored and the index is stale. A current index is used
        as it is."""
        if self._unread or self._index_begun:
            return False
        if self._index_stale is None:
            self._index_stale = self._planner.index(self._registered) is not None
            if not self._index_stale:
                self._index = self._planner.index_state()
        return self._index_stale

    def _next_asking(self) -> Task | None:
        if self._unread:
            return None
        planner, index = self._planner, self._index
        if index is not None:
            while self._with_questions:
                shard = self._with_questions.popleft()
                stale = planner.after_questions(shard, index)
                self._decided(shard, AFTER_DOCUMENTS[1:], stale)
                if stale:
                    return _asking(shard, stale)
        while self._read:
            shard = self._read.popleft()
            if index is not None:
                stale = planner.asked(shard, index)
                self._decided(shard, AFTER_DOCUMENTS, stale)
            else:
                found = planner.questions(shard)
                stale = [found] if found else []
                self._decided(shard, AFTER_DOCUMENTS[:1], stale)
                if not stale:
                    self._with_questions.append(shard)
            if stale:
                return _asking(shard, stale)
        return None

    def finished(self, task: Task, *, failed: bool, stops_others: bool = False) -> None:
        """Take note of how a task ended.

        Args:
            failed: anything in it did.
            stops_others: other runs would fail alike, so that no task that asks starts any more.
        """
        if stops_others or (failed and task.job == INDEX_JOB):
            self._asked.clear()
            self._read.clear()
            self._with_questions.clear()
        if stops_others and task.job != ASKING_JOB:
            # Where only the teacher has stopped, what is free goes on.
            self._documents.clear()
            self._index_begun = True
        if task.job == INDEX_JOB:
            if self._index_of_others:
                # It may be of a state that has passed.
                self._index_of_others = self._index_begun = stops_others or failed
                self._index_stale = None
            else:
                self._index = None if failed else self._planner.index_state()
        elif task.job == DOCUMENTS_JOB and task.shard is not None:
            self._unread.discard(task.shard)
            others = task.shard in self._asked_by_others
            if not failed and task.shard in self._asked and not others:
                self._read.append(task.shard)
        elif task.shard in self._asked_by_others:
            self._asked_by_others.discard(task.shard)
            if not failed and task.shard in self._asked - self._unread:
                self._read.append(task.shard)
        elif not failed and task.shard is not None and task.assets == AFTER_DOCUMENTS[:1]:
            self._with_questions.append(task.shard)


def _asking(shard: str, stale: list[Stale]) -> Task:
    return Task(ASKING_JOB, tuple(each.stage for each in stale), shard)
