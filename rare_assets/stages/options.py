"""The options of a run, of all stages at once: read from its run config, and refused before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import new_class
from typing import Any, NamedTuple, TypeVar, get_type_hints

import dagster as dg
import yaml
from pydantic import BaseModel, ValidationError

from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.resources.dataset import SHIPPED, UNNAMED, Configs, Dataset
from rare_assets.settings import Settings
from rare_assets.stages.corpus_index import CorpusIndexConfig
from rare_assets.stages.exports import CARD, ExportConfig
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.pilot import PilotConfig
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig
from rare_assets.text.shown_url import shown

ConfigT = TypeVar("ConfigT", bound=dg.Config)
ModelT = TypeVar("ModelT", bound=BaseModel)
VALUE_ERROR = "Value error, "  # how pydantic begins the message of a validator
NOTHING: Mapping[str, Any] = {}
# What a run config is made of.
RUN_CONFIG = {"ops", "resources", "execution", "loggers"}


# Assets that `rare-assets run` does not make; their options may stand in the same file.
OF_OTHER_RUNS: dict[str, type[dg.Config]] = {
    "exports": ExportConfig,
    "__".join(CARD): ExportConfig,
    "pilot": PilotConfig,
}


class OptionsError(ValueError):
    """Raised for a run config that can't be used; the message names asset and field."""


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
        """Read the options from Dagster run config (`ops: {questions: {config: {...}}}`); the rest
        default.

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
        return cls._make(_options(KINDS[asset], asset, ops, configs) for asset in cls._fields)

    def in_batches(self, stage: str) -> bool:
        """Return whether a stage asks its teacher through the Batch API; verdicts on negatives come online."""
        return getattr(getattr(self, stage), "mode", "online") == "batch"


def read_run_config(path: Path, *, flat: bool = False) -> dict[str, Any]:
    """Read a YAML file of run config.

    Args:
        path: of the file.
        flat: take options by asset alone, too, outside of `ops`.

    Raises:
        OptionsError: it can't be read, or is none; the message names it.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not YAML: {error}"
        raise OptionsError(f"{path}: {why}") from error
    if content is not None and not isinstance(content, dict):
        raise OptionsError(f"{path}: not a mapping of Dagster run config")
    try:
        other = sorted(map(str, set(content or {}) - RUN_CONFIG))
        if other and not flat:
            raise OptionsError(
                f"{', '.join(other)}: no part of run config; options stand under `ops`, by asset, as {{ops: "
                "{questions: {config: {...}}}}."
            )
        _require_shape(content or {})
    except OptionsError as error:
        raise OptionsError(f"{path}: {error}") from None
    return content or {}


def _require_shape(run_config: Mapping[str, Any]) -> None:
    """Refuse what is not `part: {name: {config: {...}}}`, as Dagster has it. Raises OptionsError."""
    for part in ("ops", "resources"):
        named = run_config.get(part)
        if named is not None and not isinstance(named, Mapping):
            raise OptionsError(f"{part}: give names with their config, not {named!r}.")
        for name, given in (named or {}).items():
            config = given.get("config") if isinstance(given, Mapping) else given
            if config is not None and not isinstance(config, Mapping):
                raise OptionsError(
                    f"{part}.{name}: give its options by name, as {{config: {{...}}}}, not {config!r}."
                )


