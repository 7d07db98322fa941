"""What a run says of a table: the same keys whatever happened, and few bytes whatever the texts."""

import json

import dagster as dg
import pytest

from rare_assets.operators.templates import load_templates
from rare_assets.schemas import TABLES
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failure_text, metadata_values

MOST_BYTES = 20_000
# Of the event log's JSON a letter takes 1 byte, 3, 6 or 12.
TEXTS = ("Charge is conserved and so on ", "*_[](#)|<>`~ ", "電池は電荷を蓄える ", "🔋⚡🔌💡cell ")


def write(path, texts):
    path.write_text("".join(f"{json.dumps(text)}\n" for text in texts))


def answer(text):
    """Long answers, of the words that the test's documents are made of."""

    def say(body):
        def long(times):
            # One text again and again is no answer.
            return "".join(f"{text}{number} " for number in range(times))

        if "response_format" in body:
            return json.dumps({"scenario": f"S {long(20)}", "question": f"Why {long(20)}?"})
        return f"{long(500)}<answer>{long(100)}</answer>"

    return say


def events(graph):
    """The stored materializations, by asset."""
    return {
        asset: graph.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records[0]
        for asset in (*TABLES, "corpus_index")
    }


@pytest.mark.parametrize("text", TEXTS)
def test_a_materialization_takes_less_than_20_kb_however_long_the_texts(
    only_key_set, tmp_path, text
):
    with FakeEndpoint(answer=answer(text)) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        rows = [
            {"id": f"{text}{number}" * 20, "title": text * 50, "text": f"{text * 500} {number}"}
            for number in range(8)
        ]
        # The same texts in another shard: duplicates are shown, too.
        write(graph.source / "a.jsonl", rows)
        write(graph.source / "b.jsonl", [{**row, "id": f"{row['id']}b"} for row in rows])
        results = graph.make_all(questions={"min_words": 1})
    assert all(result.success for result in results), failure_text(results[-1])
    sizes = {
        asset: len(dg.serialize_value(record.event_log_entry).encode())
        for asset, record in events(graph).items()
    }
    assert max(sizes.values()) < MOST_BYTES, sizes


def test_the_keys_are_the_same_with_and_without_rejects_prices_and_new_answers(
    only_key_set, tmp_path
):
    def write_source(graph):
        rows = [{"id": str(n), "text": f"Cells number {n} store charge for long"} for n in range(6)]
        write(graph.source / "a.jsonl", [*rows, {"text": ""}, rows[0]])

    def keys(name, **teacher):
        with FakeEndpoint(**teacher.pop("endpoint", {})) as endpoint:
            graph = Graph(tmp_path / name, endpoint.url, **teacher)
            write_source(graph)
            options = {
                "questions": {"min_words": 1, "max_attempts": 1},
                "reasoning": {"max_attempts": 1},
            }
            results = graph.make_all(**options)
            assert all(result.success for result in results), failure_text(results[-1])
            found = events(graph)
        assert graph.rejects("documents").height == 2
        assert graph.rejects("questions").is_empty() == (name != "rejects")
        return {
            asset: [
                *record.asset_materialization.metadata,
                *metadata_values(record.asset_materialization.metadata),
            ]
            for asset, record in found.items()
        }

    plain = keys("plain")
    assert plain == keys("priced", model="gpt-4o-mini")
    assert plain == keys("rejects", endpoint={"shares": {"refusal": 0.4}})
    for key in ("rejects_by_reason", "chart", "example", "preview", "seconds"):
        assert all(key in plain[asset] for asset in TABLES)


def test_a_table_has_few_keys_a_number_once_and_says_what_it_was_made_with(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        rows = [{"id": str(n), "text": f"Cells number {n} store charge for long"} for n in range(6)]
        write(graph.source / "a.jsonl", rows)
        results = graph.make_all(questions={"min_words": 1, "max_attempts": 2})
    assert all(result.success for result in results), failure_text(results[-1])
    for asset, record in events(graph).items():
        metadata = dict(record.asset_materialization.metadata)
        # The rows once more by Dagster's own name, which its catalog shows beside the asset.
        if asset in ("documents", "questions", "hard_negatives", "reasoning"):
            assert metadata.pop("dagster/partition_row_count") == metadata["rows"]
        plotted = [key for key, value in metadata.items() if isinstance(value.value, int | float)]
        assert len(metadata) <= 18, asset
        assert len(plotted) <= 10, asset
    made = events(graph)["questions"].asset_materialization.metadata["made_with"].value
    prompt = load_templates(None).doc2query.fingerprint
    assert (made["model"], made["prompt"]) == ("fake-teacher", prompt)
    assert (made["options"]["min_words"], made["options"]["max_attempts"]) == (1, 2)
    run = graph.instance.get_run_by_id(results[-1].run_id)
    assert run.tags["rare_assets/model"] == "fake-teacher"
    assert run.tags["rare_assets/prompt/questions"] == prompt


def test_metadata_is_in_the_event_of_the_materialization_alone(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        rows = [{"id": str(n), "text": f"Cells number {n} store charge for long"} for n in range(6)]
        write(graph.source / "a.jsonl", rows)
        results = graph.make_all(questions={"min_words": 1})
    assert all(result.success for result in results), failure_text(results[-1])
    for result in results:
        entries = graph.instance.all_logs(result.run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        outputs = [event for event in events if event.is_successful_output]
        assert outputs
        assert all(not event.step_output_data.metadata for event in outputs)
        made = [event for event in events if event.is_step_materialization]
        assert all(event.materialization.metadata for event in made)
