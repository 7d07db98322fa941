"""Teachers whose settings are given flat, wherever they belong: tests change one or two of them."""

from dataclasses import fields
from typing import Any

from rare_assets.teacher import BatchTeacher, EndpointOptions, Limits, OpenAITeacher


def settled(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a teacher."""
    rest = dict(settings)
    endpoint, limits = (
        kind(**{each.name: rest.pop(each.name) for each in fields(kind) if each.name in rest})
        for kind in (EndpointOptions, Limits)
    )
    return {**rest, "endpoint": endpoint, "limits": limits}


def online(**settings: Any) -> OpenAITeacher:
    """A teacher that asks online."""
    return OpenAITeacher(**settled(settings))


def in_batches(**settings: Any) -> BatchTeacher:
    """A teacher that asks in batches."""
    return BatchTeacher(**settled(settings))
