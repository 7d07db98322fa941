"""Fixtures of an environment with nothing set that rare_assets reads, whatever the developer's shell holds."""

import os

import pytest

from rare_assets_tests.support.graph import API_KEY, OWN_VARIABLES


def _clear(patch):
    for name in list(os.environ):
        if name.startswith(OWN_VARIABLES):
            patch.delenv(name)


@pytest.fixture
def nothing_set(monkeypatch):
    """Nothing set, for one test; the test may set what it likes."""
    _clear(monkeypatch)
    return monkeypatch


@pytest.fixture(scope="module")
def only_key_set():
    """Nothing set but the endpoint's key, for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        _clear(patch)
        patch.setenv("OPENAI_API_KEY", API_KEY)
        yield patch
