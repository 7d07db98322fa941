"""List the files of a source: under a folder, by a pattern, or one alone, on any file system.

No file is opened. What a file system raises becomes `SourceError`, without the secrets of the URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import fsspec
from polars.exceptions import PanicException

from rare_assets.corpus.formats import (
    KNOWN_FORMATS,
    SourceError,
    is_known,
    is_unicode,
    on_one_line,
)
from rare_assets.files.object_store import unreadable_authorities
from rare_assets.files.stored_bytes import package_for
from rare_assets.text.shown import first_names
from rare_assets.text.shown_url import shown, without_secrets

_MAGIC = re.compile(r"[*?\[{]")
_NAMED_AT_MOST = 100
_TABLE_LOGS = {"_delta_log", ".hoodie"}


class Place(NamedTuple):
    """The place of a source.

    Attributes:
        fs: the file system, of fsspec.
        kind: "file", "folder" or "pattern".
        path: what the source names on it.
        base: the folder that the paths of files are relative to.
    """

    fs: Any
    kind: str
    path: str
    base: str

    def within(self, full_path: str) -> str:
        """Return a file's path relative to the source, with "/"."""
        return full_path.removeprefix(self.base).lstrip("/")

    def is_hidden(self, full_path: str) -> bool:
        """Return True if the file, or a folder that it is in, has a name that begins with "." or "_"."""
        names = self.within(full_path).split("/")
        return self.kind != "file" and any(name.startswith((".", "_")) for name in names)

    def holds(self, url: str) -> bool:
        """Return True if what lies in another folder is found with what is in this one."""
        fs, path = fsspec.core.url_to_fs(url)
        base = self.base
        if isinstance(fs, fsspec.get_filesystem_class("file")):
            # By links, too.
            path, base = os.path.realpath(path), os.path.realpath(base)
        below = f"{path.rstrip('/')}/".startswith(f"{base}/")
        own = type(fs) is type(self.fs) and self.kind == "folder"
        return own and below and not re.search(r"/[._]", path[len(base) :])


def place_of(url: str) -> Place:
    """Return where a source lies.

    Raises:
        SourceError: it is missing, or its file system can't be reached.
    """
    with reaching(shown(url), "reached", url):
        fs, path = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        try:
            kind = "folder" if fs.info(path)["type"] == "directory" else "file"
        except FileNotFoundError:
            if not _MAGIC.search(path):
                raise SourceError(
                    f"{shown(url)}: the source does not exist. Set RARE_SOURCE to a folder, a "
                    "file, a pattern or a URL that does."
                ) from None
            kind = "pattern"
    if kind == "folder":
        return Place(fs, kind, path, path.rstrip("/"))
    fixed = _MAGIC.split(path)[0] if kind == "pattern" else path
    return Place(fs, kind, path, fixed.rpartition("/")[0])


def list_files(place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield full path and details of each file, as the file system's `info` would give them.

    Raises:
        OSError: a folder can't be read, or what the file system raises.
    """
    fs = place.fs
    if place.kind == "file":
        yield place.path, fs.info(place.path)
    elif place.kind == "folder" and isinstance(fs, fsspec.get_filesystem_class("file")):
        for path in _walk_local(place.path):
            try:
                yield path, fs.info(path)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not os.path.islink(path):
                    continue  # deleted since the folder was listed
                # A link to nowhere, say: its own shard tells so, and the others go on.
                yield path, {}
    else:
        list_all: Callable[..., dict[str, Any]] = fs.glob if place.kind == "pattern" else fs.find
        for path, details in list_all(place.path, detail=True).items():
            if details.get("type") != "directory" and not path.endswith("/"):
                yield path, details


def _walk_local(folder: str) -> Iterator[str]:
    """Yield the paths of the files in a local folder; links are followed, an unreadable folder raises.

    fsspec's own walk passes over both in silence.
    """

    def fail(error: OSError) -> None:
        raise error

    visited = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Of hidden folders those count that tell what the others hold.
        yield from (os.path.join(parent, name, "") for name in folders if name in _TABLE_LOGS)
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        yield from (os.path.join(parent, name) for name in names if name[0] not in "._")


def check_names(paths: list[str], whole_url: str) -> None:
    """Refuse files of a format that can't be read, and names that are not UTF-8.

    Args:
        paths: of the files, relative to the source.
        whole_url: of the source; what it may hold of secrets is in no message.

    Raises:
        SourceError: names the first of them, and says what to do.
    """
    url = shown(whole_url)
    unknown = [without_secrets(path, whole_url) for path in paths if not is_known(path)]
    if unknown:
        raise SourceError(
            f"{url}: files of a format that can't be read: {_named(unknown)}. Known formats: "
            f"{KNOWN_FORMATS}. Move the others out of the source, or give a pattern such as "
            "folder/*.jsonl as RARE_SOURCE."
        )
    undecodable = [path for path in paths if not is_unicode(path)]
    if undecodable:
        raise SourceError(
            f"{url}: file names that are not UTF-8: {_named(undecodable)}. Rename them."
        )


def _named(paths: list[str]) -> str:
    return first_names([on_one_line(path) for path in paths], _NAMED_AT_MOST)


@contextmanager
def reaching(name: str, verb: str, url: str) -> Iterator[None]:
    """Name the source or file in whatever its file system or Polars raises, without secrets of `url`.

    Args:
        name: what the message calls it.
        verb: what can't be done with it, as in "can't be read".
        url: of the source, with its secrets.

    Raises:
        SourceError: in place of any other error.
    """
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(
            f"{name}: can't be {verb}: {without_secrets(error, url)}. It needs "
            f"{package_for(url.partition('://')[0])}."
        ) from error
    # Each store raises its own classes, with no base in common; on some broken Parquet Polars panics.
    except (Exception, PanicException) as error:
        reason = (
            f"{type(error).__name__}: {without_secrets(error, url)}{unreadable_authorities(url)}"
        )
        raise SourceError(
            f"{name}: can't be {verb} ({reason}). Check that it is whole, and "
            "that permissions, credentials and network allow reading it."
        ) from error
