"""`rare-assets pilot`: configurations tried on a sample, side by side, from a terminal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rare_assets.assets.asking import ledger_in, once
from rare_assets.assets.pilot import FILE, FOLDER
from rare_assets.automation.instance import prepare_home
from rare_assets.command.target import Target
from rare_assets.exports.folder import OutFolder
from rare_assets.pilot.corpus import PilotCorpus
from rare_assets.pilot.page import dollars, page, time_of
from rare_assets.pilot.run import Pilot, PilotRun, Plan
from rare_assets.stages.order import ASKING


def run_pilot(
    target: Target,
    run_configs: Mapping[str, Mapping[str, Any]],
    *,
    documents: int,
    seed: int,
    judge: bool,
    out: Path | None,
    dry_run: bool,
) -> bool:
    """Try the configurations, write the page, and say where it is.

    Args:
        out: the file to write; default, `pilot/pilot.html` in the storage.
        dry_run: only say what would be asked.

    Returns:
        Whether every configuration came to its end.

    Raises:
        PilotError: there is nothing to try.
        SourceError: the source can't be listed.
        ExportError: the page can't be written.
    """
    prepare_home()
    console, resources = Console(), target.resources
    storage, source = resources["storage"], resources["corpus"].source()
    tables = storage.tables()
    say = once(lambda line: console.print(escape(line), style="dim", soft_wrap=True))
    folder, name = (str(tables.root / FOLDER), FILE) if out is None else _split(out)
    # Before anything is paid for.
    OutFolder(folder).require_page(name)
    scope = f"pilot-{uuid.uuid4()}"
    with (
        dg.DagsterInstance.get() as instance,
        PilotCorpus(source, tables, resources["retriever"], say) as corpus,
    ):
        trying = PilotRun(
            run_configs,
            corpus,
            resources["teacher"],
            dataset=target.dataset,
            configs=target.configs,
            documents=documents,
            seed=seed,
            ledger=lambda what: ledger_in(instance, scope, what),
            say=say,
        )
        plan = asyncio.run(trying.plan(judge=judge))
        _print_plan(console, plan)
        if dry_run:
            return not any(isinstance(each, str) for each in plan.foreseen.values())
        pilot = asyncio.run(trying.run(judge=judge))
    place = OutFolder(folder).write_page(name, page(pilot, {"source": source.url}))
    _print(console, pilot)
    console.print(f"Side by side: {escape(place)}", soft_wrap=True)
    return not pilot.problems


def _split(out: Path) -> tuple[str, str]:
    return str(out.absolute().parent), out.name


def _print_plan(console: Console, plan: Plan) -> None:
    console.print(f"A sample of {plan.sampled:,} of {plan.n_documents:,} documents.")
    for name, each in plan.foreseen.items():
        if isinstance(each, str):
            console.print(f"[red]{escape(name)}: {escape(each)}[/]", soft_wrap=True)
            continue
        console.print(f"{escape(name)}: {escape(each.sentence)}", soft_wrap=True)
    if plan.judge_requests:
        console.print(f"judge: at most {plan.judge_requests:,} short requests")


def _print(console: Console, pilot: Pilot) -> None:
    table = Table(title="Pilot", title_justify="left", header_style="bold")
    for column in ("configuration", *ASKING, "paid now", "whole corpus", "time"):
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for trial in pilot.trials:
        rows = [
            f"{trial.produced[stage].rows.height:,}" if stage in trial.produced else ""
            for stage in ASKING
        ]
        paid = [use.paid_usd for use in trial.use.values()]
        total = None if None in paid else sum(each for each in paid if each is not None)
        whole = pilot.projections[trial.name]
        projected = ("", "") if whole is None else (dollars(whole.cost_usd), time_of(whole))
        table.add_row(escape(trial.name), *rows, dollars(total) if paid else "", *projected)
    console.print(table)
    for name, problem in pilot.problems.items():
        console.print(f"[red]{escape(name)}: {escape(problem)}[/]", soft_wrap=True)
