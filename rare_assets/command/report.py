"""What a run tells at its end: what was made and where it lies, one whole example, how to open the UI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rare_assets.automation.registration import describe_missing
from rare_assets.operators.answers import retryable
from rare_assets.operators.doc2query import say_left_out
from rare_assets.schemas import TABLES
from rare_assets.stages.order import ASKING
from rare_assets.storage.tables import TableDamaged
from rare_assets.teacher import ENDPOINT_FAULTS
from rare_assets.text.shown import cut, first_names
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from rare_assets.command.estimate import StageEstimate
    from rare_assets.command.status import StageState
    from rare_assets.corpus.scan import Scan
    from rare_assets.corpus.shards import Shard
    from rare_assets.stages.cost import StoredCost
    from rare_assets.storage.tables import ParquetTables

SHOWN_CHARS = 600


def print_report(
    console: Console,
    tables: ParquetTables,
    shards: list[str],
    failures: dict[str, str],
    home: Path,
    cwd: Path,
    command: str,
    *,
    has_ui: bool = False,
) -> None:
    """Print the tables' figures over the shards, an example row, the failures, and the next step.

    With `has_ui`, somebody has started the UI of the instance already.
    """
    summary = Table(title="RARE data", title_justify="left", header_style="bold")
    for column in ("table", "shards", "rows", "rejects", "files"):
        summary.add_column(column, justify="left" if column in ("table", "files") else "right")
    for name in TABLES:
        stored = [
            p for shard in shards if (p := tables.provenance_if_whole(name, shard)) is not None
        ]
        summary.add_row(
            name,
            f"{len(stored)} of {len(shards)}",
            f"{sum(p.n_rows for p in stored):,}",
            f"{sum(p.n_rejects for p in stored):,}",
            f"{escape(_shown_path(shown(tables.root / name), cwd))}/",
        )
    console.print(summary)
    _print_example(console, tables, shards)
    for said, where in _by_error(_left_out(tables, shards)).items():
        console.print(
            f"\n[yellow]warning[/] {escape(first_names(where))}: {escape(said)}.", soft_wrap=True
        )
    for error, where in _by_error(failures).items():
        console.print(
            f"\n[red]failed[/] {escape(', '.join(where))}:\n  {escape(error)}", soft_wrap=True
        )
    if unused := _retryable(tables, shards):
        console.print(
            f"{unused:,} rejects are the teacher's last word: the same command does not ask for them "
            "again. Once the teacher, its settings or the prompt is mended, "
            f"[bold]{escape(command)} run --retry-rejects[/] asks for these alone.",
            soft_wrap=True,
        )
    if failures:
        console.print(
            "Run the same command again to go on: answers that were received are stored and not "
            "paid for twice.",
            soft_wrap=True,
        )
    if not has_ui:
        console.print(f"\nOpen the UI on these runs:  [bold]{escape(command)} dev[/]")


def _retryable(tables: ParquetTables, shards: list[str]) -> int:
    """Count the rejects of these shards that `--retry-rejects` alone would ask for again.

    What the endpoint failed to answer is asked again by any next run.
    """
    stored = [
        retryable(rejects).filter(~pl.col("reason").is_in(ENDPOINT_FAULTS))
        for table in ASKING
        for shard in shards
        if (made := tables.provenance_if_whole(table, shard)) is not None and made.n_rejects
        if (rejects := _rejects_if_whole(tables, table, shard)) is not None
    ]
    if not stored:
        return 0
    return int(pl.concat(stored, how="vertical_relaxed").select(pl.len()).collect().item())


def print_estimate(console: Console, stages: list[StageEstimate]) -> None:
    """Print what a run would ask, and what that costs in USD."""
    table = Table(title="A run would ask", title_justify="left", header_style="bold")
    for column in (
        "stage",
        "shards",
        "requests",
        "stored",
        "prompt tok.",
        "completion tok.",
        "cost",
    ):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        about = "at most " if stage.bound else ""
        table.add_row(
            stage.stage,
            f"{stage.shards:,}",
            f"{about}{stage.requests:,}",
            f"{stage.reused:,}",
            f"{stage.prompt_tokens:,}",
            f"{stage.completion_tokens:,}",
            _dollars(stage.cost_usd),
        )
    console.print(table)
    models = {stage.models for stage in stages}
    teachers = ", ".join(f"{stage.stage} by {stage.models}" for stage in stages)
    teachers = models.pop() if len(models) == 1 else teachers
    console.print(f"Teacher: {escape(teachers)}.", soft_wrap=True)
    console.print(
        "Tokens are estimated (four characters a token, answers as long as the stored ones). "
        "RARE_MAX_COST_USD and RARE_MAX_REQUESTS bound the whole run.",
        soft_wrap=True,
    )


def print_status(
    console: Console,
    states: dict[str, dict[str, StageState]],
    costs: StoredCost,
    scan: Scan,
    teachers: str,
) -> None:
    """Print each table's state over all shards, and what was spent, in tokens and USD.

    A row does not say how it was asked for, so the cost is that of asking online.
    """
    table = Table(title=f"{len(states):,} shards", title_justify="left", header_style="bold")
    for column in ("table", "current", "changed", "missing", "rows", "rejects"):
        table.add_column(column, justify="left" if column == "table" else "right")
    for name in TABLES:
        stages = [shard[name] for shard in states.values()]
        current = sum(stage.state == "current" for stage in stages)
        missing = sum(stage.state == "missing" for stage in stages)
        counts = (current, len(stages) - current - missing, missing)
        rows = (sum(stage.rows for stage in stages), sum(stage.rejects for stage in stages))
        table.add_row(name, *(f"{count:,}" for count in (*counts, *rows)))
    console.print(table)
    online = "" if costs.cost_usd is None else " at online prices"
    console.print(
        f"Spent on what is stored: {costs.prompt_tokens:,} prompt and {costs.completion_tokens:,} "
        f"completion tokens, {_dollars(costs.cost_usd)}{online}.",
        soft_wrap=True,
    )
    console.print(f"Teacher: {escape(teachers)}.", soft_wrap=True)
    if scan.new:
        console.print(f"{len(scan.new)} shards are not registered yet: rare-assets run does it.")
    if said := describe_missing(scan, []):
        console.print(escape(said), soft_wrap=True)


def print_shards(
    console: Console,
    shards: list[Shard],
    states: dict[str, dict[str, StageState]],
    costs: dict[str, StoredCost],
) -> None:
    """Print a line a shard: what each of its tables holds, whether it is current, what it has cost."""
    table = Table(header_style="bold")
    table.add_column("shard", no_wrap=True)
    for column in ("source", *TABLES, "cost"):
        table.add_column(column, justify="left" if column in TABLES else "right")
    for shard in shards:
        cells = [_state(stage) for stage in states[shard.key].values()]
        cost = costs[shard.key].cost_usd
        table.add_row(
            escape(shard.key), f"{shard.n_rows:,}", *cells, "?" if cost is None else f"${cost:,.4f}"
        )
    console.print(table)
    console.print(
        "Rows of the source and of each table; - is missing, a table with a word behind its rows is "
        "made again by the next run, since that has changed.",
        soft_wrap=True,
    )


def _state(stage: StageState) -> str:
    """Return a table's rows and rejects, and what has changed; a hyphen where there is none."""
    if stage.state == "missing":
        return "-"
    rejects = f" +{stage.rejects:,} rejects" if stage.rejects else ""
    changed = "" if stage.state == "current" else f" ({stage.state.removeprefix('changed: ')})"
    return escape(f"{stage.rows:,}{rejects}{changed}")


