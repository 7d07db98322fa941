"""Parse files in a process that may be killed: a file that takes too long or too much memory harms no other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from typing import IO, NamedTuple

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
        deadline = time.monotonic() + self._seconds
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        # A parser may end before it has read all: the writer waits for nobody.
        writer = threading.Thread(
            target=_send, args=(process.stdin, kind, stream, size), name="rare-parse", daemon=True
        )
        writer.start()
        try:
            answer = _receive(process, deadline)
        except TimeoutError:
            self._end(writer)
            return Extracted(
                problem="parser_stopped",
                detail=f"parsing took more than {self._seconds:g} seconds and was stopped",
            )
        except EOFError:
            status = self._end(writer)
            return Extracted(
                problem="parser_stopped",
                detail=f"the parser ended ({status}); it may have needed more than "
                f"{self._memory >> 20:,} MB of memory",
            )
        except BaseException:
            self._end(writer)
            raise
        writer.join()
        return Extracted(**json.loads(answer))

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

    def _end(self, writer: threading.Thread | None = None) -> str:
        """Kill the process if there is one. Returns how it ended."""
        process, self._process = self._process, None
        if process is None:
            return ""
        # One that died by itself is given the time to say how.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2 if writer else 0)
        process.kill()
        status = process.wait()
        if writer:
            writer.join()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        return f"signal {-status}" if status < 0 else f"status {status}"


def _send(pipe: IO[bytes], kind: str, stream: IO[bytes], size: int) -> None:
    header = json.dumps({"kind": kind, "size": size}).encode()
    # A process that is gone has closed the pipe, as the reading side finds.
    with contextlib.suppress(OSError, ValueError):
        pipe.write(struct.pack("<I", len(header)) + header)
        left = size
        while left and (block := stream.read(min(_BLOCK, left))):
            pipe.write(block)
            left -= len(block)
        while left:  # the file has shrunk
            left -= pipe.write(b"\0" * min(_BLOCK, left))
        pipe.flush()


def _receive(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Raises TimeoutError or, where the process has ended, EOFError."""
    assert process.stdout is not None
    handle = process.stdout.fileno()
    received = bytearray()
    wanted = 4
    while len(received) < wanted:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            raise TimeoutError
        block = os.read(handle, _BLOCK)
        if not block:
            raise EOFError
        received += block
        if wanted == 4 and len(received) >= 4:
            wanted = 4 + struct.unpack("<I", received[:4])[0]
    return bytes(received[4:wanted])
