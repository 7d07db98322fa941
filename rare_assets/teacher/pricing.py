"""Price answers by a small shipped table of list prices and the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rare_assets.text.shown_url import shown, without_secrets

_SHIPPED = Path(__file__).with_name("prices.json")
_DATE_SUFFIX = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class PriceError(ValueError):
    """A price file can't be used; the message names the file and what is wrong in it."""


class Price(BaseModel):
    """One model's price, in US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    completion_usd_per_million: float = Field(ge=0, allow_inf_nan=False)


class PriceTable(BaseModel):
    """A price file.

    Attributes:
        as_of: day on which the prices were looked up.
        source: where they were found.
        batch_factor: price in batches over the price online, above 0 and at most 1.
        models: prices by model name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: date | None = None
    source: str | None = None
    batch_factor: float | None = Field(default=None, gt=0, le=1)
    models: dict[str, Price]


class Prices:
    """Prices by model name. An unknown model has no price, which does not mean that it is free.

    A dated name (`gpt-4o-mini-2024-07-18`) without a price of its own has the price of its base name.

    Args:
        models: prices by model name.
        as_of: day on which they were looked up.
        batch_factor: price in batches over the price online.

    Example:
        >>> price = Price(prompt_usd_per_million=0.2, completion_usd_per_million=0.8)
        >>> Prices({"a-model": price}).cost("a-model-2024-07-18", 500_000, 1_000_000)
        0.9
    """

    def __init__(
        self, models: Mapping[str, Price], *, as_of: date | None = None, batch_factor: float = 0.5
    ) -> None:
        self._models = dict(models)
        self.as_of = as_of
        self.batch_factor = batch_factor

    @classmethod
    def load(cls, file: str | None = None) -> Prices:
        """Return the shipped table, with the prices of `file` (a path or URL) over it.

        Raises:
            PriceError: the file can't be read or isn't a price file.
        """
        shipped = PriceTable.model_validate_json(_SHIPPED.read_bytes())
        own = _read(file) if file else PriceTable(models={})
        return cls(
            {**shipped.models, **own.models},
            as_of=own.as_of or shipped.as_of,
            batch_factor=own.batch_factor or shipped.batch_factor or 1.0,
        )

    def price(self, model: str) -> Price | None:
        """Return the model's price; None if it is unknown."""
        return self._models.get(model) or self._models.get(_DATE_SUFFIX.sub("", model))

    def cost(
        self, model: str, prompt_tokens: float, completion_tokens: float, *, batch: bool = False
    ) -> float | None:
        """Return what tokens cost, in US dollars; None if the model's price is unknown.

        Args:
            model: the model's name.
            prompt_tokens, completion_tokens: how many.
            batch: by the Batch API's price.
        """
        price = self.price(model)
        if price is None:
            return None
        cost = (
            prompt_tokens * price.prompt_usd_per_million
            + completion_tokens * price.completion_usd_per_million
        ) / 1_000_000
        return cost * self.batch_factor if batch else cost


def _read(file: str) -> PriceTable:
    import fsspec

    try:
        with fsspec.open(file, "rb") as source:
            return PriceTable.model_validate_json(source.read())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise PriceError(
            f"price file {shown(file)}: {problems}. Expected JSON like "
            '{"models": {"my-model": {"prompt_usd_per_million": 0.2, '
            '"completion_usd_per_million": 0.8}}}'
        ) from error
    # What each file system raises has no base in common.
    except (OSError, ValueError, ImportError) as error:
        raise PriceError(
            f"price file {shown(file)} can't be read: {without_secrets(error, file)}"
        ) from None
