"""The checks of a table as Dagster runs them: one step a shard, each with its severity and metadata."""

import dagster as dg
import pytest

from rare_assets.checks.asset_checks import table_checks
from rare_assets.checks.by_table import CHECKS
from rare_assets.resources.dataset import UNNAMED
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.rows import rejects, replace_rows, rows

SHARD = "a.jsonl"


@pytest.fixture
def graph(tmp_path):
    """A graph whose storage holds a good shard of documents."""
    graph = Graph(tmp_path)
    graph.instance.add_dynamic_partitions(UNNAMED.partitions_name, [SHARD])
    graph.tables.write("documents", SHARD, rows("documents", {}))
    return graph


def materialize(graph, questions):
    """Materializes a stand-in for the asset `questions`, with that table's checks."""
    return dg.materialize(
        [questions, table_checks("questions", UNNAMED)],
        instance=graph.instance,
        partition_key=SHARD,
        resources={"storage": graph.storage, "retriever": graph.retriever},
        raise_on_error=False,
    )


def judge(graph, *questions):
    """Stores a shard of questions and has Dagster judge it: the run, and what each check says."""

    @dg.asset(name="questions", partitions_def=UNNAMED.partitions)
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
    assert failed == ["quality"]
    warned = found["quality"]
    assert (warned.severity, warned.blocking) == (dg.AssetCheckSeverity.WARN, False)
    assert warned.description.startswith(
        "questions_stand_alone does not hold (referring_rate 1, referring 1, judged 1). Read the examples"
    )
    shown = warned.metadata
    assert shown["failing"].value == "questions_stand_alone"
    assert shown["referring_rate"].value == 1.0
    assert shown["quoting_rate"].value == 0.0
    why = shown["questions_stand_alone"].value
    assert "**question_id** d1\\-q0 **question** Why does a cell lose charge" in why
    assert "**scenario** The text says so" in why
    (rule,) = (r.data for r in shown["rules"].records if r.data["rule"] == "questions_stand_alone")
    assert rule == {
        "rule": "questions_stand_alone",
        "holds": "NO",
        "measured": "referring_rate 1, referring 1, judged 1",
        "threshold": 0.1,
        "setting": "RARE_MAX_REFERRING_RATE",
    }


def test_a_broken_promise_is_an_error_that_blocks(graph):
    graph.tables.write("documents", SHARD, rows("documents", {"text_hash": "h2"}))
    result, found = judge(graph, {})
    failed = [name for name, evaluation in found.items() if not evaluation.passed]
    assert failed == ["contract"]
    broken = found["contract"]
    assert (broken.severity, broken.blocking) == (dg.AssetCheckSeverity.ERROR, True)
    assert broken.metadata["failing"].value == "documents_as_stored"
    assert not result.success
    said = failure_text(result)
    assert said == f"questions: {broken.description}"
    assert said.startswith("questions: documents_as_stored does not hold (differing 1, by_column")


def test_what_the_schema_check_found_is_told_before_another_one_fails_on_it(graph):
    @dg.asset(name="questions", partitions_def=UNNAMED.partitions)
    def without_scenario() -> dg.MaterializeResult:
        frame = rows("questions", {}).drop("scenario")
        graph.tables.write("questions", SHARD, rows("questions", {}))
        replace_rows(graph.tables, "questions", SHARD, frame)
        graph.tables.rejects_path("questions", SHARD).unlink()
        return dg.MaterializeResult()

    result = materialize(graph, without_scenario)
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    # What can't be judged without that column, and without a file of rejects, is left out.
    assert list(found) == ["contract"]
    assert not found["contract"].passed
    assert found["contract"].metadata["failing"].value == "schema_holds"
    assert "missing_columns scenario" in failure_text(result)


def judge_alone(graph, **tables):
    """Runs all checks of questions without a partition, as "Execute all" does."""
    job = dg.define_asset_job(
        "checks_alone", dg.AssetSelection.checks_for_assets(dg.AssetKey("questions"))
    )
    defs = dg.Definitions.merge(graph.defs, dg.Definitions(jobs=[job]))
    result = defs.resolve_job_def("checks_alone").execute_in_process(
        instance=graph.instance, raise_on_error=False
    )
    found = result.get_asset_check_evaluations()
    return result, {each.check_name: each for each in found if each.partition is None}


def latest(graph, check, shard):
    """The last evaluation of a check of one shard, as the UI has it."""
    key = dg.AssetCheckKey(dg.AssetKey("questions"), check)
    history = graph.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return next(
        record.event.dagster_event.event_specific_data
        for record in history
        if record.partition == shard
    )


def test_without_a_shard_every_stored_one_is_judged_and_reported_with_its_partition(
    graph, monkeypatch
):
    shards = ("a.jsonl", "b.jsonl", "c.jsonl", "damaged.jsonl", "never-made.jsonl")
    graph.instance.add_dynamic_partitions(UNNAMED.partitions_name, list(shards))
    for shard in shards[:4]:
        graph.tables.write("documents", shard, rows("documents", {}))
        graph.tables.write("questions", shard, rows("questions", {}))
        # Dagster looks the shard up that a check is about.
        graph.instance.report_runless_asset_event(
            dg.AssetMaterialization("questions", partition=shard)
        )
    graph.tables.write("questions", "b.jsonl", rows("questions", {}), rejects("questions", {}))
    graph.tables.write("questions", "c.jsonl", rows("questions", {}, {}))

    damaged = graph.tables.path("questions", "damaged.jsonl")
    damaged.write_bytes(damaged.read_bytes()[:-100])

    result, found = judge_alone(graph)
    assert found["rejects"].description == "3 shards judged, 1 fail: b.jsonl."
    assert found["rejects"].severity is dg.AssetCheckSeverity.WARN
    assert found["contract"].severity is dg.AssetCheckSeverity.ERROR
    assert found["contract"].metadata["failing"].value == "c.jsonl\ndamaged.jsonl"
    assert found["contract"].metadata["shards_judged"].value == 4
    assert found["quality"].metadata["failing"].value == "c.jsonl"
    assert failure_text(result) == (
        "questions, contract: 4 shards judged, 2 fail: c.jsonl, damaged.jsonl."
    )
    assert [latest(graph, "contract", shard).passed for shard in shards[:3]] == [True, True, False]
    assert latest(graph, "contract", "c.jsonl").metadata["failing"].value == (
        "schema_holds, question_ids_unique"
    )
    assert [latest(graph, "rejects", shard).passed for shard in shards[:3]] == [True, False, True]

    # New thresholds, applied to everything at no cost.
    monkeypatch.setenv("RARE_MAX_REJECT_RATE", "0.5")
    _, found = judge_alone(graph)
    assert found["rejects"].passed
    assert latest(graph, "rejects", "b.jsonl").passed
