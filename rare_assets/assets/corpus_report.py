"""The corpus report: one HTML page on all that is stored, and its totals in the UI."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import dagster as dg

from rare_assets.catalog.corpus_report.figures import Figures, gather
from rare_assets.catalog.corpus_report.page import DayCost, Exported, StageCost, page
from rare_assets.catalog.metadata import OWNERS
from rare_assets.exports.export import Export
from rare_assets.exports.folder import OutFolder
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportError, ExportOptions
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.resources.dataset import Dataset, bind, code_reference
from rare_assets.resources.partitions import registered_shards
from rare_assets.stages.cost import spent, spent_by_day
from rare_assets.stages.order import ASKING
from rare_assets.storage.tables import ParquetTables
from rare_assets.text.shown_url import shown

FOLDER, FILE = "corpus_report", "report.html"


class Report(NamedTuple):
    """The page, and what it was made from."""

    html: str
    figures: Figures
    costs: list[StageCost]


def make_report(
    tables: ParquetTables,
    shards: Sequence[str],
    teacher: TeacherModel,
    instance: dg.DagsterInstance,
    dataset: Dataset,
) -> Report:
    """Count what is stored of these shards, and make the page. Asks no model.

    Raises:
        StorageError: the storage can't be read.
        PriceError: the file of prices can't be used.
    """
    figures = gather(tables, shards)
    prices = teacher.load_prices()
    costs = []
    for table in ASKING:
        usage = spent(tables, shards, prices, [table])
        costs.append(StageCost(table, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd))
    days = [DayCost(*each) for each in spent_by_day(instance, dataset)]
    exported = Counter[str]()
    with Export(tables, None, ExportOptions()) as export:
        for each in export.all_written():
            exported[each.format] += each.rows
    origin = {"storage": shown(tables.root), "teacher": teacher.name}
    rows = [Exported(name, exported[name]) for name in FORMATS if exported[name]]
    return Report(page(figures, costs, days, rows, origin), figures, costs)


def corpus_report(
    context: dg.AssetExecutionContext, dataset: Dataset, storage: Storage, teacher: TeacherModel
) -> dg.MaterializeResult:
    """Write one page on all that is stored: totals, rejects, distributions, cost, fifty examples.

    `<storage>/corpus_report/report.html` opens from disk and loads nothing from anywhere; its size does
    not grow with the corpus.

    **A row** of its funnel is a table over all shards. **Cost:** none, no model is asked. **Rerun** it
    whenever you like; it says what is stored at that moment. **Resume** by materializing it again.
    """
    started = time.monotonic()
    tables = storage.tables()
    shards = registered_shards(context.instance, dataset)
    report = make_report(tables, shards, teacher, context.instance, dataset)
    try:
        place = OutFolder(str(tables.root / FOLDER)).write_page(FILE, report.html)
    except ExportError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(metadata=_metadata(report, place, time.monotonic() - started))


def corpus_report_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Return the asset of a dataset's report."""
    return dg.asset(
        key=dataset.key("corpus_report"),
        deps=[dataset.key("reasoning")],
        group_name=dataset.named("reports"),
        kinds={"html"},
        owners=OWNERS,
        tags={"cost": "none"},
        code_version="1",
        io_manager_key=dataset.resource("io_manager"),
        metadata=code_reference(corpus_report),
    )(bind(corpus_report, dataset))


def _metadata(report: Report, place: str, seconds: float) -> dict[str, Any]:
    stages = {stage.table: stage for stage in report.figures.stages}
    records = [
        dg.TableRecord(
            {
                "table": stage.table,
                "shards": stage.shards,
                "rows": stage.rows,
                "rejects": sum(stage.rejects.values()),
            }
        )
        for stage in stages.values()
    ]
    columns = [
        dg.TableColumn("table"),
        *(dg.TableColumn(name, "int") for name in ("shards", "rows", "rejects")),
    ]
    known = [each.dollars for each in report.costs if each.dollars is not None]
    return {
        "path": dg.MetadataValue.path(shown(place)),
        "dagster/row_count": stages["reasoning"].rows,
        "totals": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
        **{f"rows/{name}": stage.rows for name, stage in stages.items()},
        # An unknown price is no cost shown: zero would be a wrong number.
        "cost_usd": sum(known) if len(known) == len(report.costs) else None,
        "unreadable": len(report.figures.unreadable),
        "seconds": round(seconds, 3),
    }
