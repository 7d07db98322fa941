"""The graph in one screen: which assets, checks, jobs and sensors there are, and what they talk to."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from rare_assets.assets.corpus_index import corpus_index_asset
from rare_assets.assets.corpus_report import FILE, FOLDER, corpus_report_asset
from rare_assets.assets.documents import corpus_files_asset, documents_asset
from rare_assets.assets.exports import data_card_asset, exports_assets
from rare_assets.assets.hard_negatives import hard_negatives_asset
from rare_assets.assets.pilot import FILE as PILOT_FILE
from rare_assets.assets.pilot import FOLDER as PILOT_FOLDER
from rare_assets.assets.pilot import pilot_asset
from rare_assets.assets.questions import questions_asset
from rare_assets.assets.reasoning import reasoning_asset
from rare_assets.automation.jobs import jobs_of
from rare_assets.automation.schedules import schedules_of
from rare_assets.automation.sensors import sensors_of
from rare_assets.checks.asset_checks import asset_checks
from rare_assets.checks.exports import export_checks
from rare_assets.exports.folder import CARD as CARD_FILE
from rare_assets.resources.configurable import (
    Bm25Retriever,
    Corpus,
    Storage,
    TeacherModel,
    teacher_of,
)
from rare_assets.resources.corpus_settings import checked
from rare_assets.resources.dagster_internals import one_process_executor
from rare_assets.resources.dataset import RESOURCES, SHIPPED, UNNAMED, Configs, Dataset
from rare_assets.resources.io_manager import ParquetIOManager
from rare_assets.resources.settable import ENV_VARS, fields_by_setting, resolved, with_general
from rare_assets.schemas import TABLES
from rare_assets.settings import THRESHOLDS, Settings
from rare_assets.stages.exports import CARD, export_keys
from rare_assets.stages.options import (
    NOTHING,
    deployment_configs,
    run_config_check,
    with_defaults,
)
from rare_assets.stages.order import ASKING


def build_resources(
    overrides: Mapping[str, Any] | None = None,
    dataset: Dataset = UNNAMED,
    settings: Mapping[str, Any] | None = None,
    configs: Configs = SHIPPED,
) -> dict[str, Any]:
    """Return the resources by what the graph calls them; those in `overrides` are replaced whole.

    A replaced `storage` is also the one that the others write to.

    Args:
        overrides: resources by `storage`, `corpus`, `teacher`, `retriever`, `io_manager`.
        dataset: whose.
        settings: of its own, by name (`rare_assets.settings`); the rest comes from the environment.
        configs: with what the deployment says of its teacher, under what is given here.

    Raises:
        ValueError: an override of what there is not.
    """
    given, own = dict(overrides or {}), dict(settings or {})
    if unknown := sorted(set(given) - set(RESOURCES)):
        raise ValueError(
            f"There is no resource {', '.join(unknown)} to override; there are {', '.join(RESOURCES)}."
        )

    def made(kind: type[Any], general: Mapping[str, Any] = NOTHING, **parts: Any) -> Any:
        names = fields_by_setting(kind)
        told = {names[name]: own[name] for name in own if name in names and own[name] is not None}
        told = {**general, **told, **({"dataset": dataset.name} if dataset.name else {})}
        fixed = {name: value for name, value in told.items() if name in kind.model_fields}
        later = {name: value for name, value in fixed.items() if isinstance(value, ENV_VARS)}
        # As defaults of its fields, since a run that gives one of them gives up all that are values.
        now = {name: value for name, value in fixed.items() if name not in later}
        return (with_defaults(kind, now) if now else kind)(**parts, **later)

    storage = given.get("storage") or made(Storage)
    if "teacher" in given:
        given["teacher"] = with_general(given["teacher"], configs.teacher)
    return {
        "storage": storage,
        "corpus": made(Corpus),
        "teacher": made(TeacherModel, configs.teacher, storage=storage),
        "retriever": made(Bm25Retriever, storage=storage),
        "io_manager": ParquetIOManager(storage=storage),
        **given,
    }


def as_told(resource: Any) -> Any:
    """Return a resource with what its environment variables say; as it is where one is not set, which fails the
    run and never the loading."""
    try:
        return resolved(resource)
    except ValueError:
        return resource


def _prompts(teacher: Any) -> str | None:
    prompts = getattr(teacher, "prompts", None)
    return None if isinstance(prompts, ENV_VARS) else prompts


def with_locations(assets: list[Any], resources: Mapping[str, Any], dataset: Dataset) -> list[Any]:
    """Return the assets, each with the folder or URL where it lies, if settings and resources tell.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        places = {dataset.key("corpus_files"): resources["corpus"].source().url}
        folders = set(TABLES)
        if not (resources["retriever"].elasticsearch_url or Settings().elasticsearch_url):
            folders.add("corpus_index")
        storage = resources["storage"].location
        places |= {dataset.key(name): f"{storage}/{name}/" for name in folders}
        places |= {key: f"{storage}/exports/{name}/" for name, key in export_keys(dataset).items()}
        places[dataset.key(*CARD)] = f"{storage}/exports/{CARD_FILE}"
        places[dataset.key("corpus_report")] = f"{storage}/{FOLDER}/{FILE}"
        places[dataset.key("pilot")] = f"{storage}/{PILOT_FOLDER}/{PILOT_FILE}"
    except (AttributeError, RuntimeError, ValueError):
        # Resources of somebody's own need not say, and a variable of theirs may not be set here.
        return assets

    def with_uri(spec: dg.AssetSpec) -> dg.AssetSpec:
        place = places.get(spec.key)
        return spec.merge_attributes(metadata={"dagster/uri": place}) if place else spec

    return list(dg.map_asset_specs(with_uri, assets))


