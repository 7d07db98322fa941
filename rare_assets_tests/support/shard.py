"""A stored shard for the checks to judge: a good row of every table, of which a test changes one."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_assets.checks.by_table import RULES
from rare_assets.checks.judgement import Judgement, StoredShard
from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents
from rare_assets.retriever.interface import TEXTS
from rare_assets.settings import SAMPLE_CORPUS
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.rows import rows

CORPUS = {
    "d1": "Cells store charge.",
    "d2": "Cells divide.",
    "d3": "Charge is conserved.",
}


class HeldCorpus:
    """A retriever resource over a dictionary: what the index holds."""

    @contextmanager
    def open(self):
        yield self

    def texts(self, doc_ids):
        held = [(doc_id, CORPUS[doc_id], None) for doc_id in doc_ids if doc_id in CORPUS]
        return pl.DataFrame(held, schema=TEXTS, orient="row")


class Stored:
    """The shard `a` of a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.tables = ParquetTables(str(folder))
        for table in RULES:
            self.write(table, {})

    def write(self, table: str, *changes: dict[str, Any], **options: Any) -> None:
        """Store a table: a good row for each of `changes`, which say what is different in it."""
        made_from = {"options": json.dumps({"num_neg": 2} | options)}
        self.tables.write(table, "a", rows(table, *changes), made_from=made_from)

    def judge(self, table: str, name: str) -> Judgement:
        """What a rule, by name, says of the shard."""
        rule = next(rule for rule in RULES[table] if rule.name == name)
        return rule.judge(self.shard(table))

    def shard(self, table: str) -> StoredShard:
        """The shard as the rules see it."""
        return StoredShard(table, "a", self.tables, HeldCorpus())  # type: ignore[arg-type]


@pytest.fixture
def stored(tmp_path):
    """A storage with one good shard of every table."""
    return Stored(tmp_path)


@pytest.fixture(scope="session")
def sample_corpus():
    """The documents of the sample corpus, all shards in one table."""
    source = CorpusSource(str(SAMPLE_CORPUS), rows_per_shard=10_000)
    return pl.concat(
        read_documents(source.read(shard), file=shard.file).rows for shard in source.shards()
    )
