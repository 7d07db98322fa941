"""The exports: what is stored of a shard as training files, one asset a format, and the data card."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from rare_assets.catalog.metadata import OWNERS, say_once
from rare_assets.exports.card import Cost, summed_counts, write_card
from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import SPLITS, ExportError
from rare_assets.exports.shard_files import Written
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.stages.cost import spent
from rare_assets.stages.exports import CARD, GROUP, ExportConfig, export_keys
from rare_assets.text.shown_url import shown


def exports(
    context: dg.AssetExecutionContext, dataset: Dataset, config: ExportConfig, storage: Storage
) -> Iterator[dg.MaterializeResult]:
    """Write a shard's training files in the chosen formats."""
    started = time.monotonic()
    shard = context.partition_key
    keys = export_keys(dataset)
    chosen = [name for name, key in keys.items() if key in context.selected_asset_keys]
    try:
        with (
            failures_told(),
            Export(storage.tables(), None, config.options(), chosen) as export,
        ):
            export.prepare([shard])
            written = export.write(shard, export.formats)
            place = str(export.folder)
    except ExportError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    seconds = time.monotonic() - started
    for name, each in written.items():
        said = _metadata(each, f"{place}/{name}", seconds)
        yield say_once(context, dg.MaterializeResult(asset_key=keys[name], metadata=said))


def exports_assets(dataset: Dataset, configs: Configs) -> dg.AssetsDefinition:
    """Return the assets of a dataset's training files. No IO manager has a part in them: they are files
    for others to read."""
    keys = export_keys(dataset)
    return dg.multi_asset(
        name=dataset.op("exports"),
        specs=[
            dg.AssetSpec(
                keys[each.name],
                # Questions with their documents and negatives are read, too: they stand behind it.
                deps=[dataset.key("reasoning")],
                description=f"""{each.description}

**A row** is a question with its documents, or one of its answers, as the trainer's loader reads it, in
`<storage>/exports/{each.name}/<split>/<shard>`. Documents, their twins and near-duplicates stay in one split.

**Cost:** none, no model is asked. **Rerun** freely: the same tables and options give the same files, each
replaced whole. **Resume** what was stopped by materializing the shard again. `data_card` completes the folder.""",
                group_name=dataset.named(GROUP),
                kinds={each.extension.lstrip(".")},
                owners=OWNERS,
                tags={"cost": "none"},
                code_version=str(each.version),
                metadata=code_reference(exports),
            )
            for each in FORMATS.values()
        ],
        partitions_def=dataset.partitions,
        can_subset=True,
    )(bind(exports, dataset, configs))


def data_card(
    context: dg.AssetExecutionContext,
    config: ExportConfig,
    storage: Storage,
    teacher: TeacherModel,
) -> dg.MaterializeResult:
    """Write README.md of the training files, by which `datasets.load_dataset` reads the folder.

    Write besides what belongs to all shards: the whole folders of `beir`, the corpus of `tevatron`,
    `dataset_info.json`, verl's reward; and remove the files of shards that are gone.

    **A row** of it is a format with its rows in each split. **Cost:** none, no model is asked. **Rerun** it
    after any shard's files, with the same options. **Resume** by materializing it again.
    """
    tables = storage.tables()
    try:
        with failures_told(), Export(tables, None, config.options()) as export:
            export.prepare([])
            written = complete(export)
            usage = spent(tables, export.shards, teacher.load_prices())
            cost = Cost(usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)
            text = write_card(export, written, cost)
            place = shown(export.folder.path("README.md"))
    except ExportError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(place),
            "shards": len({each.shard for each in written}),
            "rows": sum(each.rows for each in written),
            "formats": _formats(written),
            # The header is for the Hub, and no Markdown.
            "card": dg.MetadataValue.md(text.split("---", 2)[-1]),
        }
    )


def data_card_asset(dataset: Dataset, configs: Configs) -> dg.AssetsDefinition:
    """Return the asset of a dataset's data card."""
    return dg.asset(
        key=dataset.key(*CARD),
        deps=[
            dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
            for key in export_keys(dataset).values()
        ],
        group_name=dataset.named(GROUP),
        kinds={"markdown"},
        owners=OWNERS,
        tags={"cost": "none"},
        code_version="1",
        io_manager_key=dataset.resource("io_manager"),
        metadata=code_reference(data_card),
    )(bind(data_card, dataset, configs))


def _formats(written: list[Written]) -> dg.TableMetadataValue:
    """Return the rows of each format and split, all shards together, as a table."""
    records = []
    for name in FORMATS:
        its = [each for each in written if each.format == name]
        rows = {split: sum(e.splits.get(split, {}).get("rows", 0) for e in its) for split in SPLITS}
        records.append(dg.TableRecord({"format": name, **rows}))
    columns = [dg.TableColumn("format"), *(dg.TableColumn(split, "int") for split in SPLITS)]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _metadata(written: Written, place: str, seconds: float) -> dict[str, Any]:
    """Return the same keys on every run; what each filter left is a table."""
    rows = {split: written.splits.get(split, {}).get("rows", 0) for split in SPLITS}
    records = [
        dg.TableRecord({"step": step, "before": before, "after": after})
        for step, before, after in summed_counts([written])
    ]
    columns = [
        dg.TableColumn("step"),
        dg.TableColumn("before", "int"),
        dg.TableColumn("after", "int"),
    ]
    return {
        "dagster/uri": place,
        "dagster/partition_row_count": written.rows,
        "rows": written.rows,
        **{f"rows/{split}": count for split, count in rows.items()},
        "filters": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
        "negatives_held_out": written.held_out_negatives,
        "prompts_that_show_held_out": written.shows_held_out,
        "files": sum(len(split["files"]) for split in written.splits.values()),
        "bytes": sum(split["bytes"] for split in written.splits.values()),
        "seconds": round(seconds, 3),
    }
