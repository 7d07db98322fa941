"""The one folder of this machine that is written to beside storage and DAGSTER_HOME: RARE_CACHE.

What lies there can be lost at any time: local copies of an index, and files for a moment.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rare_assets.files.stored_bytes import StorageError


def cache_folder() -> Path:
    """Return RARE_CACHE, or else this user's cache folder; it need not be there yet."""
    if given := os.environ.get("RARE_CACHE"):
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rare_assets"


def temporary_folder() -> str:
    """Return where files for a moment go: below RARE_CACHE where that is set, else the system's folder.

    Raises:
        StorageError: RARE_CACHE can't be written.
    """
    if not os.environ.get("RARE_CACHE"):
        return tempfile.gettempdir()
    folder = cache_folder() / "tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"RARE_CACHE {cache_folder()} can't be used ({error.strerror}): set it to a folder that can be written."
        ) from error
    return str(folder)


def socket_folder() -> str | None:
    """Return where `multiprocessing` puts its sockets, which RARE_CACHE doesn't move; None if nothing can be
    written there."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None
