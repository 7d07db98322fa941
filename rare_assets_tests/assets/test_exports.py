"""The exports in the graph: one selection, a shard's files by a run, the card, and their checks."""

import json

import polars as pl
import pytest

from rare_assets.checks.exports import broken_rows
from rare_assets.exports.export import Export
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions
from rare_assets.resources.dataset import UNNAMED
from rare_assets.stages.exports import CARD, GROUP, export_keys
from rare_assets_tests.exports.corpus import document, store
from rare_assets_tests.support.graph import Graph

OPTIONS = {"validation_share": 0.2, "test_share": 0.2}

KEYS, CARD_KEY = export_keys(UNNAMED), UNNAMED.key(*CARD)


@pytest.fixture
def graph(tmp_path):
    graph = Graph(tmp_path)
    shards = {
        "a.jsonl": [document(n) for n in range(20)],
        "b.jsonl": [document(n) for n in range(20, 40)],
    }
    store(graph.tables, shards)
    graph.instance.add_dynamic_partitions(UNNAMED.partitions_name, list(shards))
    return graph


def materialize(graph, keys, shard=None, op="exports", **options):
    job = graph.defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=graph.instance,
        partition_key=shard,
        asset_selection=list(keys),
        run_config={
            "ops": {op: {"config": {**OPTIONS, **options}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def checks(result):
    return {
        (e.asset_key.to_user_string(), e.check_name): e.passed
        for e in result.get_asset_check_evaluations()
    }


def test_one_group_holds_them_all_and_no_job_does(graph):
    specs = {spec.key: spec for spec in graph.defs.resolve_all_asset_specs()}
    assert {key for key, spec in specs.items() if spec.group_name == GROUP} == {
        *KEYS.values(),
        CARD_KEY,
    }
    for job in graph.defs.jobs:
        selected = job.selection.resolve(graph.defs.resolve_asset_graph())
        assert not selected & {*KEYS.values(), CARD_KEY}, job.name


def test_a_run_writes_the_chosen_formats_of_its_shard(graph):
    chosen = [KEYS["messages"], KEYS["sentence-transformers"]]
    result = materialize(graph, chosen, "a.jsonl", num_neg=2)
    assert result.success
    folder = graph.tables.root / "exports"
    assert sorted(path.name for path in folder.iterdir()) == [
        "data",
        "manifest",
        "messages",
        "sentence-transformers",
        "splits.parquet",
    ]
    frame = pl.read_parquet(str(folder / "sentence-transformers/train/a.jsonl.parquet"))
    assert frame.columns == ["anchor", "positive", "negative_1", "negative_2"]
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == chosen[0]]
    metadata = {k: v.value for k, v in event.materialization.metadata.items()}
    assert (
        metadata["rows"]
        == sum(metadata[f"rows/{s}"] for s in ("train", "validation", "test"))
        == 20
    )
    assert "filters" in metadata
    assert set(checks(result).values()) == {True}


def test_the_card_completes_the_folder_and_its_check_proves_the_splits(graph):
    for shard in ("a.jsonl", "b.jsonl"):
        assert materialize(graph, list(KEYS.values()), shard).success
    result = materialize(graph, [CARD_KEY], op="exports__data_card")
    assert result.success
    assert checks(result) == {("exports/data_card", "splits_apart"): True}
    (event,) = result.asset_materializations_for_node("exports__data_card")
    table = [record.data for record in event.metadata["formats"].records]
    assert [row["format"] for row in table] == list(FORMATS)
    counted = sum(row[split] for row in table for split in ("train", "validation", "test"))
    assert counted == event.metadata["rows"].value > 0
    folder = graph.tables.root / "exports"
    assert (folder / "README.md").exists()
    assert (folder / "beir/train/qrels/test.tsv").exists()
    # Other options for one shard: the same n in all rows holds no more, and the check says so.
    assert materialize(graph, list(KEYS.values()), "b.jsonl", num_neg=2).success
    result = materialize(graph, [CARD_KEY], op="exports__data_card")
    assert checks(result) == {("exports/data_card", "splits_apart"): False}


def test_a_check_reads_the_files_as_they_are(graph):
    key = KEYS["flag-embedding"]
    assert materialize(graph, [key], "a.jsonl").success
    path = graph.tables.root / "exports/flag-embedding/train/a.jsonl.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "neg": []}), *others]))
    with Export(graph.tables, None, ExportOptions()) as export:
        written = export.written("flag-embedding", "a.jsonl")
        broken = broken_rows(export, written)
    assert broken == {"blank text": 1, "scores do not go with texts": 1}


def test_what_can_not_be_done_fails_with_what_to_do(graph):
    result = materialize(graph, [KEYS["verl"]], "a.jsonl", exclude=["/nowhere.jsonl"])
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert "/nowhere.jsonl is not there" in failure.step_failure_data.user_failure_data.description
