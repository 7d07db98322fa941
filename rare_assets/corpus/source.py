"""Cut the files that documents come from, in a folder or an object store, into shards."""

from __future__ import annotations

import contextlib
import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from rare_assets.corpus.beside import documents_among, table_among
from rare_assets.corpus.boilerplate import without_repeated_lines
from rare_assets.corpus.columns import Columns, ColumnsError
from rare_assets.corpus.extraction.process import Extractor
from rare_assets.corpus.formats import (
    FILL_IT,
    KNOWN_FORMATS,
    NO_BYTES,
    Format,
    Reading,
    SourceError,
    SourceRow,
    Span,
    StoredFile,
    UnreadableFile,
    format_of,
    is_text_file,
    on_one_line,
)
from rare_assets.corpus.listing import (
    Place,
    check_names,
    list_files,
    place_of,
    reaching,
)
from rare_assets.corpus.packing import (
    DATA,
    DATA_PACKED_ABOVE,
    PACKED_ABOVE,
    SMALL_BYTES,
    TEXTS,
    packed,
    version_of,
)
from rare_assets.corpus.passages import Cutting
from rare_assets.corpus.shards import Shard, file_key, part_key, shard_keys
from rare_assets.files.stored_bytes import file_version
from rare_assets.text.shown_url import shown

# Files opened side by side by a scan: the waiting is the network's.
_SCAN_THREADS = 8
# Before the version of a file that could not be cut: no stored table is made from such a version.
_UNREAD = "unread:"


class UnknownShard(SourceError):
    """Raised where the source has no shard of that key."""


class CorpusFile(NamedTuple):
    """A file of the source.

    `path` is relative to the source, with "/"; `url` is what fsspec opens, without credentials;
    `version` changes when the file does: the store's etag, else time of change and size.
    """

    path: str
    url: str
    size: int
    version: str


