"""The options of `rare-assets export`, each made from its field: what `--help` shows is what the graph has."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rare_assets.exports.options import ExportOptions

if TYPE_CHECKING:
    from rare_assets.command.target import Target


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of `ExportOptions`, described by it."""
    for name, field in reversed(ExportOptions.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(
            f"{flag}/--no-{name.replace('_', '-')}" if field.annotation is bool else flag,
            name,
            default=None,
            multiple=get_origin(field.annotation) is list,
            type=_click_type(field),
            help=f"{field.description}{_default(field)}",
        )(command)
    return command


def read_options(
    given: Mapping[str, Any], config: Mapping[str, Any], target: Target
) -> ExportOptions:
    """Return the options: those of the command line over `ops.exports.config` of a run config,
    and these over the defaults of the target's deployment.

    Raises:
        click.UsageError: a value that does not fit, or a field that is not there.
    """
    from rare_assets.stages.exports import ExportConfig

    ops = {target.dataset.stage(op): each for op, each in (config.get("ops") or {}).items()}
    defaults: ExportConfig = target.configs.get(ExportConfig)()
    values = {
        **defaults.model_dump(),
        **((ops.get("exports") or {}).get("config") or {}),
        **{k: v for k, v in given.items() if v not in (None, ())},
    }
    unknown = sorted(set(values) - set(ExportOptions.model_fields))
    if unknown:
        raise click.UsageError(
            f"ops.exports.config: no option {', '.join(unknown)}; there are "
            f"{', '.join(ExportOptions.model_fields)}."
        )
    try:
        return ExportOptions(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
            for problem in error.errors()
        )
        raise click.UsageError(problems) from error


def _click_type(field: FieldInfo) -> Any:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return next(each for each in get_args(annotation) if each is not type(None))
    return str if get_origin(annotation) is list else annotation


def _default(field: FieldInfo) -> str:
    if field.default in (None, False, "") or isinstance(field.default, list):
        return ""
    return f"  [default: {field.default}]"
