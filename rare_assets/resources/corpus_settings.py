"""The settings that a corpus may have of its own, beside those of the deployment that it is in.

Its files, storage, index and teacher are its own, and so is how good its rows have to be. What is of the
machine, of the instance or of the code location is the deployment's, and secrets come from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rare_assets.resources.configurable import (
    Bm25Retriever,
    Corpus,
    Storage,
    TeacherModel,
)
from rare_assets.resources.settable import ENV_VARS, described, fields_by_setting, within_bounds
from rare_assets.settings import THRESHOLDS, Settings


def _attributes() -> dict[str, Any]:
    """Return a field for each setting that a resource takes, and each threshold, described by it."""
    found: dict[str, Any] = {}
    for resource in (Storage, Corpus, TeacherModel, Bm25Retriever):
        for setting, name in fields_by_setting(resource).items():
            field = resource.model_fields[name]
            found[setting] = (field.annotation, Field(None, description=field.description))
    for setting in THRESHOLDS:
        found[setting] = (float | None, Field(None, description=described(setting)))
    return found


CORPUS_SETTINGS = _attributes()


def checked(settings: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Return settings of a corpus' own, with their values as the settings take them.

    Args:
        settings: by name; a value may be a `dg.EnvVar`, but a threshold's.
        name: of the dataset.

    Raises:
        ValueError: one that there is not, that is no corpus' own, or whose value can't be used.
    """
    whose = f"settings of the dataset {name}" if name else "settings"
    found = {}
    for setting, value in settings.items():
        if setting not in CORPUS_SETTINGS:
            raise ValueError(f"{whose}: {_why_none(setting)}")
        if value is None or (isinstance(value, ENV_VARS) and setting not in THRESHOLDS):
            found[setting] = value
            continue
        try:
            found[setting] = within_bounds(setting, value)
        except ValueError as error:
            raise ValueError(f"{whose}: {setting}: {error}") from None
    return found


def _why_none(setting: str) -> str:
    """Say why a name is no setting of a corpus."""
    known = Settings.model_fields.get(setting)
    if known is None:
        return f"there is no {setting}; there are {', '.join(CORPUS_SETTINGS)}."
    return (
        f"{setting} is the deployment's, or a secret: it comes from the environment alone "
        f"({known.validation_alias})."
    )
