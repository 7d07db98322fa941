"""The IO manager: what assets hand over is what others load, by partition, whatever the key."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from rare_assets.resources.configurable import Storage
from rare_assets.resources.io_manager import ParquetIOManager, ShardTable
from rare_assets_tests.support.ephemeral import ephemeral_instance
from rare_assets_tests.support.rows import rejects, rows

shards = dg.DynamicPartitionsDefinition(name="io_shards")
ODD_KEYS = ["a", "..", "../evil", "/etc", "a/b", "c*[1]", ".hidden", "blank and ü", "50%", "k=v"]


@dg.asset(name="documents", partitions_def=shards)
def made(context: dg.AssetExecutionContext) -> ShardTable:
    key = context.partition_key
    table = rows("documents", {"text": key}).lazy()
    return ShardTable(table, rejects("documents", {"detail": key}), {"key": key})


@dg.asset(name="questions", partitions_def=shards)
def bare_frame() -> pl.DataFrame:
    return rows("questions", {}, {"question_id": "d2-q0"})


@dg.asset(name="questions", partitions_def=shards)
def frame_without_a_column() -> pl.DataFrame:
    return rows("questions", {}).drop("scenario")


@dg.asset(partitions_def=shards, io_manager_key="memory")
def lazy_text(documents: pl.LazyFrame) -> str:
    assert isinstance(documents, pl.LazyFrame)
    return documents.collect()["text"].item()


@dg.asset(partitions_def=shards, io_manager_key="memory")
def eager_text(documents: pl.DataFrame) -> str:
    assert isinstance(documents, pl.DataFrame)
    return documents["text"].item()


@dg.asset(
    ins={"documents": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())},
    io_manager_key="memory",
)
def all_texts(documents: dict[str, pl.LazyFrame]) -> dict[str, str]:
    return {key: frame.collect()["text"].item() for key, frame in documents.items()}


class Graph:
    def __init__(self, folder):
        (folder / "instance").mkdir()
        self.instance = ephemeral_instance(folder / "instance")
        self.instance.add_dynamic_partitions("io_shards", ODD_KEYS)
        self.storage = Storage(root=str(folder / "storage"))
        self.tables = self.storage.tables()

    def materialize(self, asset, key=None):
        """Materialize one asset; its inputs come from storage alone."""
        return dg.materialize(
            [asset] if asset in (made, bare_frame, frame_without_a_column) else [asset, made],
            selection=[asset],
            instance=self.instance,
            partition_key=key,
            resources={
                "io_manager": ParquetIOManager(storage=self.storage),
                "memory": dg.mem_io_manager,
            },
            raise_on_error=False,
        )


@pytest.fixture
def graph(nothing_set, tmp_path):
    return Graph(tmp_path)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_what_is_handed_over_is_loaded_under_any_key(graph, key):
    assert graph.materialize(made, key).success
    for asset in (lazy_text, eager_text):
        result = graph.materialize(asset, key)
        assert result.success
        assert result.output_for_node(asset.node_def.name) == key
    assert graph.tables.scan_rejects("documents", key).collect()["detail"].to_list() == [key]
    assert graph.tables.provenance("documents", key).made_from == {"key": key}


def test_what_events_say_is_no_line_of_the_log_as_well(graph):
    run_ids = [graph.materialize(asset, "a").run_id for asset in (made, lazy_text)]
    logs = [entry for run_id in run_ids for entry in graph.instance.all_logs(run_id)]
    of_input = {dg.DagsterEventType.LOADED_INPUT, dg.DagsterEventType.HANDLED_OUTPUT}
    told = [entry.dagster_event.event_type for entry in logs if entry.dagster_event]
    assert of_input <= set(told)
    assert [entry.user_message for entry in logs if not entry.dagster_event] == []


def test_no_key_leaves_the_storage_or_meets_another(graph, tmp_path):
    for key in ODD_KEYS:
        assert graph.materialize(made, key).success
    written = list(tmp_path.rglob("*.parquet"))
    assert {path.parent for path in written} == {
        Path(graph.tables.root / "documents"),
        Path(graph.tables.root / "documents_rejects"),
    }
    assert len(written) == 2 * len(ODD_KEYS)


def test_all_partitions_load_as_a_dictionary(graph):
    for key in ODD_KEYS:
        assert graph.materialize(made, key).success
    result = graph.materialize(all_texts)
    assert result.success
    assert result.output_for_node("all_texts") == {key: key for key in ODD_KEYS}


def test_a_partition_that_is_missing_is_named_with_the_remedy(graph):
    result = graph.materialize(lazy_text, "a")
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    said = str(failure.step_failure_data.error)
    assert str(graph.tables.path("documents", "a")) in said
    assert "materialize documents for shard 'a' first" in said


def test_a_bare_frame_is_stored_with_no_rejects(graph):
    assert graph.materialize(bare_frame, "a").success
    assert graph.tables.scan("questions", "a").collect().height == 2
    assert graph.tables.scan_rejects("questions", "a").collect().is_empty()


def test_rows_without_a_column_of_the_table_leave_what_was_stored(graph):
    assert graph.materialize(bare_frame, "a").success
    result = graph.materialize(frame_without_a_column, "a")
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "scenario" in str(failure.step_failure_data.error)
    assert graph.tables.scan("questions", "a").collect().height == 2
