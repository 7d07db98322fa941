"""The progress of the runs of `rare-assets run`, from what they say while they work and leave behind.

On a terminal: a line a table with a bar, what is done of all, the rate, the time left, the dollars so
far, and the shards done. Elsewhere (a log file, CI): the same facts as a plain line now and then, and a
line for each shard that is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from rare_assets.assets.rate import Rate, duration
from rare_assets.assets.step_progress import LOG_SECONDS, StepState, is_progress
from rare_assets.command.workers import Request, Result
from rare_assets.stages.order import AFTER_DOCUMENTS, ASKING

INDEX = "corpus_index"
# The line of both tables that ask the teacher: how long all of it takes, and what it costs.
ASKED = "asked in all"
UNITS = {
    "documents": "rows",
    INDEX: "documents",
    "questions": "questions",
    "hard_negatives": "questions",
    "reasoning": "answers",
    ASKED: "questions and answers",
}
# A bar that leaves room for the figures on 80 columns, and one for 100 or more.
NARROW, WIDE, WIDE_FROM = 10, 24, 96


@dataclass
class Stage:
    """How far a table is, all its shards together; the index is one shard named "".

    `expected` and `done` are rows by shard, `requests` and `costs` what the teacher was asked and
    took for them; a cost is None while the price is unknown.
    """

    expected: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    costs: dict[str, float | None] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    began: float | None = None
    ended: float | None = None
    rows_rate: Rate = field(default_factory=Rate)
    requests_rate: Rate = field(default_factory=Rate)

    def go_on(self, shard: str, done: int, total: int) -> None:
        """Take note of how much of a shard is done."""
        self.began = self.began or time.monotonic()
        self.expected[shard] = total
        self.done[shard] = done

    def note(self) -> None:
        """Take note of the present state, for the rates."""
        if self.began is not None and self.ended is None:
            self.rows_rate.note(sum(self.done.values()))
            self.requests_rate.note(sum(self.requests.values()))

    def finish(self, shard: str) -> None:
        """Take note that a shard is made."""
        self.made.add(shard)
        if self.made >= self.expected.keys():
            self.ended = time.monotonic()

    @property
    def rows(self) -> tuple[int, int]:
        """Rows done, and rows in all."""
        return sum(self.done.values()), sum(self.expected.values())

    @property
    def cost(self) -> float | None:
        """Dollars so far; None if the price of any request is unknown."""
        costs = [cost for shard, cost in self.costs.items() if self.requests[shard]]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def sum_stages(stages: Mapping[str, Stage], so_far: Stage) -> None:
    """Make `so_far` what is asked of the teacher for all tables."""
    asking = [(name, stages[name]) for name in ASKING if name in stages]
    for part in ("expected", "done", "requests", "costs"):
        values = {
            f"{name}/{shard}": value
            for name, stage in asking
            for shard, value in getattr(stage, part).items()
        }
        setattr(so_far, part, values)
    so_far.made = {f"{name}/{shard}" for name, stage in asking for shard in stage.made}
    so_far.began = min((stage.began for _, stage in asking if stage.began), default=None)
    ends = [stage.ended for _, stage in asking if stage.ended]
    so_far.ended = max(ends) if len(ends) == len(asking) else None


def display_fields(name: str, stage: Stage) -> dict[str, Any]:
    """Return what is told of a table: `count`, `rate`, `left`, `cost`, `shards`; empty if unknown.

    The rate is in requests where the teacher is asked, else in rows.
    """
    done, total = stage.rows
    told: dict[str, Any] = {
        "count": f"{done:,}/{total:,}",
        "rate": "",
        "left": "",
        "cost": "",
        "shards": ""
        if name in (INDEX, ASKED)
        else f"{len(stage.made):,}/{len(stage.expected):,} shards",
    }
    if stage.began is None:
        return told
    asks = name in (*ASKING, ASKED)
    if stage.ended is not None:
        seconds = stage.ended - stage.began
        amount = sum(stage.requests.values()) if asks else done
        rate = amount / seconds if seconds >= 1 else None
        told["left"] = f"in {duration(seconds)}"
    else:
        rate = (stage.requests_rate if asks else stage.rows_rate).per_second
        left = stage.rows_rate.seconds_for(total - done)
        told["left"] = "" if left is None else f"{duration(left)} left"
    if rate is not None:
        told["rate"] = f"{rate:,.1f}/s"
    if asks:
        told["cost"] = "no price" if stage.cost is None else f"${stage.cost:,.4f}"
    return told


class RunProgress:
    """Shows what the runs do. A context manager; `tick` reads what is new in their event logs.

    Args:
        instance: where the runs leave their events.
        console: what it is shown on.
        samples: answers asked for each question, so that reasoning's rows are known in advance.
    """

    def __init__(self, instance: dg.DagsterInstance, console: Console, samples: int = 1) -> None:
        self.instance = instance
        self.console = console
        self.samples = samples
        self.stages: dict[str, Stage] = {}
        bar = WIDE if console.width >= WIDE_FROM else NARROW
        self._bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=bar),
            *(
                TextColumn(f"{{task.fields[{name}]}}", justify="right")
                for name in ("count", "rate", "left", "cost", "shards")
            ),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._cursors: dict[str, str | None] = {}
        self._said: dict[str, tuple[float, str]] = {}

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

    def announce(self, name: str, why: str, rows: Mapping[str, int]) -> None:
        """Say that these shards of a table are about to be made, of about so many rows, and why."""
        stage = self.stages.setdefault(name, Stage())
        stage.expected.update(rows)
        stage.ended = None
        if self._bars.disable:
            self.console.print(f"{name}: {len(rows)} to make ({why})", soft_wrap=True)
        self._show(name)
        if name == ASKING[-1]:
            sum_stages(self.stages, self.stages.setdefault(ASKED, Stage()))
            self._show(ASKED)

    def retract(self, name: str, shard: str) -> None:
        """Take an announced shard back: what it would make turned out to be current."""
        self.stages[name].expected.pop(shard, None)
        self._update(name)

    def tick(self, running: Sequence[tuple[Request, StepState | None]]) -> None:
        """Take note of how far the runs under way are."""
        for request, state in running:
            self._read(request)
            if state is not None and state.asset in self.stages:
                self._go_on(request.shard or "", state)
        if ASKED in self.stages:
            sum_stages(self.stages, self.stages[ASKED])
        for name, stage in self.stages.items():
            stage.note()
            self._update(name)
            self._say_seldom(name)

    def finished(self, result: Result) -> None:
        """Read the rest of a run's events, and say so if it failed."""
        self._read(result.request)
        if result.error is not None:
            where = result.request.shard or result.request.assets[0]
            self.console.print(
                f"[red]failed[/] {escape(where)}: {escape(result.error)}", soft_wrap=True
            )

    def _go_on(self, shard: str, state: StepState) -> None:
        stage = self.stages[state.asset]
        # What a run has left behind is newer than what it said last.
        if shard not in stage.made:
            stage.go_on(shard, state.done, state.total)
            if state.asset in ASKING:
                stage.requests[shard] = state.requests
                stage.costs[shard] = state.cost_usd

    def _read(self, request: Request) -> None:
        run_id = request.run_id
        if run_id not in self._cursors and not self.instance.has_run(run_id):
            return
        connection = self.instance.get_records_for_run(run_id, cursor=self._cursors.get(run_id))
        self._cursors[run_id] = connection.cursor
        for record in connection.records:
            self._take(record.event_log_entry, request)

    def _take(self, entry: dg.EventLogEntry, request: Request) -> None:
        event = entry.dagster_event
        if event is None:
            stage_of = request.place.dataset.stage
            step, level = stage_of(entry.step_key or ""), int(entry.level)
            # Dagster's own words are errors and debug lines; what an asset says is neither.
            if step in self.stages and level in (logging.INFO, logging.WARNING):
                self._say(step, entry.user_message, level)
        elif event.event_type is dg.DagsterEventType.STEP_START:
            name, shard = request.place.dataset.stage(event.step_key or ""), request.shard or ""
            if name in self.stages:
                self.stages[name].go_on(shard, 0, self.stages[name].expected.get(shard, 0))
        elif event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            name = event.asset_key.path[-1] if event.asset_key else ""
            if name in self.stages:
                said = event.step_materialization_data.materialization.metadata
                values = {key: value.value for key, value in said.items()}
                self._made(name, request.shard or "", values)

    def _made(self, name: str, shard: str, values: Mapping[str, Any]) -> None:
        stage = self.stages[name]
        rows, rejects = values.get("rows", values.get("dagster/row_count")), values.get("rejects")
        assert isinstance(rows, int)
        handled = rows + rejects if isinstance(rejects, int) else rows
        stage.go_on(shard, handled, handled)
        if name in ASKING:
            requests, cost = values.get("requests"), values.get("cost_usd")
            stage.requests[shard] = requests if isinstance(requests, int) else 0
            stage.costs[shard] = float(cost) if isinstance(cost, int | float) else None
        stage.finish(shard)
        if name == AFTER_DOCUMENTS[0]:
            for later in AFTER_DOCUMENTS[1:]:
                expected = self.stages[later].expected if later in self.stages else {}
                if shard in expected:
                    expected[shard] = rows * (self.samples if later in ASKING else 1)
        self._update(name)
        if self._bars.disable:
            what = f"{rows:,} rows" if name != INDEX else f"{rows:,} documents"
            left_out = f", {rejects:,} rejects" if isinstance(rejects, int) and rejects else ""
            self._print(name, f"{shard}: {what}{left_out}" if shard else what)

    def _show(self, name: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, **display_fields(name, self.stages[name]))
        self._update(name)

    def _update(self, name: str) -> None:
        stage = self.stages[name]
        done, total = stage.rows
        self._bars.update(
            self._tasks[name], completed=done, total=total or None, **display_fields(name, stage)
        )

    def _say(self, name: str, line: str, level: int) -> None:
        if self._bars.disable:
            # The same facts of all shards together are told now and then.
            if not is_progress(line):
                self._print(name, line)
        elif level == logging.WARNING:
            self.console.print(f"[yellow]{escape(name)}: {escape(line)}[/]", soft_wrap=True)

    def _say_seldom(self, name: str) -> None:
        """Print the facts in one line, where they have changed since the last one ten seconds
        ago."""
        stage = self.stages[name]
        if not self._bars.disable or stage.began is None or stage.ended is not None:
            return
        when, before = self._said.setdefault(name, (stage.began, ""))
        told = display_fields(name, stage)
        if time.monotonic() - when >= LOG_SECONDS and told["count"] != before:
            self._said[name] = (time.monotonic(), told["count"])
            self._print(name, _line(name, told))

    def _print(self, name: str, text: str) -> None:
        self.console.print(f"{name}: {text}", markup=False, soft_wrap=True)


def _line(name: str, told: Mapping[str, Any]) -> str:
    """Return the facts as a plain line, with their units."""
    unit = "rows" if name in ("documents", INDEX, "hard_negatives") else "requests"
    rate = told["rate"] and f"{told['rate'].removesuffix('/s')} {unit}/s"
    parts = (f"{told['count']} {UNITS[name]}", rate, told["left"], told["cost"], told["shards"])
    return ", ".join(filter(None, parts))
