"""Fixtures that the tests of all checks share."""

from rare_assets_tests.support.shard import sample_corpus, stored

__all__ = ["sample_corpus", "stored"]