class CorpusSource:
    """The files under a URL, as shards of at most `rows_per_shard` rows.

    Args:
        url: a folder, a file or a glob pattern, local or of any fsspec protocol (s3://, gs://, ...).
            Files and folders whose name begins with "." or "_" are left out.
        rows_per_shard: a file with more rows makes several shards.
        columns: which column of a data file is which, as RARE_COLUMNS says it.
        cutting: which texts are cut into passages, and how long those are.
        strip_boilerplate: leave out lines that many files of a shard have.
        files_per_shard: where there are many text files, or small data files, so many share a shard at most.
    """

    def __init__(
        self,
        url: str,
        rows_per_shard: int,
        *,
        columns: str | None = None,
        cutting: Cutting | None = None,
        strip_boilerplate: bool = False,
        files_per_shard: int = 1,
    ) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, not {rows_per_shard}")
        self._url = url
        self.rows_per_shard = rows_per_shard
        self._columns = columns
        self.cutting = cutting or Cutting()
        self.strip_boilerplate = strip_boilerplate
        self.files_per_shard = files_per_shard

    def __repr__(self) -> str:
        return f"CorpusSource({self.url!r}, rows_per_shard={self.rows_per_shard})"

    @property
    def url(self) -> str:
        """The URL as given, without the password or signature that it may hold."""
        return shown(self._url)

    @cached_property
    def columns(self) -> Columns:
        """The column that each field is read from.

        Raises:
            SourceError: the setting can't be used.
        """
        try:
            return Columns.parse(self._columns)
        except ColumnsError as error:
            raise SourceError(f"RARE_COLUMNS: {error}") from None

    def files(self) -> list[CorpusFile]:
        """Return every file of the source, sorted by path, from one listing; no file is opened.

        Raises:
            SourceError: the source is missing, empty or can't be listed, or a file has a format that
                can't be read (all of them are named).
        """
        place = self._place
        with reaching(self.url, "listed", self._url):
            place.fs.invalidate_cache()
            found = list(list_files(place))
        if place.kind != "file" and (told := table_among(place.within(path) for path, _ in found)):
            raise SourceError(f"{self.url}: {told}")
        files = sorted(
            self._file(path, details) for path, details in found if not place.is_hidden(path)
        )
        if place.kind != "file":
            kept = set(documents_among([file.path for file in files]))
            files = [file for file in files if file.path in kept]
        if not files:
            raise SourceError(
                f"{self.url}: the source is empty: no file in it but hidden ones. Put files of the "
                f"formats {KNOWN_FORMATS} there, or set RARE_SOURCE to another folder or URL; a "
                "pattern must match files, as in folder/**/*.jsonl."
            )
        check_names([file.path for file in files], self._url)
        return files

    def require_apart(self, storage: str) -> None:
        """Refuse a storage whose tables would be read as documents of this source.

        Raises:
            SourceError: it lies in the source, in no folder whose name begins with "." or "_".
        """
        if self._place.holds(storage):
            raise SourceError(
                f"{self.url}: RARE_STORAGE {shown(storage)} lies in this source, and its tables would become "
                "documents: name a folder outside of the source, or one in it that begins with a dot."
            )

    def shards(self, known: Iterable[Shard] = ()) -> list[Shard]:
        """Return every shard of the source, sorted by key.

        A file that can't be read still has a shard (those of `known`, else one of 0 rows), of a version
        that no table is made from: `read` raises the error in its own partition, the other files go on.

        Args:
            known: what an earlier call returned. Files of the same version aren't opened again.

        Raises:
            SourceError: as `files`.
        """
        files = self.files()
        known = list(known)
        together = self._packed(files, known)
        members = {path for shard in together for path in shard.members}
        files = [file for file in files if file.path not in members]
        keys = shard_keys(file.path for file in files)
        known_parts: dict[str, list[Shard]] = defaultdict(list)
        for shard in sorted(known, key=lambda shard: (shard.file, shard.part)):
            known_parts[shard.file].append(shard)

        def cut(file: CorpusFile) -> list[Shard]:
            try:
                return self._cut(file, keys[file.path])
            except UnreadableFile:
                unread = known_parts[file.path] or [self._unread(file.path)]
                return [shard._replace(version=f"{_UNREAD}{file.version}") for shard in unread]

        changed = [file for file in files if not self._still_holds(known_parts[file.path], file)]
        with ThreadPoolExecutor(_SCAN_THREADS, "rare-scan") as threads:
            parts = {
                **known_parts,
                **dict(zip((f.path for f in changed), threads.map(cut, changed), strict=True)),
            }
        single = [
            shard._replace(key=part_key(keys[file.path], shard.part))
            for file in files
            for shard in parts[file.path]
        ]
        return sorted([*single, *together])

    def shard(self, key: str, known: Iterable[Shard] = ()) -> Shard:
        """Return the shard of that key as it is now.

        Args:
            known: what `shards` returned earlier. For a key among them the source isn't listed, and
                the file is opened only if it has changed.

        Raises:
            UnknownShard: there is no such shard, or no longer.
            UnreadableFile: its file can't be read.
            SourceError: the source can't be reached or listed.
        """
        known = list(known)
        earlier = next((shard for shard in known if shard.key == key), None)
        if earlier is not None:
            return self._now(earlier)
        files = self.files()
        keys = shard_keys(file.path for file in files)
        together = {shard.key: shard for shard in self._packed(files, known)}
        if key in together:
            return together[key]
        first_key = file_key(key)
        file = next((file for file in files if keys[file.path] == first_key), None)
        if file is None:
            raise self._unknown(key, keys.values())
        parts = self._cut(file, first_key)
        shard = next((part for part in parts if part.key == key), None)
        if shard is None:
            raise self._unknown(key, [part.key for part in parts])
        return shard

    def read(self, shard: Shard) -> Iterator[SourceRow]:
        """Yield the shard's rows, in order. A file that changed since it was cut is cut again first.

        Raises:
            UnknownShard: the file, or this part of it, is gone.
            UnreadableFile: the file can't be read: no permission, or broken as a whole.
            SourceError: the source can't be reached.
        """
        shard = self._now(shard)
        span = Span(shard.first_row, shard.n_rows, shard.byte_start, shard.byte_end)
        with Extractor() as extractor:
            if shard.members:
                rows = chain.from_iterable(self._member(p, extractor) for p in shard.members)
                stripped = self.strip_boilerplate and is_text_file(shard.members[0])
                yield from without_repeated_lines(rows) if stripped else rows
                return
            with self._reading(shard.file):
                yield from self._format(shard.file, extractor).rows(self._stored(shard.file), span)

    def _member(self, path: str, extractor: Extractor) -> Iterator[SourceRow]:
        """Yield the rows of one of a shard's files; one that can't be read is a problem of its own."""
        row = 0
        try:
            with self._reading(path):
                format_, stored = self._format(path, extractor), self._stored(path)
                for span in format_.spans(stored, self.rows_per_shard):
                    for found in format_.rows(stored, span):
                        row = found.row
                        yield found._replace(file=path)
        except UnreadableFile as error:
            yield SourceRow(row + 1, None, "unreadable", str(error), path)

    def _packed(self, files: list[CorpusFile], known: Iterable[Shard] = ()) -> list[Shard]:
        """Return the shards of several files, where there are so many text files, or small data files."""
        if self.files_per_shard == 1:
            return []
        texts = {file.path: file for file in files if is_text_file(file.path)}
        small = {f.path: f for f in files if f.size <= SMALL_BYTES and f.path not in texts}
        members: dict[str, list[CorpusFile]] = {}
        for of, some, few in ((TEXTS, texts, PACKED_ABOVE), (DATA, small, DATA_PACKED_ABOVE)):
            if len(some) > few:
                shards = packed(some, self.files_per_shard, of)
                members |= {key: [some[path] for path in paths] for key, paths in shards.items()}
        earlier = {shard.key: shard for shard in known if shard.members}
        return sorted(
            self._of_members(key, some, earlier.get(key)) for key, some in members.items()
        )

    def _of_members(self, key: str, files: list[CorpusFile], earlier: Shard | None) -> Shard:
        """Return the shard of these files; their rows are counted only if a file has changed."""
        version = version_of([(file.path, file.version) for file in files])
        paths = tuple(file.path for file in files)
        is_text = is_text_file(paths[0])
        stripped = "without repeated lines" if self.strip_boilerplate and is_text else ""
        reading = ", ".join(filter(None, [self._reading_of(paths[0]), stripped]))
        if earlier is not None and (earlier.version, earlier.reading) == (version, reading):
            return earlier
        n_rows = len(paths) if is_text else self._count(files)
        return Shard(key, key, 0, 1, n_rows, None, None, version, reading, paths)

    def _count(self, files: list[CorpusFile]) -> int:
        """Return the rows of data files; one that can't be read counts as one, since it is a reject."""

        def count(file: CorpusFile) -> int:
            try:
                return sum(part.n_rows for part in self._cut(file, ""))
            except UnreadableFile:
                return 1

        with ThreadPoolExecutor(_SCAN_THREADS, "rare-scan") as threads:
            return sum(threads.map(count, files))

    @cached_property
    def _place(self) -> Place:
        return place_of(self._url)

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Raise UnreadableFile for what one file meets, SourceError where the whole source is away.

        What a store raises for the one and for the other differs from store to store: the source
        itself is asked whether it is there.
        """
        try:
            with reaching(on_one_line(path), "read", self._url):
                yield
        except UnreadableFile as error:
            found = self._without_a_byte(path) or error
            found.file = path
            raise found from error.__cause__
        except SourceError as error:
            if isinstance(error.__cause__, ImportError):
                raise
            self._require_source()
            unreadable = self._without_a_byte(path) or UnreadableFile(str(error))
            unreadable.file = path
            raise unreadable from error.__cause__

    def _without_a_byte(self, path: str) -> UnreadableFile | None:
        """Return what to raise for a file without a byte, which each format meets in words of its
        own; None if it has some."""
        with contextlib.suppress(OSError):
            found = self._place.fs.info(f"{self._place.base}/{path}")
            if (found["type"], found["size"]) == ("file", 0):
                return UnreadableFile(f"{on_one_line(path)}: {NO_BYTES}. {FILL_IT}")
        return None

    def _require_source(self) -> None:
        """Raise SourceError unless the source can be reached now."""
        place = self._place
        with reaching(self.url, "reached", self._url):
            place.fs.invalidate_cache()
            place.fs.info(place.path if place.kind == "file" else place.base or place.path)

    @cached_property
    def _base_url(self) -> str:
        """What stands before a file's path from the base on: made once, since there may be many files."""
        return str(self._place.fs.unstrip_protocol(self._place.base)).rstrip("/")

    def _stored(self, path: str) -> StoredFile:
        return StoredFile(self._place.fs, f"{self._place.base}/{path}", on_one_line(path))

    def _file(self, full_path: str, details: dict[str, Any]) -> CorpusFile:
        path = self._place.within(full_path)
        base = self._place.base
        url = (
            self._base_url + full_path[len(base) :]
            if base
            else self._place.fs.unstrip_protocol(full_path)
        )
        return CorpusFile(path, url, int(details.get("size") or 0), file_version(details))

    def _now(self, shard: Shard) -> Shard:
        """Return the shard as its file is now, which is opened only if it has changed."""
        if shard.members:
            return self._members_now(shard)
        stored = self._stored(shard.file)
        try:
            with self._reading(shard.file):
                stored.fs.invalidate_cache()
                file = self._file(stored.path, stored.fs.info(stored.path))
        except UnreadableFile as error:
            if isinstance(error.__cause__, FileNotFoundError) and not stored.is_link():
                raise self._unknown(shard.key, [], f"{stored.name} is gone.") from None
            raise
        if file.version == shard.version and shard.reading == self._reading_of(file.path):
            return shard
        parts = self._cut(file, file_key(shard.key))
        if shard.part >= len(parts):
            n_rows = sum(part.n_rows for part in parts)
            raise self._unknown(shard.key, [], f"{stored.name} has only {n_rows} rows now.")
        return parts[shard.part]

    def _members_now(self, shard: Shard) -> Shard:
        """Return the shard of those of its files that are still there; files that came are found by a scan."""

        def look(path: str) -> CorpusFile | None:
            stored = self._stored(path)
            try:
                return self._file(stored.path, stored.fs.info(stored.path))
            except FileNotFoundError:
                # A link to nowhere is there, and tells so when it is read.
                return CorpusFile(path, "", 0, file_version({})) if stored.is_link() else None

        with reaching(shard.key, "looked at", self._url):
            self._place.fs.invalidate_cache()
            with ThreadPoolExecutor(_SCAN_THREADS, "rare-scan") as threads:
                files = [file for file in threads.map(look, shard.members) if file]
        if not files:
            self._require_source()
            raise self._unknown(shard.key, [], "All of its files are gone.")
        return self._of_members(shard.key, files, shard)

    def _cut(self, file: CorpusFile, key: str) -> list[Shard]:
        with self._reading(file.path):
            spans = self._format(file.path).spans(self._stored(file.path), self.rows_per_shard)
        return [
            Shard(
                key=part_key(key, part),
                file=file.path,
                part=part,
                first_row=span.first_row,
                n_rows=span.n_rows,
                byte_start=span.byte_start,
                byte_end=span.byte_end,
                version=file.version,
                reading=self._reading_of(file.path),
            )
            for part, span in enumerate(spans)
        ]

    def _still_holds(self, parts: list[Shard], file: CorpusFile) -> bool:
        """Return whether the known parts of a file are those that cutting it now would give."""
        return (
            bool(parts)
            and [shard.part for shard in parts] == list(range(len(parts)))
            and all(shard.version == file.version for shard in parts)
            and all(shard.reading == self._reading_of(file.path) for shard in parts)
            and all(shard.n_rows == self.rows_per_shard for shard in parts[:-1])
            and parts[-1].n_rows <= self.rows_per_shard
        )

    def _format(self, path: str, extractor: Extractor | None = None) -> Format:
        return format_of(path, Reading(self.columns, lambda: extractor or Extractor()))

    def _unread(self, path: str) -> Shard:
        return Shard("", path, 0, 1, 0, None, None, "", self._reading_of(path))

    def _reading_of(self, path: str) -> str:
        """Return the settings by which a file is read, where they are not the default ones."""
        words = self.cutting.words(text_file=is_text_file(path))
        if is_text_file(path):
            return "" if words == Cutting().passage_words else f"passages of {words} words"
        said = [f"columns {self.columns.setting}"] if self.columns.setting else []
        return ", ".join(said + ([f"rows cut at {words} words"] if words else []))

    def _unknown(self, key: str, keys: Iterable[str], why: str = "") -> UnknownShard:
        close = difflib.get_close_matches(key, list(keys), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return UnknownShard(
            f"shard {key!r} is not in the source {self.url}.{' ' if why else ''}{why}{hint} "
            "`rare-assets run` and the sensor `new_shards` register what RARE_SOURCE has."
        )
