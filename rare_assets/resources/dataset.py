"""A corpus of a deployment: the keys and names of all that is made for it, and the thresholds of its checks,
in one record.

A deployment has one corpus without a name, or several with one (`rare_assets.RareDataset`). Asset keys
and partitions are global in a Dagster instance, resource keys, jobs, sensors and ops in a code location:
whatever is named in either takes its name from here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import dagster as dg

from rare_assets.resources.pools import POOLS
from rare_assets.settings import Settings

SHARDS = "rare_document_shards"
# What the graph talks to. The IO manager's key is one that no other asset of a code location falls back to.
RESOURCES = {
    "storage": "storage",
    "corpus": "corpus",
    "teacher": "teacher",
    "retriever": "retriever",
    "io_manager": "rare_io_manager",
}
# Begins the keys of a code location's metadata that hold the records of its datasets.
METADATA = "rare_assets/dataset"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Dataset:
    """What a corpus' assets, partitions, resources and pools are called, and where its checks warn.

    Args:
        name: None for the one corpus that has none.
        key_prefix: of the asset keys.
        partitions_name: of the dynamic partitions, its shards.
        resource_keys: by what the graph calls them: `storage`, `corpus`, `teacher`, `retriever`,
            `io_manager`.
        pools: likewise: `teacher`, `index`.
        thresholds: of its checks, by setting; those left out are the environment's.
    """

    name: str | None = None
    key_prefix: tuple[str, ...] = ()
    partitions_name: str = SHARDS
    resource_keys: Mapping[str, str] = field(default_factory=lambda: dict(RESOURCES))
    pools: Mapping[str, str] = field(default_factory=lambda: dict(POOLS))
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str | None = None,
        *,
        key_prefix: str | Sequence[str] | None = None,
        partitions_name: str | None = None,
        resource_keys: Mapping[str, str] | None = None,
        pools: Mapping[str, str] | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> Dataset:
        """Return a corpus' record; what is not given follows from the name.

        Raises:
            ValueError: a name that can't be used, or a resource or pool that there is not.
        """
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(
                f"The dataset's name {name!r} can't be used: it becomes part of asset keys, folders and "
                "an index, and takes lower-case letters, digits, _ and -."
            )
        given = [key_prefix] if isinstance(key_prefix, str) else key_prefix
        prefix = tuple(given if given is not None else [name] if name else [])
        label = _label(name, prefix)
        return cls(
            name,
            prefix,
            partitions_name or (f"{name or label}_{SHARDS}" if label else SHARDS),
            {role: f"{label}__{role}" if label else key for role, key in RESOURCES.items()}
            | _known("resource", resource_keys, RESOURCES),
            {role: f"{label}_{role}" if label else pool for role, pool in POOLS.items()}
            | _known("pool", pools, POOLS),
            dict(thresholds or {}),
        )

    def metadata(self, options: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Return the record, and the dataset's own options, as a code location's metadata has them."""
        key = f"{METADATA}/{self.label}" if self.label else METADATA
        return {key: json.dumps({"dataset": asdict(self), "options": options}, sort_keys=True)}

    @property
    def label(self) -> str:
        """What begins the names of jobs, sensors and ops; "" for the corpus without a name."""
        return _label(self.name, self.key_prefix)

    @property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """The shards of its documents."""
        return dg.DynamicPartitionsDefinition(name=self.partitions_name)

    def threshold(self, setting: str) -> float:
        """Return where a check begins to warn, or to block: the dataset's own, else what the environment
        says now.

        >>> Dataset.of("legal", thresholds={"max_quoting_rate": 0.3}).threshold("max_quoting_rate")
        0.3
        """
        own = self.thresholds.get(setting)
        return float(getattr(Settings(), setting)) if own is None else own

    def key(self, *asset: str) -> dg.AssetKey:
        """Return the key of an asset, below the dataset's prefix.

        >>> Dataset.of("legal").key("exports", "beir")
        AssetKey(['legal', 'exports', 'beir'])
        """
        return dg.AssetKey([*self.key_prefix, *asset])

    def op(self, asset: str) -> str:
        """Return the name of an asset's step, by which run config and event log call it."""
        return self.key(*asset.split("/")).to_python_identifier()

    def stage(self, op: str) -> str:
        """Return the asset whose step has a name: the name itself if it is none of this corpus."""
        return op.removeprefix(self.op("x").removesuffix("x"))

    def named(self, name: str) -> str:
        """Return the name of a job, a sensor, a schedule, a group or a step of checks."""
        return f"{self.label}_{name}" if self.label else name

    def resource(self, role: str) -> str:
        """Return the key of a resource, by what the graph calls it, as `storage`."""
        return self.resource_keys[role]


