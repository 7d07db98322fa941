"""`rare-assets report`: the page on what is stored, from a terminal."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from rare_assets.assets.corpus_report import FILE, FOLDER, make_report, write_report
from rare_assets.automation.instance import prepare_home
from rare_assets.exports.export import stored_shards
from rare_assets.exports.options import ExportError
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.resources.dataset import UNNAMED


def run_report(out: Path | None) -> None:
    """Write the page of every shard that has documents, and say where it is.

    Args:
        out: the file to write; default, `corpus_report/report.html` in the storage.

    Raises:
        ExportError: nothing is stored, or the file can't be written.
    """
    prepare_home()
    storage = Storage()
    tables = storage.tables()
    shards = stored_shards(tables, "documents")
    if not shards:
        raise ExportError(
            f"There is nothing to report: {storage.location} holds no documents. Make them first with "
            "'rare-assets run', or name another storage."
        )
    with dg.DagsterInstance.get() as instance:
        report = make_report(tables, shards, TeacherModel(storage=storage), instance, UNNAMED)
    if out is None:
        place = write_report(report, str(tables.root / FOLDER), FILE)
    else:
        place = write_report(report, str(out.absolute().parent), out.name)
    Console().print(f"The report on {len(shards):,} shards: {escape(place)}", soft_wrap=True)
