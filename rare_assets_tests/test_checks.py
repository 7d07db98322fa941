"""Every check passes on a good shard and fails, with the measured value, where its property does not hold."""

import json
from contextlib import contextmanager

import dagster as dg
import polars as pl
import pytest

from rare_assets.checks import CHECKS, StoredShard, shards_behind
from rare_assets.resources.retriever.interface import ShardContent
from rare_assets.resources.tables import ParquetTables
from rare_assets_tests.rows import rejects, rows

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
        held = [(doc_id, CORPUS[doc_id]) for doc_id in doc_ids if doc_id in CORPUS]
        return pl.DataFrame(held, schema={"doc_id": pl.String, "text": pl.String}, orient="row")


@pytest.fixture
def tables(tmp_path):
    """A storage with one good shard `a` of every table."""
    tables = ParquetTables(str(tmp_path))
    for table in CHECKS:
        tables.write(table, "a", rows(table, {}), made_from={"options": '{"num_neg": 2}'})
    return tables


def judge(tables, table, name):
    check = next(check for check in CHECKS[table] if check.name == name)
    return check.judge(StoredShard(table, "a", tables, HeldCorpus()))


ALL_CHECKS = [(table, check.name) for table, checks in CHECKS.items() for check in checks]


@pytest.mark.parametrize(("table", "name"), ALL_CHECKS)
def test_a_good_shard_passes(tables, table, name):
    judgement = judge(tables, table, name)
    assert judgement.passed, judgement.metadata


@pytest.mark.parametrize(("table", "name"), ALL_CHECKS)
def test_an_empty_shard_passes(tables, table, name):
    for each in CHECKS:
        tables.write(each, "a", rows(each), made_from={"options": '{"num_neg": 2}'})
    assert judge(tables, table, name).passed


