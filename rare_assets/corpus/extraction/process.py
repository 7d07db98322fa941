"""Parse files in a process that may be killed: a file that takes too long or too much memory harms no other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import IO, NamedTuple

from rare_assets.corpus.extraction import LENGTHS

# Seconds and bytes of memory that parsing one file may take.
SECONDS = 120.0
MEMORY = 3 << 30
_BLOCK = 1 << 20


class Extracted(NamedTuple):
    """The text of a file, and its own title; or the reason for which there is none, and what was wrong."""

    text: str = ""
    title: str | None = None
    problem: str | None = None
    detail: str | None = None


class Extractor:
    """A parsing process, started with the first file and again after one that ended it.

    >>> import io
    >>> with Extractor() as extractor:
    ...     extractor.extract("html", io.BytesIO(b"<h1>Pipes</h1><p>Water."), 24).text
    '# Pipes\\n\\nWater.'
    """

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds = seconds
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def extract(self, kind: str, stream: IO[bytes], size: int) -> Extracted:
        """Return the text of a file of that kind: html, pdf or docx.

        Args:
            kind: how it is parsed.
            stream: its bytes, from where they begin.
            size: how many they are.
        """
        process = self._process = self._process or self._started()
        try:
            _send(process, kind, stream, size)
            told, text = _receive(process, time.monotonic() + self._seconds)
        except TimeoutError:
            self._end()
            return Extracted(
                problem="parser_stopped",
                detail=f"parsing took more than {self._seconds:g} seconds and was stopped",
            )
        except EOFError:
            status = self._end(dying=True)
            return Extracted(
                problem="parser_stopped",
                detail=f"the parser ended ({status}); it may have needed more than "
                f"{self._memory >> 20:,} MB of memory",
            )
        except BaseException:
            self._end()
            raise
        return Extracted(text.decode("utf-8", "surrogatepass"), **json.loads(told))

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rare_assets.corpus.extraction.worker",
                f"{self._seconds:g}",
                str(self._memory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def _end(self, *, dying: bool = False) -> str:
        """Kill the process if there is one; one that is dying is given the time to say how. Returns how it ended."""
        process, self._process = self._process, None
        if process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2 if dying else 0)
        process.kill()
        status = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        return f"signal {-status}" if status < 0 else f"status {status}"


def _send(process: subprocess.Popen[bytes], kind: str, stream: IO[bytes], size: int) -> None:
    """Write a file to the process, which reads all of it before it parses, so that nothing waits for long."""
    assert process.stdin is not None
    header = json.dumps({"kind": kind}).encode()
    # A process that is gone has closed the pipe, as the reading side finds.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(LENGTHS.pack(len(header), size) + header)
        left = size
        while left and (block := stream.read(min(_BLOCK, left))):
            process.stdin.write(block)
            left -= len(block)
        while left:  # the file has shrunk
            left -= process.stdin.write(b"\0" * min(_BLOCK, left))
        process.stdin.flush()


def _receive(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytearray, bytearray]:
    """Read what it tells of a file, and the text. Raises TimeoutError or, where the process has ended, EOFError."""
    assert process.stdout is not None
    handle = process.stdout.fileno()
    received = bytearray()
    told = wanted = LENGTHS.size
    while len(received) < wanted:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            raise TimeoutError
        block = os.read(handle, _BLOCK)
        if not block:
            raise EOFError
        received += block
        if wanted == LENGTHS.size <= len(received):
            of_told, of_text = LENGTHS.unpack_from(received)
            told = LENGTHS.size + of_told
            wanted = told + of_text
    return received[LENGTHS.size : told], received[told:wanted]
