"""The main job of `rare-assets run`: register shards, materialize what is stale, tell what was made.

Three rounds of Dagster runs: documents per shard, the index once, then questions, hard negatives and
reasoning per shard, so that the endpoint is busy with all shards and never waits for one.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape

from rare_assets.build import build_resources
from rare_assets.estimate import estimate
from rare_assets.instance import end_dead_runs, prepare_home
from rare_assets.partitions import document_shards
from rare_assets.planning import ASKED_STAGES, Options, Planner, Stale
from rare_assets.progress import RunProgress
from rare_assets.registration import Scan, scan_source
from rare_assets.report import print_estimate, print_report, print_shards, print_status
from rare_assets.resources.configurable import Corpus, Storage, TeacherModel
from rare_assets.runs import Request, Result, RunPool
from rare_assets.settings import Settings
from rare_assets.status import shard_states, spent

SHARDS_NAMED = 5
LOG_WIDTH = 120


class NothingToDo(Exception):
    """A shard was asked for that the source does not have."""


class MainJob:
    """One invocation of `rare-assets run`.

    Args:
        run_config: Dagster run config for the assets, as the Launchpad takes it.
        only: keys of the shards to ask about; all if empty. Documents and the index are made for
            the whole corpus all the same, since negatives come from the whole corpus.
        redo_all: materialize what is current, too.
    """

    def __init__(
        self, run_config: Mapping[str, Any], only: Iterable[str] = (), redo_all: bool = False
    ) -> None:
        self.run_config = dict(run_config)
        self.only = list(only)
        # A log file or CI has no width of its own.
        self.console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
        self.home = prepare_home()
        resources = build_resources()
        storage: Storage = resources["storage"]
        corpus: Corpus = resources["corpus"]
        self.teacher: TeacherModel = resources["teacher"]
        self.tables = storage.tables()
        self.source = corpus.source()
        self.planner = Planner(
            self.tables,
            resources["retriever"],
            self.teacher,
            Options.from_run_config(self.run_config),
            redo_all,
        )
        self.failures: dict[str, str] = {}
        # A price file that can't be used is told now, not by every run.
        self.teacher.load_prices()

    def execute(self) -> bool:
        """Do it all. Returns whether everything that was asked for succeeded.

        Raises:
            SourceError: the source can't be read.
            NothingToDo: `only` names a shard that the source does not have.
        """
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)
            scan = self._register(instance)
            keys = [shard.key for shard in scan.shards]
            asked = self.only or keys
            with (
                RunProgress(instance, self.console, len(asked)) as progress,
                RunPool(instance) as runs,
            ):
                self._documents(runs, scan, progress)
                registered = list(instance.get_dynamic_partitions(document_shards.name or ""))
                if self._index(runs, registered, progress):
                    self._ask(runs, asked, progress)
        print_report(self.console, self.tables, asked, self.failures, self.home, Path.cwd())
        return not self.failures

    def estimate(self) -> bool:
        """Say what `execute` would make, with the requests it would send and their cost.

        Exact for shards whose documents (for reasoning: whose negatives) are current; for the
        others a bound: one request a row of the source, or a question, with prompts of usual size.
        Returns True.
        """
        with dg.DagsterInstance.get() as instance:
            scan = self._scan(instance, remember=False)
        asked = [shard for shard in scan.shards if not self.only or shard.key in self.only]
        print_estimate(self.console, estimate(self.planner, self.teacher, asked))
        return True

    def print_status(self, each_shard: bool) -> None:
        """Print the state of every stage, in sum or for each shard. Registers and makes nothing."""
        with dg.DagsterInstance.get() as instance:
            scan = self._scan(instance, remember=False)
        states = shard_states(self.planner, scan.shards, self.planner.index_state())
        if each_shard:
            print_shards(self.console, scan.shards, states)
            return
        keys = [shard.key for shard in scan.shards]
        costs = spent(self.tables, keys, self.teacher.load_prices())
        print_status(self.console, states, costs, scan)

    def _scan(self, instance: dg.DagsterInstance, *, remember: bool) -> Scan:
        scan = scan_source(self.source, self.tables, instance, remember=remember)
        keys = {shard.key for shard in scan.shards}
        unknown = [key for key in self.only if key not in keys]
        if unknown:
            raise NothingToDo(
                f"The source {self.source.url} has no shard {', '.join(unknown)}. "
                f"It has: {_some(sorted(keys))}."
            )
        return scan

    def _register(self, instance: dg.DagsterInstance) -> Scan:
        scan = self._scan(instance, remember=True)
        if scan.new:
            instance.add_dynamic_partitions(document_shards.name or "", scan.new)
        self.console.print(
            f"[bold]{escape(self.source.url)}[/]: {len(scan.shards)} shards "
            f"({len(scan.new)} new, {len(scan.changed)} changed); "
            f"teacher [bold]{escape(self.teacher.name)}[/]",
            soft_wrap=True,
        )
        if scan.gone:
            self.console.print(
                f"[yellow]{len(scan.gone)} registered shards are not in this source: "
                f"{escape(_some(scan.gone))}. They stay in the index until their partitions are deleted.[/]"
            )
        return scan

    def _documents(self, runs: RunPool, scan: Scan, progress: RunProgress) -> None:
        stale = [
            (shard.key, [why])
            for shard in scan.shards
            if (why := self.planner.documents(shard)) is not None
        ]
        self._execute(runs, "documents_job", stale, progress)

    def _index(self, runs: RunPool, registered: list[str], progress: RunProgress) -> bool:
        why = self.planner.index(registered)
        if why is None:
            return True
        request = self._request("corpus_index_job", ["corpus_index"], None)
        progress.announce("corpus_index", why, 1)
        results = runs.execute_all(
            [request], at_once=1, tick=progress.tick, done=self._done(progress)
        )
        return all(result.error is None for result in results)

    def _ask(self, runs: RunPool, shards: list[str], progress: RunProgress) -> None:
        state = self.planner.index_state()
        assert state is not None
        stale = [
            (shard, stages)
            for shard in shards
            if shard not in self.failures and (stages := self.planner.asked(shard, state))
        ]
        self._execute(runs, "rare_job", stale, progress)

    def _execute(
        self,
        runs: RunPool,
        job: str,
        stale: list[tuple[str, list[Stale]]],
        progress: RunProgress,
    ) -> None:
        if not stale:
            return
        for stage in ("documents", *ASKED_STAGES):
            reasons = [s.why for _, stages in stale for s in stages if s.stage == stage]
            if reasons:
                progress.announce(stage, ", ".join(sorted(set(reasons))), len(reasons))
        requests = [
            self._request(job, [stage.stage for stage in stages], shard) for shard, stages in stale
        ]
        runs.execute_all(
            requests,
            at_once=self._at_once(job),
            tick=progress.tick,
            done=self._done(progress),
        )

    def _request(self, job: str, assets: list[str], shard: str | None) -> Request:
        return Request(str(uuid.uuid4()), job, tuple(assets), shard, self.run_config)

    def _at_once(self, job: str) -> int:
        settings = Settings()
        if job == "rare_job" and not (self.teacher.model or settings.model):
            # The embedded teacher uses every core for one shard already.
            return 1
        return settings.shards_at_once

    def _done(self, progress: RunProgress) -> Any:
        def done(result: Result) -> None:
            progress.finished(result)
            if result.error is not None:
                self.failures[result.request.shard or "corpus_index"] = result.error

        return done


def _some(names: list[str]) -> str:
    more = len(names) - SHARDS_NAMED
    return ", ".join(names[:SHARDS_NAMED]) + (f" and {more} more" if more > 0 else "")
