"""A small stored corpus, and exports of it."""

import pytest

from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.options import ExportOptions
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.exports.corpus import document, store

SHARES = {"validation_share": 0.2, "test_share": 0.2}


def make(tables, out=None, formats=(), **options):
    """Export everything that is stale. Returns the shards and formats that were written."""
    with Export(tables, out, ExportOptions(**{**SHARES, **options}), formats) as export:
        export.prepare()
        written = [
            (shard, each.name)
            for shard in export.shards
            if (stale := export.stale(shard))
            for each in stale
            if export.write(shard, [each])
        ]
        complete(export)
    return written


@pytest.fixture
def tables(tmp_path):
    """Two shards of 20 documents each, every other with a gold answer."""
    tables = ParquetTables(str(tmp_path / "storage"))
    store(
        tables,
        {
            "a.jsonl": [document(n) for n in range(20)],
            "b.jsonl": [document(n) for n in range(20, 40)],
        },
    )
    return tables


@pytest.fixture
def out(tmp_path):
    """Where exports go."""
    return tmp_path / "out"
