"""Several corpora in one code location, beside a team's own assets: no clash, and nothing changed for these."""

import dagster as dg
import pytest

from rare_assets.build import build_defs
from rare_assets.definitions import defs as shipped
from rare_assets.resources.dataset import Dataset, in_metadata
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.ephemeral import ephemeral_instance
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, failed_checks
from rare_assets_tests.support.passages import write_jsonl

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset
def plain() -> int:
    return 41


@dg.asset
def plainer(plain: int) -> int:
    return plain + 1


TEAM = dg.Definitions(
    assets=[plain, plainer],
    jobs=[dg.define_asset_job("documents_job_of_the_team", [plain, plainer])],
)


@pytest.fixture
def deployment(nothing_set, tmp_path):
    """The merged definitions of a team and of two corpora, with an endpoint and an instance."""
    nothing_set.setenv("OPENAI_API_KEY", API_KEY)
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    nothing_set.setenv("RARE_MODEL", "fake-teacher")
    write_jsonl(tmp_path / "legal" / "a.jsonl", range(4))
    write_jsonl(tmp_path / "wiki" / "a.jsonl", range(10, 13))
    with FakeEndpoint() as endpoint:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        (tmp_path / "instance").mkdir()
        corpora = [
            build_defs(name=name, settings={"source": str(tmp_path / name)})
            for name in ("legal", "wiki")
        ]
        instance = ephemeral_instance(tmp_path / "instance")
        yield dg.Definitions.merge(TEAM, *corpora), instance


def make(deployment, job, shard=None):
    defs, instance = deployment
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=shard, run_config=QUIET, raise_on_error=False
    )


def make_all(deployment, name):
    """Every job of a corpus of one shard, in the order of the main job."""
    deployment[1].add_dynamic_partitions(f"{name}_rare_document_shards", ["a.jsonl"])
    return [
        make(deployment, f"{name}_documents_job", "a.jsonl"),
        make(deployment, f"{name}_corpus_index_job"),
        make(deployment, f"{name}_rare_job", "a.jsonl"),
    ]


def test_runs_of_two_corpora_leave_rows_in_a_storage_each(deployment, tmp_path):
    for name, n_rows in (("legal", 4), ("wiki", 3)):
        results = make_all(deployment, name)
        assert all(result.success for result in results)
        assert not [check for check in failed_checks(*results) if check.endswith("/contract")]
        tables = ParquetTables(str(tmp_path / "storage" / name))
        for table in ("documents", "questions", "hard_negatives", "reasoning"):
            assert tables.scan(table, "a.jsonl").collect().height == n_rows
    assert sorted(path.name for path in (tmp_path / "storage").iterdir()) == ["legal", "wiki"]
    negatives = ParquetTables(str(tmp_path / "storage" / "legal")).scan("hard_negatives", "a.jsonl")
    ids = set(negatives.collect()["negatives"].explode().struct.field("doc_id"))
    own = ParquetTables(str(tmp_path / "storage" / "legal")).scan("documents", "a.jsonl").collect()
    # Each has an index of its own.
    assert ids <= set(own["doc_id"])


def test_each_corpus_is_told_apart_in_the_instance(deployment):
    make_all(deployment, "legal")
    _, instance = deployment
    made = {key.to_user_string() for key in instance.all_asset_keys()}
    assert {"legal/documents", "legal/corpus_index", "legal/reasoning"} <= made
    assert not [key for key in made if not key.startswith("legal/")]
    assert instance.get_dynamic_partitions("wiki_rare_document_shards") == []
    assert instance.get_dynamic_partitions("rare_document_shards") == []


def test_a_path_in_the_metadata_is_where_the_table_lies(deployment, tmp_path):
    documents, *_ = make_all(deployment, "legal")
    (event,) = documents.asset_materializations_for_node("legal__documents")
    path = event.metadata["path"].value
    assert path == str(tmp_path / "storage/legal/documents/a.jsonl.parquet")


@pytest.mark.parametrize("rare", [shipped, build_defs(), build_defs(name="legal")])
def test_a_teams_own_assets_keep_their_executor_and_io_manager(rare, tmp_path):
    written = []

    class Recording(dg.InMemoryIOManager):
        def handle_output(self, context, obj):
            written.append(context.asset_key.to_user_string())
            super().handle_output(context, obj)

    mine = dg.Definitions(
        assets=TEAM.assets,
        jobs=TEAM.jobs,
        resources={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Recording())},
    )
    if rare is shipped:
        # That one is a code location of its own.
        assert rare.executor is not None
        return
    merged = dg.Definitions.merge(mine, rare)
    job = merged.resolve_job_def("documents_job_of_the_team")
    assert job.executor_def is dg.multi_or_in_process_executor
    assert merged.resolve_implicit_global_asset_job_def().executor_def is (
        dg.multi_or_in_process_executor
    )
    result = job.execute_in_process(run_config=QUIET)
    assert result.output_for_node("plainer") == 42
    assert written == ["plain", "plainer"]


