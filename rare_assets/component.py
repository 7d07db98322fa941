"""A corpus as a Dagster component: `type: rare_assets.RareDataset` in a project's `defs.yaml`.

Its attributes are the settings of the environment without `RARE_`, in lower case, and what names the
dataset. Secrets are none of them: they come from the environment alone.
"""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from rare_assets.build import build_defs
from rare_assets.resources.corpus_settings import CORPUS_SETTINGS
from rare_assets.resources.dataset import Dataset


class _Dataset(dg.Component, dg.Model, dg.Resolvable):
    """RARE data of one corpus: documents, questions, hard negatives, reasoning, training files.

    Only `name` is needed. Whatever is left out comes from the environment (RARE_SOURCE, RARE_MODEL, ...).
    """

    name: str = Field(
        description="Begins the keys of its assets (`<name>/documents`), and whatever else is named for it."
    )
    key_prefix: list[str] | None = Field(None, description="Of its asset keys. Default: the name.")
    partitions_name: str | None = Field(
        None, description="Of its shards. Default: `<name>_rare_document_shards`."
    )
    pools: dict[str, str] | None = Field(
        None,
        description="Pools of its steps, by `teacher` and `index`. Default: `<name>_teacher`, `<name>_index`.",
    )
    options: dict[str, Any] | None = Field(
        None,
        description="Options of its assets, the defaults of every run, as run config has them (`ops: "
        "{questions: {config: {num_questions: 2}}}`) or by asset (`questions: {num_questions: 2}`).",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the dataset's definitions."""
        label = Dataset.of(self.name).label
        others = context.component_tree.get_all_components(type(self))
        if sum(Dataset.of(each.name).label == label for each in others) > 1:
            raise ValueError(
                f"Two components of type rare_assets.RareDataset are named {self.name} (- and _ count alike): "
                "resources, jobs and sensors take their names from it. Give each another name."
            )
        given = {
            name: getattr(self, name) for name in CORPUS_SETTINGS if name in self.model_fields_set
        }
        if empty := sorted(name for name, value in given.items() if value in (None, "")):
            raise ValueError(
                f"{', '.join(empty)} of the dataset {self.name} is given and empty: leave it out for the "
                "environment's own, or set the environment variable that it names."
            )
        return build_defs(
            name=self.name,
            key_prefix=self.key_prefix,
            partitions_name=self.partitions_name,
            pools=self.pools,
            settings=given,
            options=self.options,
        )


with warnings.catch_warnings():
    # `Resolvable` has a class method of the name `model`, which a field of instances leaves as it is.
    warnings.filterwarnings("ignore", message='Field name "model"')
    RareDataset = create_model(
        "RareDataset",
        __base__=_Dataset,
        __module__=__name__,
        __doc__=_Dataset.__doc__,
        **CORPUS_SETTINGS,
    )
