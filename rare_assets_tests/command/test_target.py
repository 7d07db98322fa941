"""The command on a project's own code location: which dataset, with which resources and options."""

import json
import sys

import dagster as dg
import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.command.run import RunCommand
from rare_assets.command.target import TargetError, definitions_of, location_of, open_target
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY
from rare_assets_tests.support.passages import write_jsonl

DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{module}"
"""
LEGAL = """
type: rare_assets.RareDataset
attributes:
  name: legal
  source: "{{ env.LEGAL }}"
  options:
    questions: {min_words: 5}
    hard_negatives: {num_neg: 2}
"""
WIKI = """
type: rare_assets.RareDataset
attributes:
  name: wiki
"""
MINE = """
import dagster as dg


class Teacher(dg.ConfigurableResource):
    subject: str = "history"


@dg.asset
def plain(teacher: Teacher) -> int:
    return 41


@dg.definitions
def resources():
    return dg.Definitions(assets=[plain], resources={"teacher": Teacher()})
"""


@pytest.fixture
def project(nothing_set, tmp_path, request):
    """A project as `create-dagster` makes it, in the working directory: its module's name."""
    name = f"project_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    files = {
        "__init__.py": "",
        "definitions.py": DEFINITIONS,
        "defs/__init__.py": "",
        "defs/mine.py": MINE,
        "defs/legal/defs.yaml": LEGAL,
        "defs/wiki/defs.yaml": WIKI,
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(module=name))
    nothing_set.chdir(tmp_path)
    nothing_set.setenv("LEGAL", str(tmp_path / "contracts"))
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    nothing_set.syspath_prepend(str(tmp_path))
    write_jsonl(tmp_path / "contracts" / "a.jsonl", range(4))
    yield f"{name}.definitions"
    definitions_of.cache_clear()
    for module in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[module]


def test_a_dataset_has_the_resources_and_options_of_its_definitions(project, tmp_path):
    target = open_target(project, "legal")
    assert target.dataset.key("documents") == dg.AssetKey(["legal", "documents"])
    assert target.resources["corpus"].url == str(tmp_path / "contracts")
    assert target.resources["storage"].location == str(tmp_path / "storage" / "legal")
    assert open_target(project, "wiki").resources["storage"].location.endswith("storage/wiki")


def test_datasets_of_a_defs_folder_load_beside_a_teams_assets(project):
    defs = definitions_of(project)
    dg.Definitions.validate_loadable(defs)
    keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
    assert {"plain", "legal/reasoning", "wiki/reasoning"} <= keys
    assert defs.executor is None
    assert "io_manager" not in defs.resources


@pytest.mark.parametrize(
    ("module", "dataset", "words"),
    [
        ("", None, "it holds several datasets: legal, wiki. Add --dataset NAME."),
        ("", "x", "there is no dataset 'x'; there are legal, wiki."),
        ("no_such_module", None, "-m no_such_module: it can't be loaded: ModuleNotFoundError"),
        ("json", None, "-m json: it has no Dagster definitions"),
        (None, "legal", "name the module of your definitions, too"),
    ],
)
def test_a_dataset_that_is_not_told_is_an_error_that_says_which_there_are(
    project, module, dataset, words
):
    given = ["-m", module or project] if module is not None else []
    named = ["--dataset", dataset] if dataset else []
    result = CliRunner().invoke(main, [*given, *named, "status"])
    assert result.exit_code == 1
    assert words in result.output


def test_an_option_that_the_definitions_settle_is_refused(project):
    result = CliRunner().invoke(main, ["-m", project, "--dataset", "legal", "run", "--source", "/"])
    assert result.exit_code == 1
    assert "--source: the dataset legal has one of its own" in result.output


def test_a_reference_to_a_variable_that_is_not_set_is_told(project, nothing_set):
    nothing_set.delenv("LEGAL")
    with pytest.raises(TargetError, match="source of the dataset legal is given and empty"):
        open_target(project, "legal")


def test_a_variable_that_a_resource_takes_a_value_from_is_told_when_it_is_not_set(
    nothing_set, tmp_path
):
    nothing_set.chdir(tmp_path)
    (tmp_path / "with_variable.py").write_text(
        "import dagster as dg\nfrom rare_assets.build import build_defs\n"
        'defs = build_defs(name="legal", settings={"source": dg.EnvVar("LEGAL")})\n'
    )
    with pytest.raises(TargetError, match=r"-m with_variable: .*variable LEGAL is not set"):
        open_target("with_variable", None)
    nothing_set.setenv("LEGAL", "/contracts")
    assert open_target("with_variable", None).resources["corpus"].source().url == "/contracts"