def _dollars(cost: float | None) -> str:
    """Return a cost in USD for people; an unknown one is not zero."""
    return "cost unknown" if cost is None else f"${cost:,.4f}"


def _by_error(failures: dict[str, str]) -> dict[str, list[str]]:
    """Group shards by what went wrong with them: one cause often fails many."""
    shards: dict[str, list[str]] = {}
    for where, error in failures.items():
        shards.setdefault(error, []).append(where)
    return shards


def _left_out(tables: ParquetTables, shards: list[str]) -> dict[str, str]:
    """Return shards most of whose documents were left out on purpose, and what to say about it."""
    found = {}
    for shard in shards:
        stored = tables.provenance_if_whole("questions", shard)
        if stored is not None and stored.n_rejects > stored.n_rows:
            rejects = _rejects_if_whole(tables, "questions", shard)
            if rejects is not None and (said := say_left_out(stored.n_rows, rejects.collect())):
                found[shard] = said
    return found


def _rejects_if_whole(tables: ParquetTables, table: str, shard: str) -> pl.LazyFrame | None:
    """Return what a shard could not use; None if that is damaged, as the next plan finds and says."""
    try:
        return tables.load_rejects(table, shard)
    except TableDamaged:
        return None


def _print_example(console: Console, tables: ParquetTables, shards: list[str]) -> None:
    made = (
        shard
        for shard in shards
        if (p := tables.provenance_if_whole("reasoning", shard)) and p.n_rows
    )
    for shard in made:
        try:
            rows = tables.load("reasoning", shard)
        except TableDamaged as error:
            # It is marked now: the next run makes it again.
            console.print(f"\n[yellow]warning[/] {escape(str(error))}", soft_wrap=True)
            continue
        _print_row(console, shard, rows)
        return


def _print_row(console: Console, shard: str, rows: pl.LazyFrame) -> None:
    row = (
        # The fullest row shows most: one with all its negatives.
        rows.sort(pl.col("hard_negatives").list.len(), descending=True, maintain_order=True)
        .head(1)
        .collect()
        .row(0, named=True)
    )
    console.print(f"\n[bold]One example[/] ({escape(row['question_id'])}, shard {escape(shard)})")
    _print_text(console, "scenario", row["scenario"])
    _print_text(console, "question", row["question"])
    _print_text(console, "gold document", row["text"])
    for number, negative in enumerate(row["hard_negatives"], start=1):
        _print_text(console, f"hard negative {number}", negative, SHOWN_CHARS // 3)
    shown = f"reasoning (gold shown at place {row['gold_position'] + 1} of {len(row['context_doc_ids'])})"
    _print_text(console, shown, row["reasoning"])
    if row["answer"]:
        _print_text(console, "answer", row["answer"])


def _print_text(console: Console, label: str, text: str, length: int = SHOWN_CHARS) -> None:
    flat = " ".join(text.split())
    console.print(f"  [cyan]{label}:[/] {escape(cut(flat, length))}")


def _shown_path(path: str, cwd: Path) -> str:
    return path.removeprefix(f"{cwd}/")
