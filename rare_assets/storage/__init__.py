"""The stored tables: a Parquet file a shard, its rejects beside it, what it was made from in its footer.

Example:
    >>> import polars as pl
    >>> from rare_assets.storage.tables import ParquetTables
    >>> tables = ParquetTables("storage")
    >>> rows = pl.DataFrame({"doc_id": ["salt"], "text": ["Salt melts ice."], "text_hash": ["1"]})
    >>> rows = rows.with_columns(source=pl.lit("a.jsonl:1"), n_words=3)
    >>> stored = tables.write("documents", "a", rows, made_from={"file": "a.jsonl"})
    >>> tables.scan("documents", "a").select("doc_id", "title").collect().to_dicts()
    [{'doc_id': 'salt', 'title': None}]
    >>> tables.provenance("documents", "a").made_from
    {'file': 'a.jsonl'}
"""