def test_what_a_variable_says_of_the_teacher_stands_in_no_run_config(nothing_set, tmp_path):
    nothing_set.chdir(tmp_path)
    nothing_set.setenv("PLACE", "http://127.0.0.1:9/v1?code=s3cret")
    for name in ("RARE_STORAGE", "DAGSTER_HOME"):
        nothing_set.setenv(name, str(tmp_path / name))
    (tmp_path / "options.yaml").write_text(
        "resources: {teacher: {config: {base_url: {env: PLACE}}}}"
    )
    nothing_set.setenv("RARE_CONFIG", str(tmp_path / "options.yaml"))
    (tmp_path / "of_place.py").write_text(
        "import dagster as dg\nfrom rare_assets.build import build_defs\n"
        'defs = build_defs(name="legal", settings={"openai_base_url": dg.EnvVar("PLACE"), "model": "m"})\n'
    )
    given = {"resources": {"teacher": {"config": {"max_concurrency": 2}}}}
    for module in (None, "of_place"):
        command = RunCommand(given, target=open_target(module, None))
        assert command.teacher.base_url == "http://127.0.0.1:9/v1?code=s3cret"
        config = command.run_config["resources"]["teacher"]["config"]
        assert config["base_url"] == {"env": "PLACE"}
        assert config["max_concurrency"] == 2
        assert "s3cret" not in str(command.run_config)


def test_a_module_of_several_definitions_is_refused_as_dagster_refuses_it(nothing_set, tmp_path):
    nothing_set.chdir(tmp_path)
    (tmp_path / "of_several.py").write_text(
        "import dagster as dg\nfirst = dg.Definitions()\ndefs = dg.Definitions()\n"
    )
    with pytest.raises(
        TargetError, match="takes one Definitions of a module, and it has first, defs"
    ):
        open_target("of_several", None)


@pytest.mark.parametrize(
    ("second", "url", "words"),
    [
        ('key_prefix=["team", "x"]', None, "'a' and 'team_x' have one storage, /s"),
        ('name="b", settings={"storage": "/s"}', None, "'a' and 'b' have one storage, /s"),
        (
            'name="b", settings={"index": "i"}',
            "http://h:9200",
            "have one index, i of http://h:9200",
        ),
        ('name="b", settings={"index": "i"}', None, None),
        ('name="b"', "http://h:9200", None),
    ],
)
def test_datasets_that_would_overwrite_each_other_are_refused(
    nothing_set, tmp_path, request, second, url, words
):
    nothing_set.chdir(tmp_path)
    nothing_set.setenv("RARE_STORAGE", "/s")
    if url:
        nothing_set.setenv("ELASTICSEARCH_URL", url)
    module = f"two_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(
        "import dagster as dg\nfrom rare_assets.build import build_defs\n"
        'defs = dg.Definitions.merge(build_defs(key_prefix="a", settings={"index": "i"}), '
        f"build_defs({second}))\n"
    )
    if words is None:
        assert open_target(module, "a").place.command == f"rare-assets -m {module} --dataset a"
        return
    with pytest.raises(TargetError, match=words):
        open_target(module, "a")


def test_a_code_location_is_called_as_the_project_in_the_working_directory_calls_it(
    project, tmp_path
):
    assert location_of("rare_assets.definitions") == "rare_assets"
    assert location_of(project) == tmp_path.name
    assert location_of("elsewhere.definitions") == "elsewhere.definitions"
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.dg.project]\nroot_module = "x"\ncode_location_target_module = "{project}"\n'
        'code_location_name = "ours"\n'
    )
    assert location_of(project) == "ours"


def test_every_command_works_on_the_dataset_and_on_no_other(project, nothing_set, tmp_path):
    nothing_set.setenv("RARE_MODEL", "fake-teacher")
    nothing_set.setenv("OPENAI_API_KEY", API_KEY)

    def command(*words):
        result = CliRunner().invoke(main, ["-m", project, "--dataset", "legal", *words])
        assert result.exit_code == 0, result.output
        return result.output

    with FakeEndpoint() as endpoint:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        assert "at most 4" in command("run", "--dry-run")
        assert f"Open the UI on these runs:  rare-assets -m {project} --dataset legal dev" in (
            command("run")
        )
        n_requests = len(endpoint.requests)
        assert n_requests == 8
        assert "a.jsonl" in command("shards")
        command("run")
        assert len(endpoint.requests) == n_requests
        # As the README's configurations have it, though the project has a resource of that name, too.
        other = tmp_path / "other.yaml"
        other.write_text("resources: {teacher: {config: {reasoning_model: other}}}")
        command("run", "--config", str(other))
        asked = [request.body["model"] for request in endpoint.requests[n_requests:]]
        assert asked == ["other"] * 4
    tables = ParquetTables(str(tmp_path / "storage" / "legal"))
    rows = tables.scan("hard_negatives", "a.jsonl").collect()
    assert set(rows["hard_negatives"].list.len()) == {2}
    options = json.loads(tables.provenance("questions", "a.jsonl").made_from["options"])
    assert options["min_words"] == 5
    assert rows["question_id"][0] in command("explain", rows["question_id"][0])
    assert "messages" in command("export", "--format", "messages")
    assert "The report on 1 shards" in command("report")
    assert "1 shards (0 new" in command("register")
    assert [path.name for path in (tmp_path / "storage").iterdir()] == ["legal"]
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
        assert {run.job_name for run in runs} == {
            "legal_documents_job",
            "legal_corpus_index_job",
            "legal_rare_job",
        }
        assert {run.tags[".dagster/repository"] for run in runs} == {
            f"__repository__@{tmp_path.name}"
        }
