"""Resources whose fields fall back to the settings of the environment, and take what these take."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import dagster as dg
from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from rare_assets.settings import Settings
from rare_assets.text.shown_url import shown_fields

# What stands in a field for a value that an environment variable has when a run starts.
ENV_VARS = (dg.EnvVar, type(dg.EnvVar.int("N")))


def setting(name: str) -> Any:
    """Return an optional field that falls back to the setting of that name, described by it."""
    return Field(default=None, description=described(name), json_schema_extra={"setting": name})


def described(name: str) -> str:
    """Return what a setting is, and its name in the environment."""
    field = Settings.model_fields[name]
    return f"{field.description} In the environment: {field.validation_alias}."


def fields_by_setting(kind: type[dg.ConfigurableResource]) -> dict[str, str]:
    """Return the name of each field of a resource that falls back to a setting, by that setting's name."""
    found = {}
    for name, each in kind.model_fields.items():
        if isinstance(each.json_schema_extra, dict) and "setting" in each.json_schema_extra:
            found[str(each.json_schema_extra["setting"])] = name
    return found


@cache
def _bounds_of(setting: str) -> TypeAdapter[Any]:
    field = Settings.model_fields[setting]
    kind: Any = Annotated[field.annotation, Field(), *field.metadata]
    return TypeAdapter(kind)


def within_bounds(setting: str, value: Any) -> Any:
    """Return a value as a setting takes it. Raises ValueError where the environment's would be refused, too."""
    try:
        return _bounds_of(setting).validate_python(value)
    except ValidationError as error:
        raise ValueError("; ".join(each["msg"] for each in error.errors())) from None


class SettableResource(dg.ConfigurableResource):
    """A resource whose repr has URLs without their secrets, and whose fields take what their settings take."""

    @field_validator("*", mode="before")
    @classmethod
    def _within_bounds(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what the field's setting refuses; what an environment variable is to say comes when a run starts."""
        extra = cls.model_fields[str(info.field_name)].json_schema_extra
        named = extra.get("setting") if isinstance(extra, dict) else None
        if not named or value is None or isinstance(value, ENV_VARS):
            return value
        return within_bounds(str(named), value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return shown_fields(super().__repr_args__())


def resolved(resource: Any) -> Any:
    """Return a resource with what its environment variables say, as Dagster has it when a run starts.

    One of somebody's own class stays as it is.

    Raises:
        ValueError: a variable is not set.
    """
    if not isinstance(resource, SettableResource):
        return resource
    own = dict(resource)
    told = {name: _told(value) for name, value in own.items()}
    return resource if all(told[name] is own[name] for name in own) else type(resource)(**told)


def _told(value: Any) -> Any:
    if not isinstance(value, ENV_VARS):
        return resolved(value)
    name: str = value.env_var_name
    said = os.environ.get(name)
    if said is None:
        raise ValueError(
            f"The environment variable {name} is not set, which a resource takes a value from."
        )
    return said


def variables_of(resource: dg.ConfigurableResource) -> dict[str, str]:
    """Return the environment variables that a resource takes values from when a run starts, by field."""
    return {name: value.env_var_name for name, value in resource if isinstance(value, ENV_VARS)}


def with_general(resource: Any, general: Mapping[str, Any]) -> Any:
    """Return a resource with values of the deployment where it has none of its own.

    One of somebody's own class stays as it is.
    """
    if not general or not isinstance(resource, SettableResource):
        return resource
    return type(resource)(**{**general, **{n: v for n, v in resource if v is not None}})
