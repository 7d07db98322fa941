"""The graph in one screen: which assets, checks, jobs and sensors there are, and what they talk to."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from rare_assets.assets.corpus_index import corpus_index
from rare_assets.assets.documents import corpus_files, documents
from rare_assets.assets.hard_negatives import hard_negatives
from rare_assets.assets.questions import questions
from rare_assets.assets.reasoning import reasoning
from rare_assets.checks import asset_checks
from rare_assets.jobs import jobs
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.io_manager import ParquetIOManager
from rare_assets.sensors import sensors


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


def build_defs(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The whole code location.

    Args:
        resource_overrides: resources to use instead of the shipped ones, by key (`storage`,
            `corpus`, `teacher`, `retriever`, `io_manager`): other settings, or other classes.
    """
    return dg.Definitions(
        assets=linked_to_code(
            [corpus_files, documents, corpus_index, questions, hard_negatives, reasoning]
        ),
        asset_checks=asset_checks,
        jobs=jobs,
        sensors=sensors,
        resources=build_resources(resource_overrides),
        # One process a run: its steps follow each other anyway, and each would take seconds to start.
        executor=dg.in_process_executor,
    )
