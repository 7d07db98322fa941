"""The exports: their keys in the graph, and the options of all of them."""

import dagster as dg

from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions

GROUP = "exports"


KEYS = {name: dg.AssetKey(["exports", name.replace("-", "_")]) for name in FORMATS}


CARD_KEY = dg.AssetKey(["exports", "data_card"])


class ExportConfig(dg.Config, ExportOptions):
    """What goes into the training files; the same for every shard of a corpus."""

    def options(self) -> ExportOptions:
        """Return the options as the exports take them."""
        return ExportOptions(**self.model_dump())
