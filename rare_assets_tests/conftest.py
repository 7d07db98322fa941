"""Fixtures that tests of several modules share, each from the module of the thing it starts."""

from rare_assets_tests.browser import browser, page
from rare_assets_tests.elasticsearch_node import (
    elasticsearch_index,
    elasticsearch_node,
    elasticsearch_url,
)
from rare_assets_tests.environment import nothing_set, only_key_set
from rare_assets_tests.s3_server import s3_bucket, s3_endpoint

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
