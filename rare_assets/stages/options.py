"""The options of a run, of all stages at once: read from its run config, and refused before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import dagster as dg
from pydantic import ValidationError

from rare_assets.resources.configurable import TeacherModel
from rare_assets.resources.dataset import SHIPPED, UNNAMED, Configs, Dataset
from rare_assets.stages.corpus_index import CorpusIndexConfig
from rare_assets.stages.exports import CARD, ExportConfig
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.pilot import PilotConfig
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig

ConfigT = TypeVar("ConfigT", bound=dg.Config)
VALUE_ERROR = "Value error, "  # how pydantic begins the message of a validator


# Assets that `rare-assets run` does not make; their options may stand in the same file.
OF_OTHER_RUNS: dict[str, type[dg.Config]] = {
    "exports": ExportConfig,
    "__".join(CARD): ExportConfig,
    "pilot": PilotConfig,
}


class OptionsError(ValueError):
    """The run config can't be used; the message names asset and field."""


class Options(NamedTuple):
    """The per-run options of each asset, as the run config gives them."""

    corpus_index: CorpusIndexConfig
    questions: QuestionsConfig
    hard_negatives: HardNegativesConfig
    reasoning: ReasoningConfig

    @classmethod
    def from_run_config(
        cls,
        run_config: Mapping[str, Any],
        dataset: Dataset = UNNAMED,
        configs: Configs = SHIPPED,
    ) -> Options:
        """Options from Dagster run config (`ops: {questions: {config: {...}}}`); the rest default.

        Args:
            run_config: assets called by their own name, or as the dataset's run config calls them.
            dataset: whose.
            configs: with the deployment's own defaults.

        Raises:
            OptionsError: an asset or a field that is not there, or a value that does not fit.
        """
        ops = {dataset.stage(op): given for op, given in (run_config.get("ops") or {}).items()}
        unknown = sorted(set(ops) - {*cls._fields, *OF_OTHER_RUNS})
        if unknown:
            raise OptionsError(
                f"ops: no asset {', '.join(unknown)} takes options; those that do are "
                f"{', '.join((*cls._fields, *OF_OTHER_RUNS))}."
            )
        for asset, kind in OF_OTHER_RUNS.items():
            # One file may hold the options of all commands: what is wrong in it is told at once.
            _options(kind, asset, ops, configs)
        return cls(
            _options(CorpusIndexConfig, "corpus_index", ops, configs),
            _options(QuestionsConfig, "questions", ops, configs),
            _options(HardNegativesConfig, "hard_negatives", ops, configs),
            _options(ReasoningConfig, "reasoning", ops, configs),
        )


KINDS: dict[str, type[dg.Config]] = {
    "corpus_index": CorpusIndexConfig,
    "questions": QuestionsConfig,
    "hard_negatives": HardNegativesConfig,
    "reasoning": ReasoningConfig,
    **OF_OTHER_RUNS,
}


def options_in(
    run_config: Mapping[str, Any], stage: str, dataset: Dataset, configs: Configs
) -> dict[str, Any]:
    """Return a stage's options as a run's config gives them, over the deployment's defaults."""
    kind = KINDS[stage]
    fields = configs.get(kind).model_fields
    ops = run_config.get("ops") or {}
    given = (ops.get(dataset.op(stage)) or {}).get("config") or {}
    return {
        name: field.get_default(call_default_factory=True) for name, field in fields.items()
    } | given


def _options(
    kind: type[ConfigT], asset: str, ops: Mapping[str, Any], configs: Configs = SHIPPED
) -> ConfigT:
    """An asset's options from the `ops` of a run config."""
    given = (ops.get(asset) or {}).get("config") or {}
    unknown = sorted(set(given) - set(kind.model_fields))
    if unknown:
        raise OptionsError(
            f"ops.{asset}.config: no option {', '.join(unknown)}; there are "
            f"{', '.join(kind.model_fields)}."
        )
    try:
        made: ConfigT = configs.get(kind)(**given)
        return made
    except ValidationError as error:
        raise OptionsError(f"ops.{asset}.config: {_problems(error)}") from error


def teacher_for(
    run_config: Mapping[str, Any], teacher: TeacherModel, dataset: Dataset = UNNAMED
) -> TeacherModel:
    """The teacher of a run: the deployment's own, with what `resources.teacher.config` says over it.

    Raises:
        OptionsError: a resource or a field that is not there, or a value that does not fit.
    """
    resources = run_config.get("resources") or {}
    known = {**{role: role for role in dataset.resource_keys}, **dataset.resource_keys}
    unknown = sorted(set(resources) - {*known, *known.values()})
    if unknown:
        raise OptionsError(
            f"resources: there is no {', '.join(unknown)}; there are {', '.join(dataset.resource_keys)}."
        )
    given = (resources.get("teacher") or resources.get(known["teacher"]) or {}).get("config") or {}
    if not given:
        return teacher
    own = {name: getattr(teacher, name) for name in type(teacher).model_fields}
    if unknown := sorted(set(given) - set(own)):
        raise OptionsError(
            f"resources.teacher.config: no field {', '.join(unknown)}; there are {', '.join(own)}."
        )
    try:
        return type(teacher)(**{**own, **{name: _from_env(v) for name, v in given.items()}})
    except ValidationError as error:
        raise OptionsError(f"resources.teacher.config: {_problems(error)}") from error


def _from_env(value: Any) -> Any:
    """A value, or that of the environment variable which Dagster's `{env: NAME}` names."""
    if isinstance(value, dict) and set(value) == {"env"}:
        return os.environ.get(value["env"])
    return value


def _problems(error: ValidationError) -> str:
    return "; ".join(
        ": ".join(
            filter(None, [".".join(map(str, each["loc"])), each["msg"].removeprefix(VALUE_ERROR)])
        )
        for each in error.errors()
    )


def run_config_check(dataset: Dataset, configs: Configs) -> Callable[..., None]:
    """Return a function that refuses options of any step of a dataset before the first one starts: Dagster
    itself looks at their types alone, and each step at its own options, when those before it are paid for.

    Values that come from environment variables are left to their steps. What it raises is an OptionsError.
    """

    def check(*run_configs: Mapping[str, Any]) -> None:
        if configs.problem:
            raise OptionsError(configs.problem)
        for run_config in run_configs:
            ops = run_config.get("ops") or {}
            given = {
                stage: {
                    "config": {
                        name: value
                        for name, value in (
                            (ops.get(dataset.op(stage)) or {}).get("config") or {}
                        ).items()
                        if not (isinstance(value, dict) and set(value) == {"env"})
                    }
                }
                for stage in Options._fields
            }
            Options.from_run_config({"ops": given}, dataset, configs)

    return check


check_run_config = run_config_check(UNNAMED, SHIPPED)
