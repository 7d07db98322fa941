"""What a command works on: a corpus of a code location, with the resources that it has there."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from rare_assets.automation.instance import LOCATION, SHIPPED_MODULE
from rare_assets.build import build_resources
from rare_assets.resources.dagster_internals import definitions_in
from rare_assets.resources.dataset import METADATA, UNNAMED, Configs, Dataset, in_metadata
from rare_assets.resources.processes import imports_uncollected
from rare_assets.resources.settable import resolved, variables_of
from rare_assets.stages.options import NOTHING, OptionsError, deployment_configs


class TargetError(Exception):
    """The code location can't be loaded, or it does not say which of its datasets is meant."""


class Place(NamedTuple):
    """Where the runs of a command belong: a module with definitions, the code location's name in the UI,
    the dataset, and what `--dataset` calls it where that is needed."""

    module: str = SHIPPED_MODULE
    location: str = LOCATION
    dataset: Dataset = UNNAMED
    called: str | None = None

    @property
    def command(self) -> str:
        """The command that works on it, as it is typed."""
        words = ["rare-assets"]
        if self.module != SHIPPED_MODULE:
            words += ["-m", self.module]
        called = self.dataset.name if self.called is None else self.called
        if called is not None:
            words += ["--dataset", called]
        return shlex.join(words)


SHIPPED_PLACE = Place()


class Target(NamedTuple):
    """A dataset with its resources, by what the graph calls them, the defaults of its options, and the environment
    variables that its teacher takes values from, by field."""

    place: Place
    configs: Configs
    resources: Mapping[str, Any]
    variables: Mapping[str, str] = NOTHING

    @property
    def dataset(self) -> Dataset:
        """The names of all that is the dataset's."""
        return self.place.dataset


def open_target(module: str | None, name: str | None) -> Target:
    """Find the dataset that a command is for.

    Args:
        module: with the definitions of a code location; None for the one without a project.
        name: of the dataset; None where there is one alone.

    Raises:
        TargetError: there is no such module or dataset, or several and none is named.
        OptionsError: RARE_CONFIG can't be used.
    """
    if module is None:
        if name is not None:
            raise TargetError(
                f"--dataset {name}: name the module of your definitions, too, as in 'rare-assets -m "
                f"my_project.definitions --dataset {name} ...'. Without it there is one corpus, without a name."
            )
        configs = deployment_configs(UNNAMED)
        made = build_resources(configs=configs)
        try:
            target = _target(SHIPPED_PLACE, configs, made)
        except ValueError as error:
            raise TargetError(f"RARE_CONFIG: {error}") from error
    else:
        target = _in_module(module, name)
    if target.configs.problem:
        raise OptionsError(target.configs.problem)
    return target


@lru_cache
def definitions_of(module: str) -> dg.Definitions:
    """Load the definitions of a module, found from the working directory, too. Raises TargetError."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        with imports_uncollected():
            found = definitions_in(importlib.import_module(module))
    except Exception as error:
        raise TargetError(f"-m {module}: it can't be loaded: {_root_of(error)}") from error
    if found is None:
        raise TargetError(
            f"-m {module}: it has no Dagster definitions; name the module that Dagster loads."
        )
    return found


def _in_module(module: str, name: str | None) -> Target:
    defs = definitions_of(module)
    held = {
        dataset.name or dataset.label: (dataset, options)
        for key, value in (defs.metadata or {}).items()
        if key == METADATA or key.startswith(f"{METADATA}/")
        for dataset, options in [in_metadata(str(getattr(value, "value", value)))]
    }
    names = ", ".join(each or "'' (the one without a name)" for each in sorted(held))
    if not held:
        raise TargetError(
            f"-m {module}: it holds no dataset; add a component of type rare_assets.RareDataset, or "
            "rare_assets.build.build_defs."
        )
    if name is None and len(held) > 1:
        raise TargetError(f"-m {module}: it holds several datasets: {names}. Add --dataset NAME.")
    if name is not None and name not in held:
        raise TargetError(f"-m {module}: there is no dataset {name!r}; there are {names}.")
    called = next(iter(held)) if name is None else name
    dataset, options = held[called]
    place = Place(module, location_of(module), dataset, called if len(held) > 1 else None)
    configs = deployment_configs(dataset, options)
    try:
        target = _target(place, configs, _resources_of(dataset, defs))
    except ValueError as error:
        raise TargetError(f"-m {module}: {error}") from error
    for other, (its, _) in held.items():
        if other != called and (shared := _shared(target.resources, its, defs)):
            raise TargetError(
                f"-m {module}: the datasets {called!r} and {other!r} have one {shared}, where each would "
                "take what the other has made for its own: give one of them a name, or one of its own."
            )
    return target


def _target(place: Place, configs: Configs, resources: Mapping[str, Any]) -> Target:
    """Return a target with what the environment says of its resources now. Raises ValueError."""
    told = {role: resolved(resource) for role, resource in resources.items()}
    return Target(place, configs, told, variables_of(resources["teacher"]))


def _resources_of(dataset: Dataset, defs: dg.Definitions) -> dict[str, Any]:
    given = defs.resources or {}
    return {role: given[key] for role, key in dataset.resource_keys.items()}


def _shared(resources: Mapping[str, Any], other: Dataset, defs: dg.Definitions) -> str | None:
    """Return what a dataset's resources and another's have together, and must not: tables or index."""
    try:
        theirs = {role: resolved(each) for role, each in _resources_of(other, defs).items()}
        storages = [each["storage"].location for each in (resources, theirs)]
        indexes = [each["retriever"].place for each in (resources, theirs)]
    except (AttributeError, ValueError):
        # Resources of somebody's own need not say, nor an environment that is another dataset's.
        return None
    if storages[0] == storages[1]:
        return f"storage, {storages[0]}"
    return f"index, {indexes[0]}" if indexes[0] == indexes[1] is not None else None


def location_of(module: str) -> str:
    """Return a code location's name in the UI: what the project in the working directory calls it, else
    the module's."""
    if module == SHIPPED_MODULE:
        return LOCATION
    try:
        tool = tomllib.loads(Path("pyproject.toml").read_text()).get("tool", {})
    except (OSError, ValueError):
        return module
    project = tool.get("dg", {}).get("project", {})
    root = project.get("root_module")
    if module == project.get("code_location_target_module", f"{root}.definitions"):
        return str(project.get("code_location_name") or Path.cwd().name)
    return module


def _root_of(error: BaseException) -> str:
    while (cause := error.__cause__) is not None:
        error = cause
    return f"{type(error).__name__}: {error}"
