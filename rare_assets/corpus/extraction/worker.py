"""The process that parses: files come by standard input, texts go by standard output, each with its lengths."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from typing import IO, Any

from rare_assets.corpus.extraction import LENGTHS, Unusable

# What a file's text may have, as a row of any source.
MAX_TEXT_BYTES = 64 << 20


def parse(kind: str, content: bytes) -> dict[str, Any]:
    """Return `text` and `title` of a file, or `problem` and `detail`."""
    try:
        if kind == "pdf":
            from rare_assets.corpus.extraction.pdf import extract
        elif kind == "docx":
            from rare_assets.corpus.extraction.docx import extract
        else:
            from rare_assets.corpus.extraction.html import extract
        text, title = extract(content)
    except Unusable as error:
        return {"problem": error.reason, "detail": error.detail}
    except MemoryError:
        return {"problem": "parser_stopped", "detail": "parsing took more memory than allowed"}
    # Parsers raise whatever a broken file makes them meet, and for want of memory, too.
    except Exception as error:
        if _short_of_memory():
            return {"problem": "parser_stopped", "detail": f"for want of memory: {error}"}
        return {"problem": "broken_file", "detail": f"{type(error).__name__}: {error}"}
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        return {"problem": "too_large", "detail": f"{len(text):,} characters of text"}
    return {"text": text, "title": title}


def _short_of_memory() -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return limit != resource.RLIM_INFINITY and used > limit // 2


def main(seconds: float, memory: int) -> None:
    """Parse one file after the other until there are no more."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a parser prints is no answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while lengths := source.read(LENGTHS.size):
        of_asked, of_file = LENGTHS.unpack(lengths)
        asked = json.loads(_exactly(source, of_asked))
        # Should the parent be gone, nobody else ends a parser that hangs.
        signal.alarm(int(seconds) + 30)
        parsed = parse(asked["kind"], _exactly(source, of_file))
        text = parsed.pop("text", "").encode("utf-8", "surrogatepass")
        told = json.dumps(parsed).encode()
        signal.alarm(0)
        target.write(LENGTHS.pack(len(told), len(text)) + told)
        target.write(text)
        target.flush()


def _exactly(source: IO[bytes], size: int) -> bytes:
    content = source.read(size)
    if len(content) < size:
        sys.exit(0)
    return content


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
