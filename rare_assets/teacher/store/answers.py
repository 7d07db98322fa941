"""Keep the teacher's answers on durable storage: each one is paid for once, whoever asks again.

Files of answers (format: `answer_files`) lie under one folder or URL:

- `journal-*`: what one running process has stored so far, on a local disk. It grows by a frame and an fsync
  for all answers that wait (group commit), and its writer holds a lock on it.
- `part-*`: the same behind a URL, where a file can't grow: one object for each group commit.
- `claims-*`: what a process is asking for at this moment (`claims`).
- `segment-*`: what journals and parts become when their writer closes or when they get large. Eight segments
  of about one size are merged into one, so that few files remain after any number of runs.

But for journals, files are written whole, under names that nobody else chooses, and removed once all that
they hold is durable elsewhere. So any number of processes may write, merge and read at once, and a kill or
a race leaves behind a duplicate at worst.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store.claims import DEAD_AFTER_S, Claims
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.store.key_index import KeyIndex
from rare_assets.teacher.store.stored import (
    AnswersNotRead,
    AnswersNotStored,
    AnswerStats,
    StoredAnswers,
    described_gone,
)
from rare_assets.teacher.store.upkeep import Upkeep
from rare_assets.teacher.store.writers import Journal, Parts
from rare_assets.text.shown_url import shown, without_secrets

logger = logging.getLogger(__name__)


class _Group:
    """Answers that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.stored: Future[None] = Future()
        # From here on nobody who stops waiting can cancel it for the others.
        self.stored.set_running_or_notify_cancel()


