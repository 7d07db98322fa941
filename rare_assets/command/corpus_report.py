"""`rare-assets report`: the page on what is stored, from a terminal."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from rare_assets.assets.corpus_report import FILE, FOLDER, make_report
from rare_assets.automation.instance import prepare_home
from rare_assets.command.target import Target
from rare_assets.exports.export import stored_shards
from rare_assets.exports.folder import OutFolder
from rare_assets.exports.options import ExportError
from rare_assets.resources.configurable import Storage
from rare_assets.text.shown import first_names


def run_report(target: Target, out: Path | None) -> None:
    """Write the page of every shard that has documents, and say where it is.

    Args:
        target: the dataset.
        out: the file to write; default, `corpus_report/report.html` in the storage.

    Raises:
        ExportError: nothing is stored, or the file can't be written.
    """
    prepare_home()
    storage: Storage = target.resources["storage"]
    tables = storage.tables()
    shards = stored_shards(tables, "documents")
    if not shards:
        raise ExportError(
            f"There is nothing to report: {storage.location} holds no documents. Make them first with "
            "'rare-assets run', or name another storage."
        )
    with dg.DagsterInstance.get() as instance:
        report = make_report(tables, shards, target.resources["teacher"], instance, target.dataset)
    folder, name = (str(tables.root / FOLDER), FILE)
    if out is not None:
        folder, name = str(out.absolute().parent), out.name
    place = OutFolder(folder).write_page(name, report.html)
    console = Console()
    console.print(f"The report on {len(shards):,} shards: {escape(place)}", soft_wrap=True)
    if unreadable := report.figures.unreadable:
        named = first_names(unreadable, parted="; ")
        console.print(
            f"[yellow]warning[/] Tables could not be read and are not in it: {escape(named)}. "
            "`rare-assets run` makes damaged tables again.",
            soft_wrap=True,
        )
