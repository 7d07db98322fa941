"""Files of batches for a moment, on their way to the endpoint and from it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from rare_assets.files.cache import temporary_folder
from rare_assets.teacher.interface import TeacherStopped


def scratch_file() -> IO[bytes]:
    """Open such a file; it is gone when it is closed. Raises TeacherStopped."""
    with writing():
        return tempfile.TemporaryFile(dir=temporary_folder())


def discard(file: IO[bytes]) -> None:
    """Close such a file, without room for what was not written yet."""
    with suppress(OSError):
        file.close()


@contextmanager
def writing() -> Iterator[None]:
    """Hold nothing but writing such a file in it.

    Raises:
        TeacherStopped: it can't be written; the message says where room is missing.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or temporary_folder()
        raise TeacherStopped(
            f"The file of a batch can't be written in {place}: {error.strerror or error}. Make room there, or set "
            "RARE_CACHE to a folder with room, then run again: what was handed in, and every answer received, is kept."
        ) from error
