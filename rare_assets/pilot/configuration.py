"""What a pilot compares: a configuration is a run config by a name, with the teacher and prompts it chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rare_assets.operators.templates import Templates, load_templates
from rare_assets.pilot.corpus import PilotError
from rare_assets.resources.configurable import ROLES, TeacherModel, teacher_of
from rare_assets.resources.dataset import SHIPPED, UNNAMED, Configs, Dataset
from rare_assets.stages.options import Options, OptionsError, teacher_for
from rare_assets.stages.pilot import MOST_CONFIGURATIONS

# The name of the only configuration where none is given.
CURRENT = "current"


class Configuration(NamedTuple):
    """A configuration that can be used."""

    name: str
    options: Options
    teacher: TeacherModel
    templates: Templates

    @property
    def settings(self) -> dict[str, str]:
        """What it has other than the defaults, and model and prompts: for people, by name."""
        general = self.teacher.name
        of_role = {role: teacher_of(self.teacher, role).name for role in ROLES}
        found = {
            "model": general,
            **{f"model of {role}": name for role, name in of_role.items() if name != general},
            "doc2query prompt": self.templates.doc2query.fingerprint,
            "reason_distill prompt": self.templates.reason_distill.fingerprint,
        }
        for stage, config in zip(Options._fields, self.options, strict=True):
            defaults = type(config)()
            for option, value in config.model_dump().items():
                if value != getattr(defaults, option):
                    found[f"{stage}.{option}"] = json.dumps(value, ensure_ascii=False)
        return found


def configured(
    name: str,
    run_config: Mapping[str, Any],
    teacher: TeacherModel,
    dataset: Dataset = UNNAMED,
    configs: Configs = SHIPPED,
) -> Configuration:
    """Read a configuration, over the deployment's own teacher and defaults.

    Raises:
        OptionsError, TemplateError, PriceError: it can't be used.
    """
    if configs.problem:
        raise OptionsError(configs.problem)
    chosen = teacher_for(run_config, teacher, dataset)
    chosen.load_prices()
    templates = load_templates(chosen.prompts_folder)
    options = Options.from_run_config(run_config, dataset, configs)
    return Configuration(name, options, chosen, templates)


def named(run_configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the configurations that are to be tried: those given, or the deployment's own.

    Raises:
        PilotError: there are too many.
    """
    if len(run_configs) > MOST_CONFIGURATIONS:
        raise PilotError(
            f"{len(run_configs)} configurations were given; side by side, {MOST_CONFIGURATIONS} at most can "
            "be read. Compare them in several pilots: stored answers cost nothing the second time."
        )
    return dict(run_configs) or {CURRENT: {}}


def names_of(paths: Sequence[str]) -> list[str]:
    """Shorten names of files: without folder and extension, as long as that tells them apart."""
    stems = [path.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in paths]
    short = [
        stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)
    ]
    return [
        name if short.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(short, start=1)
    ]
