"""The graph in one screen: which assets, checks, jobs and sensors there are, and what they talk to."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from rare_assets.assets.corpus_index import corpus_index
from rare_assets.assets.corpus_report import FILE, FOLDER, corpus_report
from rare_assets.assets.documents import corpus_files, documents
from rare_assets.assets.exports import data_card, exports
from rare_assets.assets.hard_negatives import hard_negatives
from rare_assets.assets.pilot import FILE as PILOT_FILE
from rare_assets.assets.pilot import FOLDER as PILOT_FOLDER
from rare_assets.assets.pilot import pilot
from rare_assets.assets.questions import questions
from rare_assets.assets.reasoning import reasoning
from rare_assets.automation.jobs import jobs
from rare_assets.automation.schedules import schedules
from rare_assets.automation.sensors import sensors
from rare_assets.checks.asset_checks import asset_checks
from rare_assets.checks.exports import export_checks
from rare_assets.exports.folder import CARD
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.dagster_internals import one_process_executor
from rare_assets.resources.io_manager import ParquetIOManager
from rare_assets.schemas import TABLES
from rare_assets.settings import Settings
from rare_assets.stages.exports import CARD_KEY, KEYS
from rare_assets.stages.options import check_run_config


def build_resources(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resources by key, those given in `overrides` replaced whole.

    A replaced `storage` is also the one that the others write to.
    """
    given = dict(overrides or {})
    storage = given.get("storage", Storage())
    return {
        "storage": storage,
        "corpus": Corpus(),
        "teacher": TeacherModel(storage=storage),
        "retriever": Bm25Retriever(storage=storage),
        "io_manager": ParquetIOManager(storage=storage),
        **given,
    }


def linked_to_code(assets: list[Any]) -> list[Any]:
    """The assets, each with a link in the UI to the lines that define it."""
    with warnings.catch_warnings():
        # The links are a beta in this Dagster; nothing but the UI depends on them.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return list(dg.with_source_code_references(assets))


def located(assets: list[Any], resources: Mapping[str, Any]) -> list[Any]:
    """The assets, each with the folder or URL where it lies, as far as settings and resources tell.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        places = {"corpus_files": resources["corpus"].source().url}
        folders = set(TABLES)
        if not (resources["retriever"].elasticsearch_url or Settings().elasticsearch_url):
            folders.add("corpus_index")
        storage = resources["storage"].location
        places |= {name: f"{storage}/{name}/" for name in folders}
        places |= {key.to_user_string(): f"{storage}/exports/{name}/" for name, key in KEYS.items()}
        places[CARD_KEY.to_user_string()] = f"{storage}/exports/{CARD}"
        places["corpus_report"] = f"{storage}/{FOLDER}/{FILE}"
        places["pilot"] = f"{storage}/{PILOT_FOLDER}/{PILOT_FILE}"
    except (AttributeError, ValueError):
        # Resources of somebody's own need not say.
        return assets

    def with_uri(spec: dg.AssetSpec) -> dg.AssetSpec:
        place = places.get(spec.key.to_user_string())
        return spec.merge_attributes(metadata={"dagster/uri": place}) if place else spec

    return list(dg.map_asset_specs(with_uri, assets))


def with_engines(assets: list[Any], resources: Mapping[str, Any]) -> list[Any]:
    """The assets, each with the kind of what it works with, as far as settings and resources tell.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        settings = Settings()
        url = resources["retriever"].elasticsearch_url or settings.elasticsearch_url
        model = resources["teacher"].model or settings.model
    except (AttributeError, ValueError):
        # Resources of somebody's own need not say.
        return assets
    index, teacher = "elasticsearch" if url else "polars", "openai" if model else "llamacpp"
    kinds = {
        "corpus_index": index,
        "hard_negatives": index,
        "questions": teacher,
        "reasoning": teacher,
    }

    def with_kind(spec: dg.AssetSpec) -> dg.AssetSpec:
        kind = kinds.get(spec.key.to_user_string())
        return spec.merge_attributes(kinds={kind}) if kind else spec

    return list(dg.map_asset_specs(with_kind, assets))


def build_defs(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The whole code location.

    Args:
        resource_overrides: resources to use instead of the shipped ones, by key (`storage`,
            `corpus`, `teacher`, `retriever`, `io_manager`): other settings, or other classes.
    """
    resources = build_resources(resource_overrides)
    assets = [corpus_files, documents, corpus_index, questions, hard_negatives, reasoning]
    assets += [exports, data_card, corpus_report, pilot]
    return dg.Definitions(
        assets=linked_to_code(with_engines(located(assets, resources), resources)),
        asset_checks=[*asset_checks, *export_checks],
        jobs=jobs,
        schedules=schedules,
        sensors=sensors,
        resources=resources,
        # One process a run: its steps follow each other anyway, and each would take seconds to start.
        executor=one_process_executor(check_run_config),
    )