def by_stage(options: Mapping[str, Any], dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return the options of each asset, however they are given: as run config, or by asset alone.

    >>> by_stage({"questions": {"num_questions": 2}}, UNNAMED)
    {'questions': {'num_questions': 2}}
    >>> by_stage({"ops": {"questions": {"config": {"num_questions": 2}}}}, UNNAMED)
    {'questions': {'num_questions': 2}}

    Raises:
        OptionsError: something else is given.
    """
    flat = not RUN_CONFIG & set(options)
    if other := sorted(set(options) - {"ops"}) if not flat else []:
        raise OptionsError(
            f"{', '.join(other)}: only options of assets, under ops, and fields of the teacher (in RARE_CONFIG) are "
            "the defaults of a deployment. Its source, limits and the thresholds of its checks are settings "
            "(RARE_...); Dagster keeps no defaults for execution and loggers of runs that are started from "
            "assets, so these go into a run's Launchpad or --config."
        )
    _require_shape({"ops": options} if flat else options)
    found: dict[str, dict[str, Any]] = {}
    for op, given in (options if flat else options.get("ops") or {}).items():
        stage, fields = dataset.stage(op), given or {}
        if not flat or set(fields) == {"config"}:
            fields = fields.get("config") or {}
        found[stage] = dict(fields)
    return found


def configs_with(defaults: Mapping[str, Mapping[str, Any]]) -> Configs:
    """Return the config classes with these defaults, by asset.

    Raises:
        OptionsError: an asset or an option that there is not, or a value that does not fit.
    """
    Options.from_run_config(
        {"ops": {stage: {"config": given} for stage, given in defaults.items()}}
    )
    by_kind: dict[type[dg.Config], dict[str, Any]] = {}
    for stage, given in defaults.items():
        # Training files and their card have one class, since they go by the same options.
        by_kind.setdefault(KINDS[stage], {}).update(given)
    return Configs({kind: with_defaults(kind, given) for kind, given in by_kind.items()})


def with_defaults(kind: type[ModelT], defaults: Mapping[str, Any]) -> type[ModelT]:
    """Return a class of config or of a resource with other defaults, which the Launchpad shows.

    >>> from rare_assets.stages.questions import QuestionsConfig
    >>> with_defaults(QuestionsConfig, {"num_questions": 2})().num_questions
    2
    """
    fields: dict[str, Any] = {}
    for name, value in defaults.items():
        field = copy(kind.model_fields[name])
        field.default, field.default_factory = value, None
        fields[name] = field
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, **fields}
    names["__annotations__"] = {name: kind.model_fields[name].annotation for name in defaults}
    made: type[ModelT] = new_class(
        kind.__name__, (kind,), exec_body=lambda body: body.update(names)
    )
    return made


def deployment_configs(dataset: Dataset, options: Mapping[str, Any] | None = None) -> Configs:
    """Return the config classes of a deployment: what RARE_CONFIG says, and a dataset's own options over it.

    A RARE_CONFIG that can't be used fails each run, with its own error, and never the loading.

    Raises:
        OptionsError: the dataset's own options can't be used.
    """
    try:
        file = Settings().config
    except ValueError:
        # Each run says which setting it is.
        file = None
    general: dict[str, dict[str, Any]] = {}
    teacher: dict[str, Any] = {}
    problem = None
    if file is not None:
        try:
            general, teacher = _general(
                read_run_config(Path(file).expanduser(), flat=True), dataset
            )
        except OptionsError as error:
            problem = _problem_of(file, error)
    whose = f"options of the dataset {dataset.name}" if dataset.name else "options"
    try:
        own = by_stage(options or {}, dataset)
    except OptionsError as error:
        raise OptionsError(f"{whose}: {error}") from None
    try:
        # One may need what the other says.
        together = {s: {**general.get(s, {}), **own.get(s, {})} for s in {**general, **own}}
        return replace(configs_with(together), problem=problem, teacher=teacher)
    except OptionsError as error:
        try:
            configs = configs_with(own)
        except OptionsError as mine:
            raise OptionsError(f"{whose}: {mine}") from None
        return replace(configs, problem=_problem_of(str(file), error))


def _general(
    content: Mapping[str, Any], dataset: Dataset
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what a file of run config says of the assets' options, and of the teacher.

    Raises:
        OptionsError: it says something else, or of a teacher what can't be used.
    """
    resources = content.get("resources") or {}
    teacher_for({"resources": resources}, TeacherModel(storage=Storage()), dataset)
    given = {name: _later(value) for name, value in _of_teacher(resources, dataset).items()}
    rest = {name: part for name, part in content.items() if name != "resources"}
    return by_stage(rest, dataset), {n: value for n, value in given.items() if value is not None}


def _problem_of(file: str, error: OptionsError) -> str:
    said = str(error)
    return f"RARE_CONFIG {said if said.startswith(file) else f'{file}: {said}'}"


KINDS: dict[str, type[dg.Config]] = {
    **get_type_hints(Options),
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
    """Read an asset's options from the `ops` of a run config."""
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
    """Return the teacher of a run: the deployment's own, with `resources.teacher.config` over it.

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
    if fixed := sorted(set(resources) - {"teacher", known["teacher"]}):
        raise OptionsError(
            f"resources: {', '.join(fixed)} can't be other for one run, whose tables would not be found again: only "
            "the teacher can. Source, storage and index are settings."
        )
    given = _of_teacher(resources, dataset)
    if not given:
        return teacher
    own = dict(teacher)
    if unknown := sorted(set(given) - set(own)):
        raise OptionsError(
            f"resources.teacher.config: no field {', '.join(unknown)}; there are {', '.join(own)}."
        )
    try:
        return type(teacher)(**{**own, **{name: _from_env(v) for name, v in given.items()}})
    except ValidationError as error:
        raise OptionsError(f"resources.teacher.config: {_problems(error)}") from error


def with_whole_teacher(
    run_config: Mapping[str, Any],
    teacher: TeacherModel,
    dataset: Dataset = UNNAMED,
    variables: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    """Return a run config that says of the teacher, where it says anything, all that `teacher_for` has found:
    Dagster takes the fields that it leaves out for not given, whatever the deployment's own teacher has.

    What an environment variable says is named and not written out: it may be a secret.

    Args:
        run_config: as `teacher_for` takes it.
        teacher: what that returned.
        dataset: whose.
        variables: those that the deployment's own teacher takes values from, by field.
    """
    resources = run_config.get("resources")
    if not resources:
        return dict(run_config)
    whole: dict[str, Any] = {}
    for name, field in type(teacher).model_fields.items():
        value = getattr(teacher, name)
        if value is not None and not isinstance(value, dg.ConfigurableResource):
            if name in variables:
                whole[name] = {"env": variables[name]}
            elif value != field.default:  # Dagster has its defaults itself
                whole[name] = value
    whole.update(_of_teacher(resources, dataset))
    return {**run_config, "resources": {"teacher": {"config": whole}}}


def _of_teacher(resources: Mapping[str, Any], dataset: Dataset) -> Mapping[str, Any]:
    """Return what a run config's `resources` say of the teacher, however it is called."""
    given = resources.get("teacher") or resources.get(dataset.resource("teacher")) or {}
    return given.get("config") or {}


def _later(value: Any) -> Any:
    """Return a field's value for definitions, which the Launchpad shows: a URL with secrets that an environment
    variable has comes when a run starts."""
    told = _from_env(value)
    has_secrets = isinstance(told, str) and shown(told) != told
    return dg.EnvVar(value["env"]) if told is not value and has_secrets else told


def _from_env(value: Any) -> Any:
    """Return a value, or that of the environment variable which Dagster's `{env: NAME}` names."""
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
    """Return a function that refuses options of any step of a dataset before the first one starts.

    Dagster itself looks at their types alone, and each step at its own options, when those before it are
    paid for.

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
