"""The RARE steps as plain functions over Polars frames; they know no Dagster.

Example:
    >>> import polars as pl
    >>> from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
    >>> from rare_assets.retriever import Bm25, EmbeddedRetriever, ShardContent
    >>> texts = ["Salt lowers the freezing point of water.", "Pure water has a freezing point of 0."]
    >>> documents = pl.DataFrame({"doc_id": ["salt", "water"], "text": texts})
    >>> documents = documents.with_columns(text_hash="doc_id")
    >>> index = EmbeddedRetriever("index")
    >>> report = index.sync({"a": ShardContent("v1", 2)}, lambda shard: documents.lazy(), Bm25())
    >>> question = {"question_id": "q", "question": "Why does salt lower the freezing point of water?"}
    >>> asked = pl.DataFrame({**question, "scenario": "", "doc_id": "salt", "text_hash": "salt"})
    >>> mined = bm25_hard_neg(asked, index, num_neg=1)
    >>> mined.produced.rows["hard_negatives"].to_list()
    [['Pure water has a freezing point of 0.']]
"""
