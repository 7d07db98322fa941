"""`rare-assets export`: training files of what is stored, from a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from rare_assets.command.target import Target
from rare_assets.exports.card import Cost, summed_counts, write_card
from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.folder import CARD
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import SPLITS, ExportError, ExportOptions
from rare_assets.exports.proof import Proof, prove
from rare_assets.exports.shard_files import Written
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.stages.cost import spent


def run_export(
    target: Target,
    formats: Sequence[str],
    out: str | None,
    shards: Sequence[str],
    options: ExportOptions,
) -> bool:
    """Write what is missing or has changed, and print what there is now.

    Returns:
        Whether each format that was named has rows, and the splits hold.

    Raises:
        ExportError: what can't be done, and what to do.
    """
    console = Console()
    storage: Storage = target.resources["storage"]
    teacher: TeacherModel = target.resources["teacher"]
    tables = storage.tables()
    with Export(tables, out, options, formats) as export:
        export.prepare(shards)
        asked = list(shards) or export.shards
        stale = [(shard, found) for shard in asked if (found := export.stale(shard))]
        for shard, found in track(
            stale, "Exporting", console=console, disable=not console.is_terminal
        ):
            export.write(shard, found)
        written = complete(export)
        chosen = [each for each in written if each.format in {f.name for f in export.formats}]
        if not any(each.rows for each in written):
            # A card of what is no longer there would be worse than none.
            export.folder.remove(CARD)
            raise ExportError(
                f"No row fits.\n{_why_none(chosen, [f.name for f in export.formats])}"
            )
        usage = spent(tables, export.shards, teacher.load_prices())
        write_card(
            export, written, Cost(usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)
        )
        proof = prove(export)
        _print(console, export, chosen, len(stale), len(asked))
        _print_proof(console, proof)
    empty = [name for name in formats if not any(e.rows for e in chosen if e.format == name)]
    if empty:
        raise ExportError(f"No row fits.\n{_why_none(chosen, empty)}")
    return proof.holds


def _print(console: Console, export: Export, written: list[Written], made: int, asked: int) -> None:
    table = Table(title="Training files", title_justify="left", header_style="bold")
    for column in ("format", *SPLITS, "left out"):
        table.add_column(column, justify="left" if column in ("format", "left out") else "right")
    for name in FORMATS:
        its = [each for each in written if each.format == name]
        if not its:
            continue
        rows = [sum(e.splits.get(split, {}).get("rows", 0) for e in its) for split in SPLITS]
        left = [
            f"{before - after:,} {step.removeprefix('without: ')}"
            for step, before, after in summed_counts(its)
            if before > after
        ]
        table.add_row(name, *(f"{n:,}" for n in rows), escape("; ".join(left)))
    console.print(table)
    console.print(
        f"{made:,} of {asked:,} shards written, the others are current: {escape(str(export.folder))}",
        soft_wrap=True,
    )
    removed = sum(e.held_out_negatives for e in written if e.format == "cross-encoder")
    if removed:
        console.print(
            f"{removed:,} negatives of training rows were held out for validation or test and left out."
        )


def _print_proof(console: Console, proof: Proof) -> None:
    if proof.holds:
        console.print(
            f"No document, twin or near-duplicate is on two sides: {proof.held_out:,} documents of "
            f"validation and test against {proof.training:,} of training.",
            soft_wrap=True,
        )
        return
    for name, found in proof._asdict().items():
        if isinstance(found, list) and found:
            console.print(
                f"[red]{name.replace('_', ' ')}[/]: {escape('; '.join(found))}", soft_wrap=True
            )
    console.print("Export all shards again with the same options, without --shard.")


def _why_none(written: list[Written], names: Sequence[str]) -> str:
    lines = []
    for name in names:
        counts = summed_counts(each for each in written if each.format == name)
        steps = ", ".join(f"{step}: {after:,} of {before:,}" for step, before, after in counts)
        lines.append(f"{name}: {steps or 'no question has negatives'}.")
    return "\n".join(lines) + "\nLoosen the filters, or make more rows first."