UNNAMED = Dataset()


@dataclass(frozen=True)
class Configs:
    """Config classes with a deployment's own defaults, by the class whose place they take.

    `problem` says why the deployment's can't be used: no step that has options starts then. `teacher` are
    fields of its teacher, where neither definitions nor a run say other.
    """

    by_kind: Mapping[type[dg.Config], type[dg.Config]] = field(default_factory=dict)
    problem: str | None = None
    teacher: Mapping[str, Any] = field(default_factory=dict)

    def get(self, kind: Any) -> Any:
        """Return the class to take for a class."""
        return self.by_kind.get(kind, kind)


SHIPPED = Configs()


def in_metadata(text: str) -> tuple[Dataset, Mapping[str, Any] | None]:
    """Return the record and the options that `Dataset.metadata` has written."""
    content = json.loads(text)
    fields = content["dataset"]
    return Dataset(**{**fields, "key_prefix": tuple(fields["key_prefix"])}), content["options"]


def bind(
    function: Callable[..., Any],
    dataset: Dataset,
    configs: Configs = SHIPPED,
    **more: Any,
) -> Callable[..., Any]:
    """Return a function as Dagster is to take it for a dataset.

    Its parameters `dataset`, `configs` and those of `more` are filled in, and those that are resources have the keys of
    that dataset's.

    Args:
        function: of an asset, a check, a sensor or a schedule.
        dataset: whose.
        configs: the class to take in place of a config class, with other defaults.
    """
    hints, names, parameters = get_type_hints(function), {}, []
    has_options = False
    signature = inspect.signature(function)
    filled = {
        name: value
        for name, value in {"dataset": dataset, "configs": configs, **more}.items()
        if name in signature.parameters
    }
    for parameter in signature.parameters.values():
        if parameter.name in filled:
            continue
        kind, name = hints.get(parameter.name), parameter.name
        if inspect.isclass(kind) and issubclass(kind, dg.ConfigurableResource):
            name = dataset.resource(name)
        has_options = has_options or (inspect.isclass(kind) and issubclass(kind, dg.Config))
        kind = configs.get(kind)
        names[name] = parameter.name
        parameters.append(parameter.replace(name=name, annotation=kind))

    def bound(*args: Any, **given: Any) -> Any:
        if has_options and configs.problem:
            raise dg.Failure(configs.problem, allow_retries=False)
        return function(*args, **filled, **{names[name]: value for name, value in given.items()})

    bound.__name__, bound.__doc__ = function.__name__, function.__doc__
    bound.__module__, bound.__qualname__ = function.__module__, function.__qualname__
    # Dagster reads one or the other, by its version.
    returned = hints.get("return", inspect.Signature.empty)
    if inspect.isgeneratorfunction(function):
        # What it yields is no output that Dagster infers.
        returned = inspect.Signature.empty
    bound.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    bound.__annotations__ = {each.name: each.annotation for each in parameters} | (
        {} if returned is inspect.Signature.empty else {"return": returned}
    )
    return bound


def code_reference(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the metadata that links an asset in the UI to the lines that define it."""
    file = inspect.getsourcefile(function)
    assert file is not None
    # As `inspect.getsourcelines` says it, which reads the file for it.
    line = inspect.unwrap(function).__code__.co_firstlineno
    reference = dg.LocalFileCodeReference(file_path=file, line_number=line)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def _label(name: str | None, prefix: Iterable[str]) -> str:
    # What Dagster takes in names of groups, jobs and resources.
    return re.sub(r"[^A-Za-z0-9_]", "_", name or "_".join(prefix))


def _known(what: str, given: Mapping[str, str] | None, known: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(given or {}) - set(known)):
        raise ValueError(f"There is no {what} {', '.join(unknown)}; there are {', '.join(known)}.")
    return dict(given or {})
