"""The main job of `rare-assets run`: register shards, materialize what is stale, tell what was made.

Every run is an ordinary Dagster run of one shard, or of the index; `schedule` says which may start.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from rich.console import Console
from rich.markup import escape

from rare_assets.assets.asking import once
from rare_assets.automation.instance import open_pools, pool_limit, prepare_home
from rare_assets.automation.registration import describe_missing, register
from rare_assets.command.estimate import estimate
from rare_assets.command.order import Schedule, Task
from rare_assets.command.plan import Planner, Stale
from rare_assets.command.progress import RunProgress
from rare_assets.command.queue import RunQueue
from rare_assets.command.report import print_estimate, print_report, print_shards, print_status
from rare_assets.command.status import made_nothing, shard_states
from rare_assets.command.target import Target, open_target
from rare_assets.command.workers import STOPPED, Request, Result, RunPool
from rare_assets.corpus.scan import Scan, scan_source
from rare_assets.corpus.source import CorpusSource
from rare_assets.files.processes import usable_cpus
from rare_assets.resources.configurable import Corpus, Storage, TeacherModel, teacher_of
from rare_assets.resources.dagster_internals import keep_connections
from rare_assets.resources.partitions import registered_shards
from rare_assets.settings import Settings
from rare_assets.stages.cost import spent
from rare_assets.stages.options import Options, teacher_for, with_whole_teacher
from rare_assets.stages.order import AFTER_DOCUMENTS, ASKING
from rare_assets.text.shown import first_names

LOG_WIDTH = 120

# Processes that ask: they wait for answers most of the time.
ASKING_A_CORE = 4


class Places(NamedTuple):
    """How many runs may be under way, as `Schedule` takes it."""

    asking_at_once: int
    ahead: int
    at_once: int


class NothingToDo(Exception):
    """A shard was asked for that the source does not have."""


class RunCommand:
    """One invocation of `rare-assets run`.

    Args:
        run_config: Dagster run config for the assets, as the Launchpad takes it.
        only: keys of the shards to ask about; all if empty. Documents and the index are made for
            the whole corpus all the same, since negatives come from the whole corpus.
        redo_all: materialize what is current, too.
        submit: hand the runs to the instance's queue instead of executing them on this machine.
        target: the dataset; default, the one without a project.
    """

    def __init__(
        self,
        run_config: Mapping[str, Any],
        only: Iterable[str] = (),
        redo_all: bool = False,
        submit: bool = False,
        target: Target | None = None,
    ) -> None:
        self.run_config = dict(run_config)
        self.only = list(only)
        self.submits = submit
        self.console = _console()
        self.home = prepare_home()
        target = target or open_target(None, None)
        self.place = target.place
        dataset, resources = target.dataset, target.resources
        storage: Storage = resources["storage"]
        corpus: Corpus = resources["corpus"]
        self.teacher: TeacherModel = teacher_for(self.run_config, resources["teacher"], dataset)
        self.run_config = with_whole_teacher(
            self.run_config, self.teacher, dataset, target.variables
        )
        self.tables = storage.tables()
        self.source = corpus.source()
        self.removes_deleted = corpus.removes_deleted_shards
        self.planner = Planner(
            self.tables,
            resources["retriever"],
            self.teacher,
            Options.from_run_config(self.run_config, dataset, target.configs),
            redo_all,
            dataset,
        )
        self.failures: dict[str, str] = {}
        # A price file that can't be used is told now, not by every run.
        self.teacher.load_prices()

    def execute(self) -> bool:
        """Do it all. Return True if everything that was asked for succeeded.

        Raises:
            SourceError: the source can't be read.
            NothingToDo: `only` names a shard that the source does not have.
            NoQueue: the runs are to be submitted, and the instance has no queue.
        """
        with dg.DagsterInstance.get() as instance:
            keep_connections(instance)
            pool = (
                RunQueue(instance, self.console, self.place) if self.submits else RunPool(instance)
            )
            if not self.submits:
                self._open_pools(instance)
            scan = self._register(instance)
            keys = [shard.key for shard in scan.shards]
            asked = self.only or keys
            with (
                RunProgress(instance, self.console, self.planner.options.reasoning.n) as progress,
                pool as runs,
            ):
                registered = registered_shards(instance, self.place.dataset)
                self._execute(runs, scan, registered, asked, progress)
        for shard in asked:
            if shard not in self.failures and (said := made_nothing(self.tables, shard)):
                self.failures[shard] = said
        print_report(
            self.console,
            self.tables,
            asked,
            self.failures,
            self.home,
            Path.cwd(),
            self.place.command,
            has_ui=self.submits,
        )
        return not self.failures

    def _open_pools(self, instance: dg.DagsterInstance) -> None:
        at_once = Settings().shards_at_once
        pools = self.place.dataset.pools.values()
        if too_low := open_pools(instance, _asking_at_once(at_once), pools, needed=at_once):
            self.console.print(
                f"[yellow]RARE_SHARDS_AT_ONCE is {at_once}, and fewer steps run at once in "
                f"pools whose limit was set by hand: {', '.join(too_low)}. Raise it in the UI "
                "(Deployment, Concurrency) or by `dagster instance concurrency set`.[/]",
                soft_wrap=True,
            )

    def estimate(self) -> bool:
        """Say what `execute` would make, with the requests it would send and their cost.

        Exact for shards whose documents (for reasoning: whose negatives) are current; for the
        others a bound: one request a row of the source, or a question, with prompts of usual size.
        Return True.
        """
        with dg.DagsterInstance.get() as instance:
            scan = self._scan(instance, remember=False)
        asked = [shard for shard in scan.shards if not self.only or shard.key in self.only]
        say = once(lambda line: self.console.print(f"[yellow]{escape(line)}[/]", soft_wrap=True))
        print_estimate(self.console, estimate(self.planner, self.teacher, asked, say))
        return True

    def print_status(self, each_shard: bool) -> None:
        """Print the state of every stage, in sum or for each shard. Registers and makes nothing."""
        with dg.DagsterInstance.get() as instance:
            scan = self._scan(instance, remember=False)
        states = shard_states(self.planner, scan.shards, self.planner.index_state())
        keys, prices = [shard.key for shard in scan.shards], self.teacher.load_prices()
        if each_shard:
            costs = {key: spent(self.tables, [key], prices) for key in keys}
            print_shards(self.console, scan.shards, states, costs)
        else:
            total = spent(self.tables, keys, prices)
            print_status(self.console, states, total, scan, self.planner.teachers)

    def _scan(self, instance: dg.DagsterInstance, *, remember: bool) -> Scan:
        scan = scan_source(
            self.source,
            self.tables,
            registered_shards(instance, self.place.dataset),
            remember=remember,
        )
        keys = {shard.key for shard in scan.shards}
        unknown = [key for key in self.only if key not in keys]
        if unknown:
            raise NothingToDo(
                f"The source {self.source.url} has no shard {', '.join(unknown)}. "
                f"It has: {first_names(sorted(keys))}."
            )
        return scan

    def _register(self, instance: dg.DagsterInstance) -> Scan:
        scan = self._scan(instance, remember=True)
        removed = register(
            scan,
            self.source,
            self.tables,
            instance,
            self.place.dataset,
            remove_deleted=self.removes_deleted,
        )
        teacher = f"; teacher [bold]{escape(self.planner.teachers)}[/]"
        _print_registered(self.console, self.source, scan, removed, teacher)
        return scan

    def _execute(
        self,
        runs: RunPool | RunQueue,
        scan: Scan,
        registered: list[str],
        asked: list[str],
        progress: RunProgress,
    ) -> None:
        sizes = {shard.key: shard.n_rows for shard in scan.shards}
        expected = self._announce(scan, registered, asked, sizes, progress)
        places = self._places(progress.instance, runs)
        command = str(uuid.uuid4())
        followed = runs.follow(self.run_config) if isinstance(runs, RunQueue) else []
        if followed:
            self.console.print(f"{len(followed)} runs of an earlier command go on.")

        def decided(shard: str, stages: Sequence[str], stale: list[Stale]) -> None:
            """Correct what was announced before documents and index were there."""
            reasons = {each.stage: each.why for each in stale}
            for stage in stages:
                if stage in reasons and (shard, stage) not in expected:
                    rows = self._rows(stage, shard, sizes[shard])
                    progress.announce(stage, reasons[stage], {shard: rows})
                elif stage not in reasons and (shard, stage) in expected:
                    progress.retract(stage, shard)

        schedule = Schedule(
            self.planner,
            scan.shards,
            registered,
            asked,
            **places._asdict(),
            under_way=[_task(request) for request in followed],
            decided=decided,
        )

        def start(under_way: list[Request]) -> Request | None:
            task = schedule.next([_task(request) for request in under_way])
            if task is None:
                return None
            return Request(command, str(uuid.uuid4()), *task, self.run_config, self.place)

        def done(result: Result) -> None:
            if result.stops_others and result.request.command != command:
                # It has met limits of its own command; this one has others, and looks at the shard again.
                if result.error != STOPPED:
                    self.console.print(
                        f"[yellow]{escape(result.request.shard or '')}: a run of an earlier command has "
                        f"stopped ({escape(str(result.error))}). This command goes on with its shard.[/]",
                        soft_wrap=True,
                    )
                result = result._replace(error=None, stops_others=False)
            progress.finished(result)
            failed = result.error is not None
            if result.error is not None:
                self.failures[result.request.shard or "corpus_index"] = result.error
            schedule.finished(
                _task(result.request), failed=failed, stops_others=result.stops_others
            )

        def tick(under_way: list[Request]) -> None:
            progress.tick([(request, runs.step_state(request)) for request in under_way])

        runs.execute_all(start, tick=tick, done=done)

    def _announce(
        self,
        scan: Scan,
        registered: list[str],
        asked: list[str],
        sizes: Mapping[str, int],
        progress: RunProgress,
    ) -> set[tuple[str, str]]:
        """Say what is to be made, as far as it can be told now. Return (shard, stage) of it all."""
        planner = self.planner
        documents = {s.key: why for s in scan.shards if (why := planner.documents(s)) is not None}
        index = "documents" if documents else planner.index(registered)
        state = planner.index_state()
        stale = list(documents.items())
        for shard in asked:
            if shard in documents or state is None:
                again = "asked for" if planner.redo_all else "documents"
                stale += [
                    (
                        shard,
                        Stale(stage, again if planner.tables.exists(stage, shard) else "missing"),
                    )
                    for stage in AFTER_DOCUMENTS
                ]
            else:
                stale += [(shard, found) for found in planner.asked(shard, state)]
        for stage in ("documents", "corpus_index", *AFTER_DOCUMENTS):
            if stage == "corpus_index" and index is not None:
                rows = {"": sum(sizes.values())}
                progress.announce(stage, planner.index(registered) or index, rows)
            if found := [(shard, each.why) for shard, each in stale if each.stage == stage]:
                rows = {shard: self._rows(stage, shard, sizes[shard]) for shard, _ in found}
                progress.announce(stage, ", ".join(sorted({why for _, why in found})), rows)
        return {(shard, each.stage) for shard, each in stale}

    def _rows(self, stage: str, shard: str, source_rows: int) -> int:
        """Return about how many rows a stage of a shard will have: exact once its upstreams are
        there."""
        options = self.planner.options
        if stage == "documents":
            return source_rows
        made_from = "documents" if stage == "questions" else "questions"
        stored = self.tables.provenance_if_whole(made_from, shard)
        rows = source_rows if stored is None else stored.n_rows
        if stage == "questions" or stored is None:
            rows *= options.questions.num_questions
        return rows * options.reasoning.n if stage == "reasoning" else rows

    def _places(self, instance: dg.DagsterInstance, runs: RunPool | RunQueue) -> Places:
        """Return how many runs may be under way, of those that ask and in all.

        The queue decides itself what is executed, and is never left empty.
        """
        if isinstance(runs, RunQueue):
            return Places(asking_at_once=runs.size, ahead=runs.size, at_once=2 * runs.size)
        settings = Settings()
        teachers = [teacher_of(self.teacher, stage) for stage in ASKING]
        if not all(teacher.model or settings.model for teacher in teachers):
            # The embedded teacher uses every core for one shard already.
            return Places(asking_at_once=1, ahead=0, at_once=settings.shards_at_once)
        at_once = settings.shards_at_once
        asking = _asking_at_once(at_once)
        limit = pool_limit(instance, self.place.dataset.pools["teacher"])
        if limit is not None:
            asking = max(at_once, min(asking, limit))
        # A pool with more room would let it ask at once, beside all the others.
        ahead = 1 if limit is not None and limit <= asking else 0
        return Places(asking_at_once=asking, ahead=ahead, at_once=at_once)


def _asking_at_once(shards_at_once: int) -> int:
    """Return up to twice RARE_SHARDS_AT_ONCE, which share the places in flight: while one step
    waits for its last answers, or a shard is mined, another asks. One stays one, and more than
    `ASKING_A_CORE` only take each other's time."""
    if shards_at_once == 1:
        return 1
    return max(shards_at_once, min(2 * shards_at_once, ASKING_A_CORE * usable_cpus()))


def register_shards(target: Target) -> None:
    """Register the shards of the source, and make nothing. Raises SourceError."""
    prepare_home()
    dataset, resources = target.dataset, target.resources
    storage: Storage = resources["storage"]
    corpus: Corpus = resources["corpus"]
    source, tables = corpus.source(), storage.tables()
    with dg.DagsterInstance.get() as instance:
        scan = scan_source(source, tables, registered_shards(instance, dataset), watching=True)
        removed = register(
            scan, source, tables, instance, dataset, remove_deleted=corpus.removes_deleted_shards
        )
    _print_registered(_console(), source, scan, removed)


def _print_registered(
    console: Console, source: CorpusSource, scan: Scan, removed: list[str], teacher: str = ""
) -> None:
    console.print(
        f"[bold]{escape(source.url)}[/]: {len(scan.shards)} shards "
        f"({len(scan.new)} new, {len(scan.changed)} changed){teacher}",
        soft_wrap=True,
    )
    if said := describe_missing(scan, removed):
        console.print(f"[yellow]{escape(said)}[/]", soft_wrap=True)


def _console() -> Console:
    # A log file or CI has no width of its own.
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def _task(request: Request) -> Task:
    return Task(request.job, request.assets, request.shard)
