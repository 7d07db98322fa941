"""Rank by BM25 in files, without a server."""
