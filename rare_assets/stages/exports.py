"""The exports: their keys in the graph, and the options of all of them."""

import dagster as dg

from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions
from rare_assets.resources.dataset import Dataset

GROUP = "exports"
CARD = ("exports", "data_card")


def export_keys(dataset: Dataset) -> dict[str, dg.AssetKey]:
    """Return the assets of a dataset's training files, by format."""
    return {name: dataset.key("exports", name.replace("-", "_")) for name in FORMATS}


class ExportConfig(dg.Config, ExportOptions):
    """What goes into the training files; the same for every shard of a corpus."""

    def options(self) -> ExportOptions:
        """Return the options as the exports take them."""
        return ExportOptions(**self.model_dump())
