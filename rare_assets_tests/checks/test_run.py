"""The checks of a table as Dagster runs them: one step a shard, each with its severity and metadata."""

import dagster as dg
import pytest

from rare_assets.assets.questions import questions as asset_of_questions
from rare_assets.checks import CHECKS
from rare_assets.checks.by_table import table_checks
from rare_assets.partitions import document_shards
from rare_assets_tests.graph import Graph
from rare_assets_tests.rows import rows

SHARD = "a.jsonl"


@pytest.fixture
def graph(tmp_path):
    """A graph whose storage holds a good shard of documents."""
    graph = Graph(tmp_path)
    graph.instance.add_dynamic_partitions(document_shards.name, [SHARD])
    graph.tables.write("documents", SHARD, rows("documents", {}))
    return graph


def materialize(graph, questions):
    """Materializes a stand-in for the asset `questions`, with that table's checks."""
    return dg.materialize(
        [questions, table_checks(asset_of_questions)],
        instance=graph.instance,
        partition_key=SHARD,
        resources={"storage": graph.storage, "retriever": graph.retriever},
        raise_on_error=False,
    )


def judge(graph, *questions):
    """Stores a shard of questions and has Dagster judge it: the run, and what each check says."""

    @dg.asset(name="questions", partitions_def=document_shards)
    def as_given() -> dg.MaterializeResult:
        graph.tables.write("questions", SHARD, rows("questions", *questions))
        return dg.MaterializeResult()

    result = materialize(graph, as_given)
    found = result.get_asset_check_evaluations()
    assert all(evaluation.partition == SHARD for evaluation in found)
    return result, {evaluation.check_name: evaluation for evaluation in found}


def test_all_checks_of_a_table_pass_in_one_step(graph):
    result, found = judge(graph, {})
    assert result.success
    assert list(found) == [check.name for check in CHECKS["questions"]]
    assert all(evaluation.passed for evaluation in found.values())
    steps = [
        event.step_key for event in result.all_events if event.event_type_value == "STEP_START"
    ]
    assert steps == ["questions", "questions_checks"]


def test_a_check_of_quality_warns_and_lets_the_run_succeed(graph):
    result, found = judge(graph, {"scenario": "The text says so."})
    assert result.success
    failed = [name for name, evaluation in found.items() if not evaluation.passed]
    assert failed == ["questions_stand_alone"]
    warned = found["questions_stand_alone"]
    assert (warned.severity, warned.blocking) == (dg.AssetCheckSeverity.WARN, False)
    assert {name: value.value for name, value in warned.metadata.items()} == {
        "referring_rate": 1.0,
        "referring": 1,
        "judged": 1,
        "threshold": 0.1,
        "examples": [
            {
                "question_id": "d1-q0",
                "question": "Why does a cell lose charge over time?",
                "scenario": "The text says so.",
            }
        ],
    }


def test_a_broken_promise_is_an_error_that_blocks(graph):
    graph.tables.write("documents", SHARD, rows("documents", {"text_hash": "h2"}))
    result, found = judge(graph, {})
    failed = [name for name, evaluation in found.items() if not evaluation.passed]
    assert failed == ["documents_as_stored"]
    broken = found["documents_as_stored"]
    assert (broken.severity, broken.blocking) == (dg.AssetCheckSeverity.ERROR, True)
    assert not result.success


def test_what_the_schema_check_found_is_told_before_another_one_fails_on_it(graph):
    @dg.asset(name="questions", partitions_def=document_shards)
    def without_scenario() -> dg.MaterializeResult:
        frame = rows("questions", {}).drop("scenario")
        graph.tables.write_file(frame, graph.tables.path("questions", SHARD))
        return dg.MaterializeResult()

    result = materialize(graph, without_scenario)
    first, *_ = result.get_asset_check_evaluations()
    assert (first.check_name, first.passed) == ("schema_holds", False)
    assert first.metadata["missing_columns"].value == ["scenario"]
    assert not result.success
