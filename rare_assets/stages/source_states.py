"""Show the source's files in the UI: which are new, changed or gone, and which are made.

Each change is an observation of `corpus_files` with its counts and a table of shards; a changed shard
gets one of its own with the data version of its file, from which Dagster tells that this shard's
documents, and no others, are unsynced.

What was found of each shard lies in `<storage>/corpus_files/states.parquet`, so that a look at
unchanged files opens no stored table.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.resources.tags import DATA_VERSION_TAG
from rare_assets.stages import documents
from rare_assets.storage.footers import content_hash
from rare_assets.storage.tables import file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rare_assets.corpus.scan import Scan
    from rare_assets.corpus.source import CorpusSource
    from rare_assets.resources.dataset import Dataset
    from rare_assets.storage.tables import ParquetTables

NEW, CHANGED, GONE, MADE, UNKNOWN = "new", "changed", "gone", "made", "not looked at yet"
# The order in which the table shows them: what asks for something first.
STATES = (CHANGED, GONE, NEW, UNKNOWN, MADE)
# Each look reads the footer of a stored table, from an object store perhaps.
LOOKS_AT_ONCE = 1000
SHOWN = 300
STATES_SCHEMA = {
    "shard": pl.String,
    "rows": pl.Int64,
    "version": pl.String,
    "inputs": pl.String,
    "stored": pl.String,
    "state": pl.String,
}


class SourceStates(NamedTuple):
    """A row for each shard of the source and each registered one that is gone, by shard.

    `version` is the file's; `inputs` is all that its documents would be made from; `stored` changes
    when the stored documents are replaced, and is null where there are none.
    """

    frame: pl.DataFrame

    @property
    def data_version(self) -> str:
        """Hash of the files: it changes when one of them does, whatever was made of it."""
        return content_hash(self.frame.filter(pl.col("state") != GONE), ("shard", "version"))

    @property
    def fingerprint(self) -> str:
        """Hash of files and states: it changes when one of either does."""
        return content_hash(self.frame, ("shard", "version", "state"))

    def counts(self) -> dict[str, int]:
        """Return the number of shards in each state."""
        counted = dict(self.frame["state"].value_counts().iter_rows())
        return {state: counted.get(state, 0) for state in STATES}

    def metadata(self, sizes: Mapping[str, int | None]) -> dict[str, Any]:
        """Return what an observation of all files shows: counts, bytes, and the first 300 files in a table.

        Args:
            sizes: bytes by shard, None where they are not known.
        """
        order = pl.col("state").cast(pl.Enum(STATES))
        shown = self.frame.sort(order, "shard").head(SHOWN)
        columns = [
            dg.TableColumn("shard", "string"),
            dg.TableColumn("rows", "int"),
            dg.TableColumn("bytes", "int"),
            dg.TableColumn("state", "string"),
        ]
        known = [size for shard in self.frame["shard"] if (size := sizes.get(shard)) is not None]
        return {
            "shards": self.frame.height,
            **{f"shards/{state.replace(' ', '_')}": n for state, n in self.counts().items()},
            "rows": self.frame["rows"].sum(),
            "bytes": sum(known),
            "files": dg.MetadataValue.table(
                [
                    dg.TableRecord(
                        {
                            "shard": row["shard"],
                            "rows": row["rows"],
                            "bytes": sizes.get(row["shard"]),
                            "state": row["state"],
                        }
                    )
                    for row in shown.iter_rows(named=True)
                ],
                dg.TableSchema(columns),
            ),
        }


def source_states(scan: Scan, tables: ParquetTables, removed: list[str]) -> SourceStates:
    """Find the state of each shard; the footers of at most `LOOKS_AT_ONCE` tables are read.

    Args:
        removed: gone shards that were removed just now.
    """
    path = tables.root / "corpus_files" / "states.parquet"
    last = tables.remembered(path, STATES_SCHEMA)
    stored = tables.stored_versions("documents")
    known = {row[:3]: row[3] for row in last.select("shard", "inputs", "stored", "state").rows()}
    rows: list[tuple[Any, ...]] = []
    looks = 0
    for shard in scan.shards:
        inputs = "\n".join(documents.made_from(shard).values())
        found = stored.get(file_name(shard.key))
        state = NEW if found is None else known.get((shard.key, inputs, found), UNKNOWN)
        if state == UNKNOWN and looks < LOOKS_AT_ONCE:
            looks += 1
            state = MADE if documents.is_current(tables, shard) else CHANGED
        rows.append((shard.key, shard.n_rows, shard.version, inputs, found, state))
    rows += [(key, None, None, None, None, GONE) for key in scan.gone if key not in set(removed)]
    frame = pl.DataFrame(rows, STATES_SCHEMA, orient="row").sort("shard")
    if not frame.equals(last):
        tables.write_file(frame, path)
    return SourceStates(frame)


def report_changes(states: SourceStates, instance: dg.DagsterInstance, dataset: Dataset) -> int:
    """Report the data version of each changed file that Dagster does not know yet.

    A file that was never read needs none: its documents are missing. One that was changed back
    leaves its documents unsynced until they are made, which is free.

    Return how many were reported.
    """
    changed = dict(
        states.frame.filter(pl.col("state") == CHANGED).select("shard", "version").iter_rows()
    )
    if not changed:
        return 0
    files = dataset.key("corpus_files")
    known = instance.event_log_storage.get_latest_tags_by_partition(
        files, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG], list(changed)
    )
    unknown = {
        shard: version
        for shard, version in changed.items()
        if known.get(shard, {}).get(DATA_VERSION_TAG) != version
    }
    for shard, version in unknown.items():
        instance.report_runless_asset_event(
            dg.AssetObservation(files, partition=shard, tags={DATA_VERSION_TAG: version})
        )
    return len(unknown)


def report_states(
    states: SourceStates,
    source: CorpusSource,
    scan: Scan,
    instance: dg.DagsterInstance,
    dataset: Dataset,
) -> bool:
    """Report what has changed since the last report, if anything has. Return True if it has."""
    # What was reported last to this instance.
    reported = f"rare_assets/{dataset.key('corpus_files').to_user_string()}"
    cursor = instance.run_storage.get_cursor_values({reported}).get(reported)
    if cursor == states.fingerprint:
        return False
    report_changes(states, instance, dataset)
    instance.report_runless_asset_event(
        dg.AssetObservation(
            dataset.key("corpus_files"),
            metadata=states.metadata(shard_sizes(source, scan)),
            tags={DATA_VERSION_TAG: states.data_version},
        )
    )
    instance.run_storage.set_cursor_values({reported: states.fingerprint})
    return True


def shard_sizes(source: CorpusSource, scan: Scan) -> dict[str, int | None]:
    """Return the bytes of each shard; None for part of a file whose rows have no place of their
    own."""
    files = {file.path: file.size for file in source.files()}
    parts = Counter(shard.file for shard in scan.shards)
    return {
        shard.key: shard.byte_end - shard.byte_start
        if shard.byte_start is not None and shard.byte_end is not None
        else sum(files.get(path, 0) for path in shard.members)
        if shard.members
        else files.get(shard.file)
        if parts[shard.file] == 1
        else None
        for shard in scan.shards
    }
