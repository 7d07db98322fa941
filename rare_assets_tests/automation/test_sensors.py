"""The sensors: which runs a new or changed file gets, what is done with deleted ones, what the UI is shown."""

import shutil

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from rare_assets.automation import sensors
from rare_assets.corpus.scan import known_shards
from rare_assets.definitions import defs
from rare_assets.operators.read_documents import read_documents
from rare_assets.resources.configurable import Corpus, Storage
from rare_assets.stages import source_states
from rare_assets.stages.documents import made_from
from rare_assets_tests.support.graph import Graph, metadata
from rare_assets_tests.support.passages import write_jsonl

SENSORS = {sensor.name: sensor for sensor in defs.sensors}
new_shards, watch_corpus = SENSORS["new_shards"], SENSORS["watch_corpus"]
index_follows_documents = SENSORS["index_follows_documents"]


@pytest.fixture
def graph(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    return graph


class Ticks:
    """Evaluates a sensor, and does what the daemon does with what it returns."""

    def __init__(self, graph, sensor=new_shards):
        self.graph = graph
        self.sensor = sensor
        self.cursor = None

    def __call__(self, *, daemon_dies=False, **corpus):
        graph = self.graph
        context = dg.build_sensor_context(
            instance=graph.instance, definitions=graph.defs, cursor=self.cursor
        )
        source = Corpus(**{"url": graph.corpus.url, **corpus})
        result = self.sensor(context, corpus=source, storage=graph.storage)
        if isinstance(result, dg.SensorResult) and not daemon_dies:
            self.cursor = result.cursor
            for request in result.dynamic_partitions_requests:
                if isinstance(request, dg.AddDynamicPartitionsRequest):
                    graph.instance.add_dynamic_partitions(
                        request.partitions_def_name, list(request.partition_keys)
                    )
                else:
                    for key in request.partition_keys:
                        graph.instance.delete_dynamic_partition(request.partitions_def_name, key)
        return result


@pytest.fixture
def tick(graph):
    return Ticks(graph)


def requested(result):
    return [request.partition_key for request in result.run_requests]


def skipped(result):
    """Why a tick requested nothing."""
    assert not result.run_requests
    return result.skip_reason.skip_message


def test_it_ships_stopped_since_it_costs_money():
    assert new_shards.default_status is dg.DefaultSensorStatus.STOPPED
    assert "Costs money" in new_shards.description


def test_new_files_are_registered_and_get_a_run_each(graph, tick):
    assert requested(tick()) == ["a.jsonl", "b.jsonl"]
    assert graph.shards == ["a.jsonl", "b.jsonl"]


def test_a_tick_without_news_skips_and_says_so(tick):
    tick()
    assert "2 shards" in skipped(tick())


def test_a_changed_file_gets_one_run_and_each_version_a_key_of_its_own(graph, tick):
    first = {request.partition_key: request.run_key for request in tick().run_requests}
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    (request,) = tick().run_requests
    assert request.partition_key == "b.jsonl"
    assert request.run_key != first["b.jsonl"]
    skipped(tick())


def test_a_tick_that_the_daemon_could_not_finish_is_repeated(graph, tick):
    tick()
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    lost = tick(daemon_dies=True)
    again = tick()
    assert requested(again) == ["b.jsonl"]
    assert [each.run_key for each in again.run_requests] == [
        each.run_key for each in lost.run_requests
    ]
    skipped(tick())
    # Files of what was handled don't add up.
    folder = graph.tables.root / "corpus_files" / "requested"
    assert len(list(folder.iterdir())) <= 2


def test_what_the_command_or_the_ui_has_read_is_not_requested(graph, tick):
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    assert requested(tick()) == ["b.jsonl"]
    write_jsonl(graph.source / "a.jsonl", range(2))
    assert graph.make("documents_job", "a.jsonl").success
    skipped(tick())


def test_many_files_are_requested_a_few_at_a_tick(graph, tick, monkeypatch):
    monkeypatch.setattr(sensors, "RUNS_PER_TICK", 2)
    monkeypatch.setattr(sensors, "LOOKS_PER_TICK", 3)
    for name in "cdefg":
        write_jsonl(graph.source / f"{name}.jsonl", range(1))
    graph.register()
    for name in "abc":
        assert graph.make("documents_job", f"{name}.jsonl").success
    assert "4 shards are left" in skipped(tick())
    assert requested(tick()) == ["d.jsonl", "e.jsonl"]
    assert requested(tick()) == ["f.jsonl", "g.jsonl"]
    assert "7 shards" in skipped(tick())


def test_a_deleted_file_is_told_and_nothing_is_removed(graph, tick):
    tick()
    assert graph.make("documents_job", "b.jsonl").success
    (graph.source / "b.jsonl").unlink()
    said = skipped(tick())
    assert "b.jsonl" in said
    assert "RARE_REMOVE_DELETED_SHARDS" in said
    assert graph.shards == ["a.jsonl", "b.jsonl"]
    assert graph.tables.exists("documents", "b.jsonl")


def test_a_deleted_file_takes_its_shard_along_where_that_is_asked_for(graph, tick):
    tick()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert graph.make("corpus_index_job").success
    (graph.source / "b.jsonl").unlink()
    said = skipped(tick(remove_deleted_shards=True))
    assert "removed" in said
    assert graph.shards == ["a.jsonl"]
    assert graph.tables.exists("documents", "a.jsonl")
    assert not graph.tables.exists("documents", "b.jsonl")
    assert not graph.tables.rejects_path("documents", "b.jsonl").exists()
    index = graph.make("corpus_index_job")
    assert metadata(index, "corpus_index")["shards_removed"] == 1
    assert metadata(index, "corpus_index")["dagster/row_count"] == 3
    # A file that comes back is new.
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    assert requested(tick(remove_deleted_shards=True)) == ["b.jsonl"]


def test_another_source_removes_nothing(graph, tick, tmp_path):
    tick()
    assert graph.make("documents_job", "a.jsonl").success
    write_jsonl(tmp_path / "elsewhere" / "c.jsonl", range(2))
    elsewhere = {"url": str(tmp_path / "elsewhere"), "remove_deleted_shards": True}
    assert requested(tick(**elsewhere)) == ["c.jsonl"]
    assert graph.shards == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert graph.tables.exists("documents", "a.jsonl")


def test_a_source_that_cannot_be_read_is_a_reason_to_skip_and_removes_nothing(graph, tick):
    tick()
    shutil.rmtree(graph.source)
    result = tick(remove_deleted_shards=True)
    assert isinstance(result, dg.SkipReason)
    assert str(graph.source) in result.skip_message
    assert graph.shards == ["a.jsonl", "b.jsonl"]


def follow(graph, cursor=None):
    """A tick of `index_follows_documents`: the run config of the sync it requests, or why it does not."""
    resources = {"storage": graph.storage, "retriever": graph.retriever}
    with dg.build_sensor_context(graph.instance, cursor, resources=resources) as context:
        result = index_follows_documents(context)
    if isinstance(result, dg.SkipReason):
        return result.skip_message, cursor
    if result.run_requests:
        (request,) = result.run_requests
        return request.run_config["ops"], result.cursor
    return result.skip_reason.skip_message, result.cursor


def test_the_index_is_synced_with_what_is_stale_when_the_sensor_is_switched_on(graph):
    """One of the shards is never read; documents were made long before the first tick."""
    graph.register()
    assert "The index holds the 0 shards" in follow(graph)[0]
    assert graph.make("documents_job", "a.jsonl").success
    requested, cursor = follow(graph)
    assert requested == {}
    # The daemon has it now; one that failed is not requested for ever.
    assert follow(graph, cursor)[0].startswith("No documents have changed")
    assert graph.make("corpus_index_job", corpus_index={"k1": 1.2}).success
    assert "The index holds the 1 shards as stored" in follow(graph)[0]
    write_jsonl(graph.source / "a.jsonl", range(2))
    assert graph.make("documents_job", "a.jsonl").success
    requested, _ = follow(graph, cursor)
    # It goes on ranking as it was told to.
    assert requested["corpus_index"]["config"]["k1"] == 1.2


def test_the_index_waits_while_documents_are_read(graph):
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    selection = frozenset({dg.AssetKey("documents"), dg.AssetKey("questions")})
    for job, assets in (("documents_job", None), ("__ASSET_JOB", selection)):
        run = dg.DagsterRun(job, status=dg.DagsterRunStatus.STARTED, asset_selection=assets)
        graph.instance.add_run(run)
        assert follow(graph)[0] == "Documents are being read, or the index is being synced."
        graph.instance.report_run_failed(run)
    asking = dg.DagsterRun("rare_job", status=dg.DagsterRunStatus.STARTED)
    graph.instance.add_run(asking)
    assert follow(graph)[0] == {}


@pytest.fixture
def watch(graph):
    return Ticks(graph, watch_corpus)


def observed(graph):
    """The observations of corpus_files, oldest first: of a partition, its data version; else counts."""
    records = graph.instance.fetch_observations(dg.AssetKey("corpus_files"), limit=100).records
    events = [record.asset_observation for record in reversed(records)]
    return [
        (event.partition, event.tags["dagster/data_version"])
        if event.partition
        else {
            name.removeprefix("shards/"): value.value
            for name, value in event.metadata.items()
            if name.startswith("shards/") and value.value
        }
        for event in events
    ]


def unsynced(graph):
    """Shards whose documents Dagster takes for unsynced."""
    asset_graph = graph.defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(
        graph.instance, asset_graph, LoadingContextForTest(graph.instance)
    )
    key = dg.AssetKey("documents")
    return [s for s in graph.shards if resolver.get_status(key, s) is StaleStatus.STALE]


def test_the_watch_is_on_and_registers_what_is_new_and_makes_nothing(graph, watch):
    assert watch_corpus.default_status is dg.DefaultSensorStatus.RUNNING
    assert "2 new" in skipped(watch())
    assert graph.shards == ["a.jsonl", "b.jsonl"]
    assert not graph.tables.exists("documents", "a.jsonl")
    assert "Nothing has changed: 2 new" in skipped(watch())


def test_only_documents_of_a_file_that_changed_become_unsynced_until_they_are_made(graph, watch):
    watch()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    watch()
    assert unsynced(graph) == []
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    assert "1 changed, 1 made" in skipped(watch())
    assert unsynced(graph) == ["b.jsonl"]
    for _ in range(3):
        watch()
    (changed,) = [s for s in known_shards(graph.tables) if s.key == "b.jsonl"]
    assert observed(graph) == [
        {"new": 2},
        {"made": 2},
        ("b.jsonl", changed.version),
        {"changed": 1, "made": 1},
    ]
    assert graph.make("documents_job", "b.jsonl").success
    assert unsynced(graph) == []
    assert "2 made" in skipped(watch())
    # A second change of the same file shows as the first did.
    write_jsonl(graph.source / "b.jsonl", range(3, 8))
    watch()
    assert unsynced(graph) == ["b.jsonl"]


def test_documents_made_before_the_watch_saw_their_file_are_not_unsynced(graph, watch):
    watch()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    assert graph.make("documents_job", "b.jsonl").success
    assert "2 made" in skipped(watch())
    assert unsynced(graph) == []


def test_the_watch_hides_nothing_from_the_sensor_that_pays_and_both_report_once(graph, watch, tick):
    watch()
    assert requested(tick()) == ["a.jsonl", "b.jsonl"]
    write_jsonl(graph.source / "c.jsonl", range(6, 8))
    watch()
    assert requested(tick()) == ["c.jsonl"]
    assert graph.make("documents_job", "c.jsonl").success
    write_jsonl(graph.source / "c.jsonl", range(6, 9))
    watch()
    assert requested(tick()) == ["c.jsonl"]
    assert graph.shards == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_the_table_of_files_names_a_few_hundred_and_counts_all(graph, watch, monkeypatch):
    monkeypatch.setattr(source_states, "SHOWN", 2)
    write_jsonl(graph.source / "c.jsonl", range(6, 8))
    watch()
    assert graph.make("documents_job", "a.jsonl").success
    write_jsonl(graph.source / "a.jsonl", range(2))
    (graph.source / "c.jsonl").unlink()
    watch()
    (latest,) = graph.instance.fetch_observations(dg.AssetKey("corpus_files"), limit=1).records
    shown = latest.asset_observation.metadata
    rows = [record.data for record in shown["files"].records]
    size = (graph.source / "a.jsonl").stat().st_size
    assert rows == [
        {"shard": "a.jsonl", "rows": 2, "bytes": size, "state": "changed"},
        {"shard": "c.jsonl", "rows": None, "bytes": None, "state": "gone"},
    ]
    assert shown["shards"].value == 3
    assert shown["rows"].value == 5
    assert observed(graph)[-1] == {"changed": 1, "gone": 1, "new": 1}


def test_an_unchanged_source_is_watched_without_opening_a_table(graph, watch, monkeypatch):
    watch()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    monkeypatch.setattr(source_states, "LOOKS_AT_ONCE", 1)
    assert "1 not looked at yet, 1 made" in skipped(watch())
    assert "2 made" in skipped(watch())
    monkeypatch.setattr(source_states, "LOOKS_AT_ONCE", 0)
    assert "Nothing has changed: 2 made" in skipped(watch())


def test_the_watch_removes_shards_of_deleted_files_only_where_that_is_asked_for(graph, watch):
    watch()
    assert graph.make("documents_job", "b.jsonl").success
    (graph.source / "b.jsonl").unlink()
    assert "1 gone" in skipped(watch())
    assert graph.shards == ["a.jsonl", "b.jsonl"]
    assert "removed" in skipped(watch(remove_deleted_shards=True))
    assert graph.shards == ["a.jsonl"]
    assert not graph.tables.exists("documents", "b.jsonl")
    assert "1 new." in skipped(watch(remove_deleted_shards=True))


def test_a_source_that_cannot_be_read_is_told_by_the_watch(graph, watch):
    watch()
    shutil.rmtree(graph.source)
    result = watch(remove_deleted_shards=True)
    assert str(graph.source) in result.skip_message
    assert graph.shards == ["a.jsonl", "b.jsonl"]


def test_observing_the_files_in_a_run_shows_the_same(graph, watch):
    watch()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    write_jsonl(graph.source / "b.jsonl", range(3, 7))
    job = graph.defs.resolve_implicit_global_asset_job_def()
    observe = {"asset_selection": [dg.AssetKey("corpus_files")], "raise_on_error": False}
    assert job.execute_in_process(instance=graph.instance, **observe).success
    assert observed(graph)[-1] == {"changed": 1, "made": 1}
    assert unsynced(graph) == ["b.jsonl"]


def test_states_are_told_alike_on_an_object_store(nothing_set, tmp_path, s3_bucket):
    graph = Graph(tmp_path)
    graph.storage = Storage(root=f"{s3_bucket}/states")
    write_jsonl(graph.source / "a.jsonl", range(3))
    scan = graph.register()
    frame = read_documents(graph.corpus.source().read(scan.shards[0]), file="a.jsonl")
    graph.tables.write("documents", "a.jsonl", frame.rows, frame.rejects, made_from(scan.shards[0]))
    for looks in (1, 0):
        states = source_states.source_states(scan, graph.tables, [])
        assert states.counts()["made"] == 1, looks
    graph.tables.write("documents", "a.jsonl", frame.rows, frame.rejects, {"file": "another"})
    assert source_states.source_states(scan, graph.tables, []).counts()["changed"] == 1


def test_no_asset_that_asks_has_a_condition_and_what_pays_is_off(graph):
    specs = {spec.key.to_user_string(): spec for spec in graph.defs.resolve_all_asset_specs()}
    with_condition = {name for name, spec in specs.items() if spec.automation_condition}
    # An update of the index would request every shard again.
    assert with_condition == set()
    running = dg.DefaultSensorStatus.RUNNING
    on = {s.name for s in graph.defs.sensors if s.default_status is running}
    assert on == {"watch_corpus", "dead_runs"}