def with_engines(assets: list[Any], resources: Mapping[str, Any], dataset: Dataset) -> list[Any]:
    """Return the assets, each with the kind of its engine, if settings and resources tell.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        settings = Settings()
        url = resources["retriever"].elasticsearch_url or settings.elasticsearch_url
        models = {
            stage: teacher_of(resources["teacher"], stage).model or settings.model
            for stage in ASKING
        }
    except (AttributeError, RuntimeError, ValueError):
        # Resources of somebody's own need not say, and a variable of theirs may not be set here.
        return assets
    index = "elasticsearch" if url else "polars"
    kinds = {
        dataset.key("corpus_index"): index,
        dataset.key("hard_negatives"): index,
        **{
            dataset.key(stage): "openai" if model else "llamacpp" for stage, model in models.items()
        },
    }

    def with_kind(spec: dg.AssetSpec) -> dg.AssetSpec:
        kind = kinds.get(spec.key)
        return spec.merge_attributes(kinds={kind}) if kind else spec

    return list(dg.map_asset_specs(with_kind, assets))


def build_defs(
    *,
    name: str | None = None,
    key_prefix: str | Sequence[str] | None = None,
    resource_keys: Mapping[str, str] | None = None,
    partitions_name: str | None = None,
    pools: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
    alone: bool = False,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Return the definitions of one corpus, which `dg.Definitions.merge` puts beside others.

    Nothing of them holds for other assets of a code location: their IO manager and executor are those
    of their own assets and jobs.

    Args:
        name: of the dataset; what is not given follows from it. None for the one corpus without a name.
        key_prefix: of the asset keys; default, the name.
        resource_keys: by `storage`, `corpus`, `teacher`, `retriever`, `io_manager`; default,
            `<name>__storage`, ...
        partitions_name: of the shards; default, `<name>_rare_document_shards`.
        pools: by `teacher` and `index`; default, `<name>_teacher` and `<name>_index`.
        settings: of this corpus, by name (`source`, `storage`, `model`, `max_reject_rate`, ...: those of the
            environment, without RARE_, in lower case); the rest comes from the environment.
        options: of its assets, the defaults of every run, over those of RARE_CONFIG: as run config has them,
            or by asset (`{"questions": {"num_questions": 2}}`).
        executor: of its jobs; default, one process a run, since its steps follow each other anyway, and
            each would take seconds to start.
        alone: nothing else is in the code location, whose runs of assets take the executor, too.
        resource_overrides: resources to use instead of the shipped ones (by `storage`, `corpus`,
            `teacher`, `retriever`, `io_manager`): other settings, or other classes.
    """
    own = checked(settings or {}, name)
    dataset = Dataset.of(
        name,
        key_prefix=key_prefix,
        resource_keys=resource_keys,
        partitions_name=partitions_name,
        pools=pools,
        thresholds={each: own[each] for each in THRESHOLDS if own.get(each) is not None},
    )
    configs = deployment_configs(dataset, options)
    resources = build_resources(resource_overrides, dataset, own, configs)
    executor = executor or one_process_executor(run_config_check(dataset, configs))
    told = {role: as_told(resource) for role, resource in resources.items()}
    assets = build_assets(dataset, configs, _prompts(told["teacher"]))
    jobs = jobs_of(dataset, executor)
    keys = {key for asset in assets for key in asset.keys}
    return dg.Definitions(
        assets=with_engines(with_locations(assets, told, dataset), told, dataset),
        asset_checks=[*asset_checks(dataset), *export_checks(dataset)],
        jobs=list(jobs.values()),
        schedules=schedules_of(dataset, jobs),
        sensors=sensors_of(dataset, jobs, keys),
        resources={dataset.resource(role): resource for role, resource in resources.items()},
        executor=executor if alone else None,
        metadata=dataset.metadata(options),
    )


def build_assets(dataset: Dataset, configs: Configs, prompts: str | None) -> list[Any]:
    """Return the assets of a dataset; `prompts` is the folder of templates of its own."""
    with warnings.catch_warnings():
        # The links to the code are a beta in this Dagster; nothing but the UI depends on them.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return [
            corpus_files_asset(dataset),
            documents_asset(dataset),
            corpus_index_asset(dataset, configs),
            questions_asset(dataset, configs, prompts),
            hard_negatives_asset(dataset, configs),
            reasoning_asset(dataset, configs, prompts),
            exports_assets(dataset, configs),
            data_card_asset(dataset, configs),
            corpus_report_asset(dataset),
            pilot_asset(dataset, configs),
        ]