class AnswerStore:
    """A store of answers by key, which every process that reaches the folder can read.

    Answers that another process stores are found at the latest after `relist_s`. One store may be used from
    several event loops and threads.

    Args:
        root: local folder, or fsspec URL such as s3://bucket/teacher_answers; made at the first put.
        storage_options: passed to the fsspec file system. Default: object stores read their own
            environment variables.
        commit_interval_s: seconds between two commits, at least. Default: 0.01 on a local disk, 1 behind a
            URL.
        relist_s: seconds between two listings, at least. Default: 0.5 on a local disk, 30 behind a URL.
        dead_after_s: seconds until the claims of a killed process are void, where no lock tells it at once.
        say: called with a line for people if answers are lost. Default: a warning in the log.

    Example:
        >>> import asyncio, tempfile
        >>> async def stored_again(folder):
        ...     async with AnswerStore(folder) as store:
        ...         await store.put(bytes(32), {"content": "It melts."})
        ...         return await store.get([bytes(32)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     list(asyncio.run(stored_again(folder)).values())
        [{'content': 'It melts.'}]
    """

    def __init__(
        self,
        root: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        commit_interval_s: float | None = None,
        relist_s: float | None = None,
        dead_after_s: float = DEAD_AFTER_S,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = Folder(root, storage_options)
        local = self._folder.local is not None
        default_s = 0.01 if local else 1.0
        self._interval_s = commit_interval_s if commit_interval_s is not None else default_s
        relist_s = relist_s if relist_s is not None else (0.5 if local else 30.0)
        # Two locks, so that a put never waits for a look-up: one for what waits to be stored ...
        self._wake = threading.Condition()
        self._group: _Group | None = None
        self._committer: threading.Thread | None = None
        self._broken: AnswersNotStored | None = None
        self._closed = False
        # ... and that of what is stored already.
        self._stored = StoredAnswers(self._folder, relist_s=relist_s, say=say or logger.warning)
        self._dead_after_s = dead_after_s
        self._tidying: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def unreadable(self) -> int:
        """Number of answers that were found to be lost in damaged files so far."""
        return self._stored.unreadable

    @property
    def quick(self) -> bool:
        """True if a put takes milliseconds, as on a local disk."""
        return self._folder.local is not None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return the answers stored under these keys; of several under one key, the one put last.

        Made for about a thousand keys at a time: answers that were put together are read together.

        Args:
            keys: of 32 bytes each.

        Raises:
            AnswersNotRead: the folder can't be listed, or a file in it can't be read. An answer counts as
                absent only if the storage says so, since it would be paid for again.
        """
        try:
            return await asyncio.to_thread(self._stored.get, keys)
        except TeacherStopped:
            raise
        except Exception as error:
            raise AnswersNotRead(
                f"The answers stored under {shown(self._folder.root)} can't be read: "
                f"{type(error).__name__}: {without_secrets(error, str(self._folder.root))}. Nothing is asked, since what is stored there "
                "would be paid for again. Mend the storage, then run again."
            ) from error

    async def put(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Store an answer under its key; returns once it is on durable storage.

        Args:
            key: 32 bytes, as `wire.answer_key` returns them.
            record: the answer, as JSON.

        Raises:
            AnswersNotStored: it could not be written (disk full, no permission, ...). Every later put
                raises the same.
            TypeError: the record is no JSON.
        """
        line = files.encode(key, time.time(), record)
        with self._wake:
            if self._broken is not None:
                raise self._broken
            if self._closed:
                raise AnswersNotStored(
                    f"The store of answers {shown(self._folder.root)} is closed."
                )
            if self._group is None:
                self._group = _Group()
            group = self._group
            group.lines.append(line)
            if self._committer is None:
                self._committer = threading.Thread(
                    target=self._commit_loop, name="answers-commit", daemon=True
                )
                self._committer.start()
            self._wake.notify()
        await asyncio.wrap_future(group.stored)

    async def close(self) -> None:
        """Store what waits, and make a segment of what this process has written.

        Raises:
            AnswersNotStored: the files that this process had written are gone.
        """
        await asyncio.to_thread(self._close)

    def claims(self) -> Claims:
        """Return the claims of one more writer; close them before the store."""
        return Claims(self._folder, self._stored.look, dead_after_s=self._dead_after_s)

    def folder(self, name: str) -> Folder:
        """Return a folder below that of the answers, for what belongs to them."""
        return self._folder.folder(name)

    async def stats(self) -> AnswerStats:
        """Return how many answers, bytes and files the folder holds now."""
        return await asyncio.to_thread(self._stored.stats)

    # ---- writing

    def _commit_loop(self) -> None:
        earliest = 0.0
        while True:
            with self._wake:
                while self._group is None and not self._closed:
                    self._wake.wait()
                while not self._closed and (pause := earliest - time.monotonic()) > 0:
                    self._wake.wait(pause)
                group, self._group = self._group, None
                if group is None:
                    return
            earliest = time.monotonic() + self._interval_s
            try:
                if self._broken is not None:
                    raise self._broken
                self._commit(group.lines)
            except AnswersNotStored as error:
                group.stored.set_exception(error)
            except Exception as error:
                stored = self._stored.writer.stored if self._stored.writer is not None else ()
                gone = isinstance(error, FileNotFoundError) and stored
                self._broken = AnswersNotStored(
                    described_gone(self._folder.root, stored)
                    if gone
                    else f"Answers can't be stored under {shown(self._folder.root)}: {error}. Asking stops, "
                    "since every further answer would be paid for and lost. Make room or mend the "
                    "storage, then run again: what is stored will not be asked again."
                )
                self._broken.__cause__ = error
                group.stored.set_exception(self._broken)
            else:
                group.stored.set_result(None)

    def _commit(self, lines: list[bytes]) -> None:
        if self._stored.writer is not None and self._stored.writer.full:
            self._retire()
        if self._stored.writer is None:
            kind = Journal if self._folder.local is not None else Parts
            with self._stored.lock:
                self._stored.writer = kind(self._folder)
        frame = files.pack(lines)
        name, start = self._stored.writer.append(frame)
        with self._stored.lock:
            index = self._stored.indexes.setdefault(name, KeyIndex())
            index.add(start, start + len(frame), files.fingerprints(lines))

    def _retire(self) -> None:
        """Have a full journal made a segment in the background, and begin a new one."""
        with self._stored.lock:
            writer, self._stored.writer = self._stored.writer, None
            if self._tidying is None:
                self._tidying = ThreadPoolExecutor(1, "answers-upkeep")
        if writer is not None:
            self._tidying.submit(Upkeep(self._stored).tidy, writer)

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._committer is not None:
            self._committer.join()
        if self._tidying is not None:
            self._tidying.shutdown()
        with self._stored.lock:
            writer, self._stored.writer = self._stored.writer, None
        if writer is not None:
            try:
                writer.check()
            except OSError as error:
                writer.release()
                raise AnswersNotStored(described_gone(self._folder.root, writer.stored)) from error
            Upkeep(self._stored).tidy(writer)
