"""Secrets of a dataset's own, and which server may be sent those of the environment."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from rare_assets.settings import Settings


def own_secret(dataset: str | None, setting: str) -> Any:
    """Return a secret of a dataset's own: what the setting's variable says with the dataset's name before it, as
    `LEGAL__OPENAI_API_KEY`; None where it is not set.

    Raises:
        ValidationError: the setting does not take what it says.
    """
    variable = str(Settings.model_fields[setting].validation_alias)
    own = os.environ.get(variable_of(dataset, variable)) if dataset else None
    return getattr(Settings(**{variable: own}), setting) if own else None


def variable_of(dataset: str, variable: str) -> str:
    """Return the variable of a dataset's own secret.

    >>> variable_of("legal-eu", "OPENAI_API_KEY")
    'LEGAL_EU__OPENAI_API_KEY'
    """
    return f"{dataset.upper().replace('-', '_')}__{variable}"


def secret_for(dataset: str | None, name: str, own: str | None, general: str | None) -> Any:
    """Return a secret that a server may be sent: the dataset's own, else the environment's.

    The environment's is for the server that the environment names: where a dataset has one on another host,
    that gets the dataset's own secrets or none.

    Args:
        dataset: its name, if it has one.
        name: of the secret's setting.
        own: the server that its definitions name, if they do.
        general: the server that the environment names, if it does.
    """
    found = own_secret(dataset, name)
    if found is not None:
        return found
    elsewhere = dataset and own and general and not _on_one_host(own, general)
    return None if elsewhere else getattr(Settings(), name)


def _on_one_host(one: str, other: str) -> bool:
    hosts = [urlsplit(url.strip()).netloc.rpartition("@")[2].lower() for url in (one, other)]
    return one.strip() == other.strip() or (hosts[0] == hosts[1] != "")
