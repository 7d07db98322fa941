"""RARE data from a corpus as a Dagster asset graph.

`rare_assets.RareDataset` is the component for a project of one's own; `rare_assets.build.build_defs` the
same for definitions in Python.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rare_assets.component import RareDataset

__all__ = ["RareDataset"]


def __getattr__(name: str) -> Any:
    # Imported where it is asked for alone: it brings Dagster and the whole graph.
    if name in __all__:
        from rare_assets import component

        return getattr(component, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