def test_merged_definitions_load_with_the_corpus_without_a_name_beside_the_others():
    merged = dg.Definitions.merge(
        TEAM, build_defs(), build_defs(name="legal"), build_defs(name="wiki-2")
    )
    dg.Definitions.validate_loadable(merged)
    names = [sensor.name for sensor in merged.sensors]
    assert {"new_shards", "legal_new_shards", "wiki_2_new_shards"} <= set(names)
    assert len(names) == len(set(names))
    pools = {
        key.to_user_string(): next(iter(merged.resolve_asset_graph().get(key).pools))
        for key in merged.resolve_all_asset_keys()
        if key.path[-1] == "questions"
    }
    assert pools == {
        "questions": "teacher",
        "legal/questions": "legal_teacher",
        "wiki-2/questions": "wiki_2_teacher",
    }


def test_keys_resources_partitions_and_pools_can_be_ones_own():
    defs = build_defs(
        key_prefix=["team", "rare"],
        resource_keys={"storage": "rare_tables"},
        partitions_name="passages",
        pools={"teacher": "llm"},
        executor=dg.in_process_executor,
    )
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    asked = graph.get(dg.AssetKey(["team", "rare", "questions"]))
    assert asked.partitions_def.name == "passages"
    assert asked.pools == {"llm"}
    assert set(defs.resources) == {
        "rare_tables",
        *(f"team_rare__{role}" for role in ("corpus", "teacher", "retriever", "io_manager")),
    }
    assert defs.resolve_job_def("team_rare_rare_job").executor_def is dg.in_process_executor


@pytest.mark.parametrize("name", ["Legal", "a/b", "", "_x", "a b", "ü"])
def test_a_name_that_cannot_be_used_is_refused(name):
    with pytest.raises(ValueError, match="takes lower-case letters, digits"):
        Dataset.of(name)


def test_a_resource_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no resource tables; there are storage, corpus"):
        build_defs(resource_keys={"tables": "x"})


def test_a_record_is_read_from_the_metadata_as_it_was_written():
    dataset = Dataset.of("legal", pools={"teacher": "llm"})
    ((key, text),) = dataset.metadata({"questions": {"min_words": 3}}).items()
    assert key == "rare_assets/dataset/legal"
    assert in_metadata(text) == (dataset, {"questions": {"min_words": 3}})


def test_each_corpus_is_judged_by_thresholds_of_its_own(nothing_set, tmp_path):
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    nothing_set.setenv("RARE_MODEL", "fake-teacher")
    nothing_set.setenv("OPENAI_API_KEY", API_KEY)
    write_jsonl(tmp_path / "source" / "a.jsonl", range(4))
    with (tmp_path / "source" / "a.jsonl").open("a") as file:
        file.write("\n".join(["", *['{"text": ""}'] * 6]))
    with FakeEndpoint() as endpoint:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        own = {
            "strict": {"max_reject_rate": 0.7},
            "lenient": {"block_reject_rate": 1, "max_reject_rate": 0.7},
        }
        (tmp_path / "instance").mkdir()
        instance = ephemeral_instance(tmp_path / "instance")
        corpora = [
            build_defs(name=name, settings={"source": str(tmp_path / "source"), **settings})
            for name, settings in own.items()
        ]
        deployment = dg.Definitions.merge(*corpora), instance
        strict, lenient = (make_all(deployment, name) for name in own)
    # The check of the documents, and the step that would pay for what is built on them.
    assert [result.success for result in strict] == [False, True, False]
    assert [result.success for result in lenient] == [True, True, True]
    assert "strict/documents/rejects" in failed_checks(*strict)
    assert "lenient/documents/rejects" not in failed_checks(*lenient)
    assert len(endpoint.requests) == 8


def test_a_run_that_says_one_thing_of_the_teacher_keeps_all_else_that_the_corpus_says(nothing_set):
    defs = build_defs(name="legal", settings={"model": "m", "max_requests": 9, "index": "own"})
    seen = {}

    @dg.op(required_resource_keys={"legal__teacher", "legal__retriever"})
    def look(context):
        teacher, retriever = context.resources.legal__teacher, context.resources.legal__retriever
        seen.update(teacher.model_dump(exclude={"storage"}, exclude_none=True))
        seen["root"] = teacher.storage.dataset
        seen["index"] = retriever.index

    @dg.job(resource_defs=defs.resources)
    def looking():
        look()

    config = {"resources": {"legal__teacher": {"config": {"questions_model": "q"}}}}
    looking.execute_in_process(run_config={**config, **QUIET})
    assert seen == {
        "model": "m",
        "max_requests": 9,
        "questions_model": "q",
        "dataset": "legal",
        "root": "legal",
        "index": "own",
    }


def test_a_resource_to_override_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no resource tables to override; there are storage, "):
        build_defs(resource_overrides={"tables": object()})


def test_settings_that_environment_variables_are_to_say_are_read_when_they_are_set(nothing_set):
    def source_of(defs):
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
        return specs["legal/corpus_files"].metadata.get("dagster/uri")

    settings = {"source": dg.EnvVar("LEGAL_SOURCE"), "prompts": dg.EnvVar("LEGAL_PROMPTS")}
    assert source_of(build_defs(name="legal", settings=settings)) is None
    nothing_set.setenv("LEGAL_SOURCE", "/contracts")
    nothing_set.setenv("LEGAL_PROMPTS", "/prompts")
    assert source_of(build_defs(name="legal", settings=settings)) == "/contracts"
