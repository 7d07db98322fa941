"""Fixtures that tests of several modules share, each from the module of the thing it starts."""

from rare_assets_tests.support.browser import browser, page
from rare_assets_tests.support.elasticsearch_node import (
    elasticsearch_index,
    elasticsearch_node,
    elasticsearch_url,
)
from rare_assets_tests.support.environment import nothing_set, only_key_set
from rare_assets_tests.support.s3_server import s3_bucket, s3_endpoint

# The modules that take minutes, longest first.
LONGEST = (
    "test_command_line",
    "test_browser",
    "test_elasticsearch",
    "test_resume",
    "test_benchmarks",
    "test_embedded",
    "test_claims",
    "test_runs",
)


def pytest_collection_modifyitems(config, items):
    """Begin with the longest modules where modules run side by side, lest one of them ends alone."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: (
                LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)
            )
        )


__all__ = [
    "browser",
    "elasticsearch_index",
    "elasticsearch_node",
    "elasticsearch_url",
    "nothing_set",
    "only_key_set",
    "page",
    "s3_bucket",
    "s3_endpoint",
]
