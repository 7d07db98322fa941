"""Dagster's way to the stored tables: assets return a `ShardTable`, downstream gets a frame."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import unquote

import dagster as dg
import polars as pl

from rare_assets.resources.configurable import Storage
from rare_assets.resources.failures import failures_told
from rare_assets.storage.parquet_files import EXTENSION
from rare_assets.storage.tables import ParquetTables, file_name
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from upath import UPath


class ShardTable(NamedTuple):
    """A shard as an asset hands it over: rows (eager or lazy), rejects, and what it was made from."""

    rows: pl.DataFrame | pl.LazyFrame
    rejects: pl.DataFrame | None = None
    made_from: Mapping[str, str] = {}


@contextmanager
def _without_debug(log: logging.Logger) -> Iterator[None]:
    """Leave out what the base class says in lines of its own, which the events beside them say, too: each is
    a row of the event log."""

    def is_told(record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG

    log.addFilter(is_told)
    try:
        yield
    finally:
        log.removeFilter(is_told)


class ParquetIOManager(dg.ConfigurableIOManager, dg.UPathIOManager):
    """One Parquet file a shard and table, with its rejects beside it (`rare_assets.storage.tables`).

    Takes a `ShardTable` or a bare Polars frame; gives a LazyFrame, or a DataFrame to an input
    annotated as one. Several partitions load as `dict[str, LazyFrame]`. What is loaded is verified
    first: a damaged file, like one that can't be read, fails the step before it costs anything.
    """

    storage: dg.ResourceDependency[Storage]
    extension: ClassVar[str] = EXTENSION  # type: ignore[misc]

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        pass

    @property
    def _base_path(self) -> "UPath":  # type: ignore[override]
        # Looked up within a step, so that a storage that can't be opened is told as its failure.
        return self._tables.root

    @failures_told()
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        with _without_debug(context.log):
            super().handle_output(context, obj)

    @failures_told()
    def load_input(self, context: dg.InputContext) -> Any:
        with _without_debug(context.log):
            return super().load_input(context)

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> "UPath":
        """Return the table's folder: a corpus' prefix of the keys is no part of its storage."""
        from upath import UPath

        return UPath(context.asset_key.path[-1])

    def make_directory(self, path: "UPath") -> None:
        """Leave folders to the tables, which make them as they write."""

    def make_safe_partition_path(self, base_path: "UPath", partition: str) -> "UPath":
        return base_path / file_name(partition)

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: "UPath") -> None:
        shard = obj if isinstance(obj, ShardTable) else ShardTable(obj)
        table = context.asset_key.path[-1]
        self._tables.write(table, context.partition_key, *shard)

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, dg.MetadataValue]:
        """Return where the rejects lie, beside what the base class says of the table itself."""
        path = self._tables.rejects_path(context.asset_key.path[-1], context.partition_key)
        return {"rejects_path": dg.MetadataValue.path(shown(path))}

    def load_from_path(
        self, context: dg.InputContext, path: "UPath"
    ) -> pl.LazyFrame | pl.DataFrame:
        rows = self._tables.load(context.asset_key.path[-1], unquote(path.stem))
        return rows.collect() if context.dagster_type.typing_type is pl.DataFrame else rows

    @property
    def _tables(self) -> ParquetTables:
        return self.storage.tables()
