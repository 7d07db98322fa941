"""The pilot: its options. It makes no table."""

from typing import Any

import dagster as dg
from pydantic import Field

MOST_CONFIGURATIONS = 4


class PilotConfig(dg.Config):
    """Which documents are tried, and with what."""

    documents: int = Field(20, ge=1, description="Documents of the sample; all if there are fewer.")
    seed: int = Field(0, description="Seed of the sample.")
    configurations: dict[str, Any] = Field(
        {},
        description="Up to four configurations by name, each run config of its own: options under `ops`, "
        "model and prompts under `resources: {teacher: {config: {model: ..., prompts: ...}}}`. Default: "
        "this deployment's own.",
    )
    judge: bool = Field(
        False,
        description="Ask the deployment's own teacher which of two configurations made the better example, "
        "in both orders: two short requests a document and pair of configurations.",
    )
