"""The state of stored shards, from their tables alone."""

import pytest

from rare_assets.command.status import made_nothing
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.rows import rejects, rows

DOCUMENT = {"doc_id": "p1", "text": "a passage", "n_words": 2}
LEFT_OUT = {"question_id": "p1-q0", "doc_id": "p1", "reason": "too_short"}


@pytest.fixture
def tables(tmp_path):
    tables = ParquetTables(str(tmp_path))
    tables.write("documents", "a", rows("documents", DOCUMENT))
    return tables


def test_a_shard_of_which_every_answer_was_rejected_made_nothing(tables):
    unusable = [{**LEFT_OUT, "question_id": f"p{n}-q0", "reason": "not_json"} for n in range(3)]
    empty = {**LEFT_OUT, "reason": "empty"}
    tables.write("questions", "a", rows("questions"), rejects("questions", *unusable, empty))
    said = made_nothing(tables, "a")
    assert "questions has no row: all of its 4 rows are rejects (3 not_json, 1 empty)" in said
    assert str(tables.rejects_path("questions", "a")) in said


def test_a_shard_with_rows_or_with_nothing_to_make_them_from_is_none_that_made_nothing(tables):
    assert made_nothing(tables, "a") is None
    tables.write("questions", "a", rows("questions"), rejects("questions", LEFT_OUT))
    assert made_nothing(tables, "a") is None
    tables.write("documents", "empty", rows("documents"))
    assert made_nothing(tables, "empty") is None
    assert made_nothing(tables, "never made") is None
