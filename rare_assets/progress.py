"""The progress of runs on a terminal, read from the Dagster events that they leave behind.

On a terminal: a bar a table with the number of shards done, and the last line of each run that is
under way. Elsewhere (a log file, CI): plain lines.
"""

from __future__ import annotations

import logging
from types import TracebackType

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from rare_assets.runs import Request, Result

LINES = 6


class RunProgress:
    """Shows what the runs do. A context manager; `tick` reads what is new in their event logs."""

    def __init__(self, instance: dg.DagsterInstance, console: Console, shards: int) -> None:
        self.instance = instance
        self.console = console
        self.shards = shards
        self._bars = Progress(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[line]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._cursors: dict[str, str | None] = {}

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def announce(self, asset: str, why: str, runs: int) -> None:
        """Say that an asset is about to be made in so many runs more, and why."""
        if asset in self._tasks:
            self._grow(asset, runs)
        else:
            self._tasks[asset] = self._bars.add_task(asset, total=runs, line=why)
        if self._bars.disable:
            self.console.print(f"{asset}: {runs} to make ({why})", soft_wrap=True)

    def retract(self, asset: str) -> None:
        """Take one announced run back: what it would make turned out to be current."""
        self._grow(asset, -1)

    def _grow(self, asset: str, runs: int) -> None:
        task = self._bars.tasks[self._tasks[asset]]
        self._bars.update(task.id, total=(task.total or 0) + runs)

    def tick(self, running: list[Request]) -> None:
        """Read the new events of the runs that are under way."""
        for request in running:
            self._read(request)

    def finished(self, result: Result) -> None:
        """Read the rest of a run's events, and say so if it failed."""
        self._read(result.request)
        if result.error is not None:
            where = result.request.shard or result.request.assets[0]
            self.console.print(
                f"[red]failed[/] {escape(where)}: {escape(result.error)}", soft_wrap=True
            )

    def _read(self, request: Request) -> None:
        run_id = request.run_id
        if run_id not in self._cursors and not self.instance.has_run(run_id):
            return
        connection = self.instance.get_records_for_run(run_id, cursor=self._cursors.get(run_id))
        self._cursors[run_id] = connection.cursor
        for record in connection.records:
            self._show(record.event_log_entry, request)

    def _show(self, entry: dg.EventLogEntry, request: Request) -> None:
        event = entry.dagster_event
        if event is None:
            step = entry.step_key
            # Dagster's own words are errors and debug lines; what an asset says is neither.
            if step in self._tasks and int(entry.level) in (logging.INFO, logging.WARNING):
                self._line(step, entry.user_message)
        elif event.event_type is dg.DagsterEventType.STEP_START and event.step_key in self._tasks:
            self._line(event.step_key, request.shard or "")
        elif event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            key = event.asset_key
            asset = key.path[-1] if key else ""
            if asset in self._tasks:
                self._bars.advance(self._tasks[asset])
                rows = event.step_materialization_data.materialization.metadata.get("rows")
                made = f"{request.shard}: {rows.value} rows" if rows else "done"
                self._line(asset, made)

    def _line(self, asset: str, text: str) -> None:
        self._bars.update(self._tasks[asset], line=escape(text))
        if self._bars.disable:
            self.console.print(f"{asset}: {text}", markup=False, soft_wrap=True)
