"""Source files to rows: formats, extraction of text, passages, packing, scan, ids, languages.

Example:
    >>> from pathlib import Path
    >>> from rare_assets.corpus.source import CorpusSource
    >>> size = Path("notes.md").write_text("# Ice\\n\\nSalt lowers the freezing point of water.")
    >>> source = CorpusSource("notes.md", rows_per_shard=1000)
    >>> (shard,) = source.shards()
    >>> shard.key, shard.n_rows
    ('notes.md', 1)
    >>> [row.value["text"] for row in source.read(shard)]
    ['# Ice\\n\\nSalt lowers the freezing point of water.']
"""
