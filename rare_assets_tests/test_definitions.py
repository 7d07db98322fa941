"""The code location: what is in it, that it loads with nothing set, and quickly because of what it leaves out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from rare_assets.automation.instance import LOCATION, WORKSPACE
from rare_assets.build import build_defs
from rare_assets.definitions import defs
from rare_assets.exports.formats import FORMATS
from rare_assets.operators.templates import PACKAGED
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.schemas import TABLES

ROOT = Path(__file__).parent.parent
SHOWN = ("group_name", "kinds", "owners", "tags", "code_version")


def describe(defs: dg.Definitions) -> dict:
    """Every spec of the code location in a form that reads well in a snapshot."""
    graph = defs.resolve_asset_graph()
    assets = {}
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key):
        name = spec.key.to_user_string()
        assets[name] = {
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "partitions": spec.partitions_def.name if spec.partitions_def else None,
            **{field: getattr(spec, field) for field in SHOWN},
        }
        assets[name]["kinds"] = sorted(spec.kinds)
        # The part after the sign is the prompt's fingerprint, which any edit of a prompt changes.
        assets[name]["code_version"] = (spec.code_version or "").partition("+")[0] or None
        policy = spec.freshness_policy
        assets[name]["freshness"] = type(policy).__name__ if policy else None
        condition = spec.automation_condition
        assets[name]["automation"] = condition.get_label() if condition else None
        assets[name]["tags"] = {k: v for k, v in spec.tags.items() if "kind/" not in k}
    checks = {
        f"{key.asset_key.to_user_string()}/{key.name}": {
            "blocking": graph.get_check_spec(key).blocking,
            "partitioned": graph.get_check_spec(key).partitions_def is not None,
        }
        for key in sorted(graph.asset_check_keys)
    }
    jobs = {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
        for job in defs.resolve_all_job_defs()
        if not job.name.startswith("__")
    }
    sensors = {sensor.name: sensor.default_status.value for sensor in defs.sensors}
    return {"assets": assets, "checks": checks, "jobs": jobs, "sensors": sensors}


def test_the_code_location_is_as_recorded(snapshot):
    assert describe(defs) == snapshot


def test_the_definitions_can_be_loaded_by_dagster():
    dg.Definitions.validate_loadable(defs)


def test_every_column_is_described_in_the_catalog_before_anything_ran():
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for name, table in TABLES.items():
        columns = specs[name].metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == table.schema.column_names()
        assert all(column.description for column in columns)


def test_column_lineage_names_columns_that_exist():
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for name in TABLES:
        lineage = specs[name].metadata["dagster/column_lineage"].deps_by_column
        for sources in lineage.values():
            for source in sources:
                columns = TABLES[source.asset_key.to_user_string()].schema.column_names()
                assert source.column_name in columns


def test_every_asset_says_what_a_row_costs_and_how_to_rerun():
    for spec in defs.resolve_all_asset_specs():
        assert spec.description
        if spec.key.to_user_string() != "corpus_files":
            assert "**Cost:**" in spec.description
            assert "**Rerun**" in spec.description
            assert "**resume**" in spec.description.lower()


def test_the_source_of_a_table_is_linked():
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for name in (*TABLES, "corpus_index"):
        [reference] = specs[name].metadata["dagster/code_references"].code_references
        assert Path(reference.file_path).name == f"{name}.py"
        lines = Path(reference.file_path).read_text().splitlines()
        assert lines[reference.line_number - 1].strip().startswith(f"def {name}(")


def uris(**resources):
    """Where the catalog says that each asset lies."""
    specs = build_defs(resource_overrides=resources).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.metadata.get("dagster/uri") for spec in specs}


def test_the_catalog_says_where_everything_lies(nothing_set, tmp_path):
    nothing_set.setenv("RARE_SOURCE", "https://me:h1dd3n@host/a.jsonl?token=h1dd3n")
    nothing_set.setenv("RARE_STORAGE", "s3://bucket/rare/")
    assert uris() == {
        "corpus_files": "https://host/a.jsonl",
        "corpus_index": "s3://bucket/rare/corpus_index/",
        **{table: f"s3://bucket/rare/{table}/" for table in TABLES},
        **{
            f"exports/{name.replace('-', '_')}": f"s3://bucket/rare/exports/{name}/"
            for name in FORMATS
        },
        "exports/data_card": "s3://bucket/rare/exports/README.md",
        "corpus_report": "s3://bucket/rare/corpus_report/report.html",
        "pilot": "s3://bucket/rare/pilot/pilot.html",
    }
    mine = uris(storage=Storage(root=str(tmp_path)))
    assert mine["reasoning"] == f"{tmp_path}/reasoning/"
    nothing_set.setenv("ELASTICSEARCH_URL", "http://me:h1dd3n@search:9200")
    # The index then lies on a server that is named on the page of the resources.
    assert uris()["corpus_index"] is None


def kinds(**resources):
    """The kinds of each asset."""
    specs = build_defs(resource_overrides=resources).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.kinds for spec in specs}


@pytest.mark.processes
def test_an_asset_has_the_kind_of_the_engine_and_the_teacher_that_the_settings_name(
    nothing_set, tmp_path
):
    shipped = kinds()
    assert shipped["corpus_index"] == {"polars"}
    assert shipped["hard_negatives"] == {"polars", "parquet"}
    assert shipped["questions"] == shipped["reasoning"] == {"llamacpp", "parquet"}
    storage = Storage(root=str(tmp_path))
    retriever = Bm25Retriever(storage=storage, elasticsearch_url="http://search:9200")
    assert kinds(retriever=retriever)["corpus_index"] == {"elasticsearch"}
    nothing_set.setenv("ELASTICSEARCH_URL", "http://search:9200")
    nothing_set.setenv("RARE_MODEL", "gpt-4o-mini")
    named = kinds()
    assert named["hard_negatives"] == {"elasticsearch", "parquet"}
    assert named["questions"] == named["reasoning"] == {"openai", "parquet"}


def code_versions(**environment: str) -> dict[str, str]:
    """The code versions that a fresh process with these settings loads."""
    code = (
        "import json; from rare_assets.definitions import defs; print(json.dumps("
        "{s.key.to_user_string(): s.code_version for s in defs.resolve_all_asset_specs()}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.processes
def test_another_prompt_is_another_code_version_of_its_asset_alone(tmp_path):
    mine = (
        (PACKAGED / "reason_distill.md").read_text().replace("# System\n", "# System\nBe brief.\n")
    )
    (tmp_path / "reason_distill.md").write_text(mine)
    before, after = code_versions(), code_versions(RARE_PROMPTS=str(tmp_path))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"reasoning"}


@pytest.mark.parametrize(
    "setting", [{"RARE_PROMPTS": "/no/such/folder"}, {"RARE_ROWS_PER_SHARD": "many"}]
)
@pytest.mark.processes
def test_settings_that_no_run_can_use_do_not_keep_definitions_from_loading(setting):
    versions = code_versions(**setting)
    assert versions["questions"] == "1+unusable"


@pytest.mark.processes
@pytest.mark.parametrize("options", [[], ["-w", "workspace.yaml"]])
def test_dagster_finds_the_code_location_from_the_project_root(options):
    """Through pyproject.toml alone, and through the workspace file; under the same name, which
    runs, sensors and the shipped workspace of `rare-assets dev` go by."""
    run = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert f"Validation successful for code location {LOCATION}." in run.stdout + run.stderr


def test_the_command_and_the_project_serve_the_same_code_location():
    assert WORKSPACE.read_text() == (ROOT / "workspace.yaml").read_text()
    assert yaml.safe_load(WORKSPACE.read_text()) == {
        "load_from": [
            {
                "python_module": {
                    "module_name": "rare_assets.definitions",
                    "location_name": LOCATION,
                }
            }
        ]
    }


def test_a_resource_given_replaces_the_shipped_one_for_all_that_use_it():
    mine = Storage(root="/elsewhere")
    resources = build_defs(resource_overrides={"storage": mine}).resources
    assert resources["storage"] is mine
    assert resources["teacher"].storage is mine
    assert resources["rare_io_manager"].storage is mine


@pytest.mark.processes
@pytest.mark.parametrize("module", ["rare_assets.definitions", "rare_assets.command.cli"])
def test_loading_needs_no_setting_and_no_heavy_client(module):
    """What only a run needs is imported by the run: definitions are loaded at every page and tick."""
    heavy = [
        "openai",
        "elasticsearch",
        "xllamacpp",
        "s3fs",
        "Stemmer",
        "py3langid",
    ]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RARE_", "OPENAI_", "ELASTICSEARCH_", "DAGSTER_"))
    }
    run = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:rare_assets", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""
