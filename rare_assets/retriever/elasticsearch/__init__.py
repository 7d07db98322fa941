"""Rank by BM25 in Elasticsearch, in an index behind an alias."""
