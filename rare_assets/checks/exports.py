"""What the training files promise: rows that no trainer trips over, and splits that hold."""

import json
import warnings
from collections.abc import Iterator

import dagster as dg
import polars as pl

from rare_assets.exports.export import Export
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions
from rare_assets.exports.proof import prove, rows_of
from rare_assets.exports.shard_files import COPIES, SIDECAR, Written
from rare_assets.resources.configurable import Storage
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.stages.exports import CARD, export_keys

ROWS_FIT = "rows_fit_format"


def broken_rows(export: Export, written: Written) -> dict[str, int]:
    """Return how many rows of a shard's files break which rule of the format; none if all is well.

    Besides the format's own: a file is missing, has another number of rows than its sidecar, or all
    together another than the manifest says.
    """
    each = FORMATS[written.format]
    found: dict[str, int] = {}

    def count(rule: str, rows: int) -> None:
        if rows:
            found[rule] = found.get(rule, 0) + rows

    for facts in written.splits.values():
        total = 0
        for file in facts["files"]:
            if file.endswith(SIDECAR) or file.startswith(COPIES):
                continue
            if not export.folder.path(file).exists():
                count("file is missing", 1)
                continue
            rows = rows_of(export, file)
            total += rows.height
            for rule, broken in each.broken.items():
                count(rule, rows.filter(broken).height)
            if each.ids is None:
                sidecar = file.removesuffix(each.extension) + SIDECAR
                ids = export.folder.scan(sidecar).select(pl.len()).collect().item()
                count("sidecar has other rows", abs(ids - rows.height))
        count("rows that the manifest does not count", abs(total - facts["rows"]))
    return found


def _row_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    keys = export_keys(dataset)
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this Dagster, as those of the tables.
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                ROWS_FIT,
                asset=key,
                description="Every row of the shard's files is as the trainer's loader wants it, and "
                "the sidecar has the id of each. If not: the file was changed by something else; "
                "materialize the shard again.",
                partitions_def=dataset.partitions,
            )
            for key in keys.values()
        ]

    def exports_checks(
        context: dg.AssetCheckExecutionContext, storage: Storage
    ) -> Iterator[dg.AssetCheckResult]:
        """Read the files of a shard as their trainers do."""
        with Export(storage.tables(), None, ExportOptions()) as export:
            for name, key in keys.items():
                if dg.AssetCheckKey(key, ROWS_FIT) not in context.selected_asset_check_keys:
                    continue
                written = export.written(name, context.partition_key)
                broken = broken_rows(export, written) if written else {"not written yet": 1}
                yield dg.AssetCheckResult(
                    passed=not broken,
                    asset_key=key,
                    check_name=ROWS_FIT,
                    metadata={
                        "broken": ", ".join(f"{n:,} {rule}" for rule, n in broken.items())
                        or "none",
                        "rows": written.rows if written else 0,
                        "threshold": 0,
                    },
                )

    name = dataset.named("exports_checks")
    return dg.multi_asset_check(name=name, specs=specs, can_subset=True)(
        bind(exports_checks, dataset)
    )


def splits_apart(storage: Storage) -> dg.AssetCheckResult:
    """Require that no document is on two sides of the splits, by all written rows and what they
    name."""
    tables = storage.tables()
    with Export(tables, None, ExportOptions()) as export:
        first = next(export.all_written(), None)
    # A check that runs by itself has no options: those of the files count.
    options = ExportOptions(**json.loads(first.made_from["options"])) if first else ExportOptions()
    with Export(tables, None, options) as export:
        proof = prove(export)
    metadata = {
        name: ("; ".join(found) or "none") if isinstance(found, list) else found
        for name, found in proof._asdict().items()
    }
    return dg.AssetCheckResult(passed=proof.holds, metadata=metadata)


def export_checks(dataset: Dataset) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a dataset's training files."""
    splits = dg.asset_check(
        asset=dataset.key(*CARD),
        description="No document, twin, near-duplicate or passage of one parent is in two splits, none of "
        "validation or test is a negative of a training row, and all files come from the same options. "
        "If not: materialize the exports of all shards again with the same options.",
    )
    return [_row_checks(dataset), splits(bind(splits_apart, dataset))]