# table, check, what is stored instead of the good row(s), and a part of the metadata to expect
BROKEN = [
    ("documents", "schema_holds", [{"n_words": 0}], {"failed_rows": 1}),
    ("questions", "schema_holds", [{"attempts": 0}], {"failures_by_rule": {"attempts|min": 1}}),
    ("hard_negatives", "schema_holds", [{"gold_rank": 0}], {"failed_rows": 1}),
    ("reasoning", "schema_holds", [{"gold_position": -1}], {"failed_rows": 1}),
    ("documents", "doc_ids_unique", [{}, {"text_hash": "h2"}], {"repeated": 1, "examples": ["d1"]}),
    ("documents", "text_not_empty", [{"text": " \n"}], {"blank": {"text": 1}}),
    ("questions", "question_ids_unique", [{}, {}], {"repeated": 1}),
    (
        "questions",
        "question_and_scenario_present",
        [{"scenario": " "}],
        {"blank": {"question": 0, "scenario": 1}},
    ),
    ("questions", "every_document_accounted_for", [], {"lost": 1, "examples": ["d1"]}),
    (
        "hard_negatives",
        "gold_not_in_negatives",
        [{"negatives": [{"doc_id": "d1", "score": 1.0, "rank": 1}], "hard_negatives": ["x"]}],
        {"leaks": 1, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "gold_not_in_negatives",
        [{"hard_negatives": ["Cells divide.", "Cells store charge."]}],
        {"leaks": 1},
    ),
    ("hard_negatives", "negatives_distinct", [{"hard_negatives": ["x", "x"]}], {"repeated": 1}),
    (
        "hard_negatives",
        "negatives_exist_in_corpus",
        [
            {
                "hard_negatives": ["Cells divide.", "Nobody wrote this."],
                "negatives": [
                    {"doc_id": "d2", "score": 2.0, "rank": 2},
                    {"doc_id": "d9", "score": 1.0, "rank": 3},
                ],
            }
        ],
        {"negatives": 2, "unknown": 1, "examples": ["d9"]},
    ),
    (
        "hard_negatives",
        "negatives_exist_in_corpus",
        [{"hard_negatives": ["Changed since.", "Charge is conserved."]}],
        {"unknown": 1, "examples": ["d2"]},
    ),
    ("hard_negatives", "every_question_accounted_for", [], {"lost": 1}),
    (
        "hard_negatives",
        "num_negatives_found",
        [
            {},
            {
                "question_id": "d2-q0",
                "hard_negatives": ["x"],
                "negatives": [{"doc_id": "d2", "score": 1.0, "rank": 1}],
            },
        ],
        {"share_with_fewer": 0.5, "questions_by_number_found": {"1": 1, "2": 1}},
    ),
    ("reasoning", "reasoning_present", [{"reasoning": ""}], {"blank": {"reasoning": 1}}),
    ("reasoning", "gold_position_points_at_gold", [{"gold_position": 0}], {"wrong": 1}),
    ("reasoning", "gold_position_points_at_gold", [{"gold_position": 7}], {"wrong": 1}),
    ("reasoning", "every_question_accounted_for", [], {"lost": 1}),
]


@pytest.mark.parametrize(("table", "name", "stored", "measured"), BROKEN)
def test_a_broken_shard_fails(tables, table, name, stored, measured):
    made_from = {"options": json.dumps({"num_neg": 2})}
    tables.write(table, "a", rows(table, *stored), made_from=made_from)
    judgement = judge(tables, table, name)
    assert not judgement.passed
    assert measured.items() <= judgement.metadata.items(), judgement.metadata


@pytest.mark.parametrize("table", list(CHECKS))
def test_many_rejects_fail_and_most_rejects_block(tables, table):
    several = [{"question_id": f"d{i}-q0"} for i in range(4)]
    if table == "documents":
        several = [{"doc_id": f"d{i}"} for i in range(4)]
    tables.write(table, "a", rows(table, *several), rejects(table, {}))
    warned = judge(tables, table, "reject_rate_below_threshold")
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert (warned.metadata["reject_rate"], warned.metadata["threshold"]) == (0.2, 0.1)
    tables.write(table, "a", rows(table, {}), rejects(table, *[{}] * 4))
    assert (
        judge(tables, table, "reject_rate_below_threshold").severity is dg.AssetCheckSeverity.WARN
    )
    tables.write(table, "a", rows(table, {}), rejects(table, *[{}] * 5))
    blocked = judge(tables, table, "reject_rate_below_threshold")
    assert not blocked.passed
    assert blocked.severity is dg.AssetCheckSeverity.ERROR


def test_reject_thresholds_are_settings(tables, monkeypatch):
    tables.write("questions", "a", rows("questions", {}), rejects("questions", {}))
    monkeypatch.setenv("RARE_MAX_REJECT_RATE", "0.5")
    assert judge(tables, "questions", "reject_rate_below_threshold").passed
    monkeypatch.setenv("RARE_MAX_REJECT_RATE", "0.4")
    assert not judge(tables, "questions", "reject_rate_below_threshold").passed


def test_what_is_left_out_on_purpose_is_no_reject(tables):
    left_out = rejects("questions", {"reason": "too_short"}, {"reason": "wrong_answer_retried"})
    tables.write("questions", "a", rows("questions", {}), left_out)
    judgement = judge(tables, "questions", "reject_rate_below_threshold")
    assert judgement.passed
    assert judgement.metadata["reject_rate"] == 0
    assert judgement.metadata["reasons"] == {"too_short": 1, "wrong_answer_retried": 1}


def test_a_file_with_other_columns_fails_the_schema_check(tables):
    frame = rows("documents", {}).drop("title").with_columns(n_words=pl.lit("three"))
    tables.write_file(frame, tables.path("documents", "a"))
    judgement = judge(tables, "documents", "schema_holds")
    assert not judgement.passed
    assert judgement.metadata == {
        "missing_columns": ["title"],
        "wrong_types": {"n_words": "String"},
    }


def test_shards_behind_are_those_whose_content_the_index_lacks():
    wanted = {"a": ShardContent("1", 1), "b": ShardContent("2", 1), "c": ShardContent("3", 1)}
    assert shards_behind(wanted, {"a": "1", "b": "old", "gone": "9"}) == (["b", "c"], ["gone"])


def test_checks_that_guard_money_are_blocking():
    not_blocking = {
        check.name for checks in CHECKS.values() for check in checks if not check.blocking
    }
    assert not_blocking == {"num_negatives_found"}
