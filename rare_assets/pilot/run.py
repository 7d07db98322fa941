"""A pilot from its configurations to what its page shows: sample, estimate, trials, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.templates import load_templates
from rare_assets.pilot.configuration import Configuration, configured, named
from rare_assets.pilot.corpus import PilotCorpus
from rare_assets.pilot.foreseeing import Foreseen, foresee
from rare_assets.pilot.judging import Verdict, judge_pairs, n_requests
from rare_assets.pilot.projection import Projection, project
from rare_assets.pilot.trial import StageUse, Trial, Trying, Watched
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.resources.dataset import SHIPPED, UNNAMED, Configs, Dataset
from rare_assets.stages.asking import Asking
from rare_assets.teacher import Ledger, TeacherStopped


class Judging(NamedTuple):
    """The verdicts on every two configurations, and what they took; `problem` says why some lack."""

    model: str
    verdicts: list[Verdict]
    use: StageUse
    problem: str | None = None


class Pilot(NamedTuple):
    """All that came of a pilot. `projections` has None for a configuration that did not come to its end."""

    documents: pl.DataFrame
    n_documents: int
    seed: int
    trials: list[Trial]
    projections: dict[str, Projection | None]
    judging: Judging | None
    dataset: Dataset = UNNAMED

    @property
    def problems(self) -> dict[str, str]:
        """What failed, by configuration; `judge` for the verdicts."""
        found = {t.name: t.problem for t in self.trials if t.problem is not None}
        if self.judging is not None and self.judging.problem is not None:
            found["judge"] = self.judging.problem
        return found


class Plan(NamedTuple):
    """What a pilot will ask, before its first request: for each configuration what is foreseen, or why it
    can't be used; and the judge's requests at most."""

    sampled: int
    n_documents: int
    foreseen: dict[str, Foreseen | str]
    judge_requests: int


class PilotRun:
    """One pilot.

    Args:
        run_configs: the configurations by name; the deployment's own if there is none.
        corpus: an opened one.
        teacher: the deployment's own, which configurations change and which judges.
        documents: documents of the sample at most.
        seed: of the sample.
        ledger: where the limits are counted, by what asks; the same for all.
        say: told in a sentence what is waited for, or left out.
        dataset: whose corpus it is.
        configs: with the deployment's own defaults.

    Raises:
        PilotError: there are too many configurations, or there is no document.
    """

    def __init__(
        self,
        run_configs: Mapping[str, Mapping[str, Any]],
        corpus: PilotCorpus,
        teacher: TeacherModel,
        *,
        documents: int,
        seed: int,
        ledger: Callable[[str], Ledger],
        say: Callable[[str], None],
        dataset: Dataset = UNNAMED,
        configs: Configs = SHIPPED,
    ) -> None:
        self._corpus = corpus
        self._dataset = dataset
        self._teacher = teacher
        self._seed = seed
        self._ledger = ledger
        self._say = say
        self._configurations: dict[str, Configuration | str] = {}
        for name, run_config in named(run_configs).items():
            # What one configuration meets says nothing of the others.
            try:
                self._configurations[name] = configured(name, run_config, teacher, dataset, configs)
            except Exception as error:
                self._configurations[name] = _said(error)
        self._sample = corpus.sample(documents, seed)

    async def plan(self, *, judge: bool) -> Plan:
        """Say what will be asked. Sends nothing."""
        foreseen: dict[str, Foreseen | str] = {}
        for name, one in self._configurations.items():
            if isinstance(one, str):
                foreseen[name] = one
                continue
            try:
                with self._corpus.searching(one.options.corpus_index) as (index, _):
                    foreseen[name] = await foresee(one, self._sample, index)
            except Exception as error:
                self._configurations[name] = foreseen[name] = _said(error)
        usable = [Trial(name, None) for name, each in foreseen.items() if not isinstance(each, str)]
        requests = n_requests(usable, self._sample.documents.height) if judge else 0
        return Plan(self._sample.documents.height, self._corpus.n_documents, foreseen, requests)

    async def run(self, *, judge: bool) -> Pilot:
        """Send the sample through every configuration, one after the other, and judge if asked to."""
        trials = [await self._try(name, one) for name, one in self._configurations.items()]
        judging = await self._judge(trials) if judge and len(trials) > 1 else None
        corpus, documents = self._corpus, self._sample.documents
        return Pilot(
            documents,
            corpus.n_documents,
            self._seed,
            trials,
            {t.name: project(t, documents, corpus.n_documents, corpus.n_shards) for t in trials},
            judging,
            self._dataset,
        )

    async def _try(self, name: str, configuration: Configuration | str) -> Trial:
        if isinstance(configuration, str):
            return Trial(name, None, problem=configuration)
        self._say(f"{name}: asking {configuration.teacher.name}")
        trying = Trying(
            configuration,
            self._sample,
            lambda stage: self._ledger(f"{name}/{stage}"),
            lambda line: self._say(f"{name}: {line}"),
        )
        try:
            with self._corpus.searching(configuration.options.corpus_index) as (index, state):
                await trying.run(index, state)
        except Exception as error:
            trying.trial.problem = _said(error)
            self._say(f"{name}: {trying.trial.problem}")
        return trying.trial

    async def _judge(self, trials: Sequence[Trial]) -> Judging:
        teacher, use = teacher_of(self._teacher, "judge"), StageUse()
        self._say(f"judging pairs by {teacher.name}")
        verdicts: list[Verdict] = []
        problem = None
        try:
            asking = Asking(teacher, load_templates(teacher.prompts_folder))
            how: dict[str, Any] = {"ledger": self._ledger("judge"), "say": self._say}
            async with asking.opened(Watched, **how) as asked:
                try:
                    verdicts = await judge_pairs(trials, self._sample.documents, asked.judge)
                except TeacherStopped as stopped:
                    problem = str(stopped)
                finally:
                    use.add(asked.usage, asked.teacher.latencies_s)
            if problem is not None:
                async with asking.estimating() as stored:
                    verdicts = await judge_pairs(trials, self._sample.documents, stored.judge)
        except Exception as error:
            problem = _said(error)
        return Judging(teacher.name, verdicts, use, problem)


def _said(error: Exception) -> str:
    """Return an error in its own words, or its kind where it has none."""
    return str(error) or type(error).__name__
