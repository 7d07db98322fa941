"""The files of a deployment: whose they are, what they hold, and that the tools they are for take them."""

import hashlib
import json
import re

import pytest
import yaml
from click.testing import CliRunner
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

from rare_assets.build import build_defs
from rare_assets.command.cli import main

KINDS = {
    "docker-compose": {
        "Dockerfile",
        "constraints.txt",
        "dagster.yaml",
        "workspace.yaml",
        "compose.yaml",
    }
    | {"env.example", "code.env.example"},
    "helm": {"Dockerfile", "constraints.txt", "values.yaml"},
    "celery": {"Dockerfile", "constraints.txt", "dagster.yaml", "workspace.yaml", "compose.yaml"}
    | {"env.example", "code.env.example", "compose.override.yaml"},
}
# What the daemon and the webserver may know: how to reach the instance, its queue and the code server.
INSTANCE = re.compile(
    r"DAGSTER_POSTGRES_[A-Z]+|CELERY_(BROKER_URL|RESULT_BACKEND)|RARE_CODE_SERVER_(HOST|PORT)|RARE_CACHE"
)


def deploy(kind, out, code=0):
    result = CliRunner().invoke(main, ["deploy", kind, "--out", str(out)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def written(tmp_path, request):
    """The folder of a deployment of the kind that the test asks for."""
    deploy(request.param, tmp_path)
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_writes_its_files_and_again_changes_none(kind, tmp_path):
    out = tmp_path / "new" / "folder"
    deploy(kind, out)
    first = contents(out)
    assert first.keys() == KINDS[kind]
    again = deploy(kind, out)
    assert contents(out) == first
    assert again.count("(as it was)") == len(first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("theirs", ["edited", "foreign", "folder", "link"])
def test_nothing_is_written_where_a_file_is_somebody_elses(kind, theirs, tmp_path):
    if theirs == "edited":
        deploy(kind, tmp_path)
        for name in KINDS[kind] - {"Dockerfile"}:
            (tmp_path / name).unlink()
    path = tmp_path / "Dockerfile"
    if theirs == "folder":
        path.mkdir()
    elif theirs == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        before = path.read_text() if theirs == "edited" else ""
        path.write_text(before + "RUN ours\n")
    before = contents(tmp_path)
    assert f"{path}: changed since" in deploy(kind, tmp_path, code=1)
    assert contents(tmp_path) == before
    assert not (tmp_path / "elsewhere").exists()


def test_what_an_earlier_version_wrote_is_written_anew(tmp_path):
    old = b"FROM python:3.10\n"
    stamp = hashlib.sha256(old).hexdigest()[:16]
    head = f"# Written by `rare-assets deploy helm` ({stamp}); once changed, it is yours.\n"
    (tmp_path / "Dockerfile").write_bytes(head.encode() + old)
    deploy("helm", tmp_path)
    assert b"python:3.10" not in (tmp_path / "Dockerfile").read_bytes()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in deploy("helm", tmp_path / "file" / "below", code=1)


@pytest.mark.parametrize("written", ["docker-compose", "celery"], indirect=True)
def test_compose_files_are_valid(written):
    compose_spec = pytest.importorskip("compose_spec")
    paths = sorted(written.glob("compose*.yaml"))
    assert paths
    for path in paths:
        # It knows no merge keys, which YAML resolves here as in `docker compose`.
        content = json.dumps(yaml.safe_load(path.read_text()))
        assert compose_spec.PyCompose.from_json(content).service_names()
    with pytest.raises(ValueError, match="portz"):
        compose_spec.PyCompose.from_json('{"services": {"a": {"image": "b", "portz": []}}}')


def services(folder):
    """All services as `docker compose` merges them, as far as these files need it."""
    merged = {}
    for path in sorted(folder.glob("compose*.yaml"), reverse=True):
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            base = merged.get(service.get("extends", {}).get("service", name), {})
            environment = {**base.get("environment", {}), **service.get("environment", {})}
            merged[name] = {**base, **service, "environment": environment}
    return merged


@pytest.mark.parametrize("written", ["docker-compose", "celery"], indirect=True)
def test_only_what_executes_assets_has_the_secrets_and_reaches_the_index(written):
    found = services(written)
    for name in ("webserver", "daemon"):
        service = found[name]
        assert all(INSTANCE.fullmatch(variable) for variable in service["environment"])
        assert "env_file" not in service
        assert "index" not in service["networks"]
    executes = {name for name, service in found.items() if "env_file" in service}
    assert executes == ({"code", "worker"} & found.keys())
    ours = [found[name] for name in executes | {"webserver", "daemon"}]
    assert all(service["read_only"] is True for service in ours)
    assert all(any("/cache" in volume for volume in service["volumes"]) for service in ours)
    for service in found.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("written", KINDS, indirect=True)
def test_no_file_holds_a_secret(written):
    for path in written.iterdir():
        for line in path.read_text().splitlines():
            if given := re.match(
                r"\s*#?\s*-?\s*([A-Z_]*(?:PASSWORD|KEY|SECRET)[A-Z_]*)\s*[=:]\s*(.*)", line
            ):
                assert re.fullmatch(r"(\$\{[A-Z_]+:\?.*\})?", given[2]), f"{path.name}: {line}"


@pytest.mark.parametrize("written", ["helm"], indirect=True)
def test_no_image_runs_as_root(written):
    stages = re.split(r"^FROM ", (written / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    last = {stage.split()[2]: re.findall(r"^USER (.+)$", stage, re.MULTILINE) for stage in stages}
    assert last == {"base": [], "dagster": ["10001:10001"], "code": ["10001:10001"]}


def camel_to_snake(value):
    if isinstance(value, dict):
        return {
            re.sub(r"(?<=[a-z])[A-Z]", lambda m: f"_{m[0].lower()}", key)
            if key != "applyLimitPerUniqueValue"
            else key: camel_to_snake(each)
            for key, each in value.items()
        }
    return [camel_to_snake(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def values(tmp_path):
    deploy("helm", tmp_path)
    return yaml.safe_load((tmp_path / "values.yaml").read_text())


def test_the_charts_values_make_an_instance_that_dagster_takes(values):
    """As the chart puts them into dagster.yaml: by the same names in snake case."""
    daemon = values["dagsterDaemon"]
    concurrency = {k: v for k, v in values["concurrency"].items() if k != "enabled"}
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    instance = {
        "concurrency": camel_to_snake(concurrency),
        "run_queue": camel_to_snake(queue),
        "run_monitoring": camel_to_snake(daemon["runMonitoring"]),
        "run_retries": camel_to_snake(daemon["runRetries"]),
        **values["additionalInstanceConfig"],
    }
    result = process_config(resolve_to_config_type(dagster_instance_config_schema()), instance)
    assert result.success, result.errors
    [limit] = result.value["concurrency"]["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["limit"]) == ("dagster/partition", 1)
    assert limit["value"] == {"applyLimitPerUniqueValue": True}


def test_the_charts_launcher_starts_pods_with_the_resources_of_their_job(values, nothing_set):
    dagster_k8s = pytest.importorskip("dagster_k8s")
    from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config

    [deployment] = values["dagster-user-deployments"]["deployments"]
    variables = {each["name"]: each["value"] for each in deployment["env"]}
    nothing_set.setenv("RARE_JOB_TAGS", variables["RARE_JOB_TAGS"])
    jobs = {job.name: job for job in loaded_jobs()}
    assert json.loads(variables["RARE_JOB_TAGS"]).keys() == jobs.keys()
    launcher = camel_to_snake(values["runLauncher"]["config"]["k8sRunLauncher"])
    given = {
        "service_account_name": "rare",
        "instance_config_map": "rare",
        "postgres_password_secret": "rare-database",
        "dagster_home": "/opt/dagster/dagster_home",
        **launcher,
    }
    config = process_config(resolve_to_config_type(dagster_k8s.K8sRunLauncher.config_type()), given)
    assert config.success, config.errors
    memory = {}
    for name, job in jobs.items():
        made = construct_dagster_k8s_job(
            dagster_k8s.DagsterK8sJobConfig(job_image="rare:1", dagster_home="/opt/dagster"),
            ["true"],
            "run",
            get_user_defined_k8s_config(job.tags),
        )
        [container] = made.spec.template.spec.containers
        memory[name] = container.resources.limits["memory"]
        context = made.spec.template.spec.security_context
        assert bool(context and context.sysctls) == (name in ("questions_job", "rare_job"))
    assert memory == {
        "documents_job": "4Gi",
        "corpus_index_job": "8Gi",
        "questions_job": "2Gi",
        "rare_job": "4Gi",
    }


def test_the_charts_pods_get_secrets_by_reference_and_write_to_the_cache_alone(values):
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["envSecrets"] == [{"name": "rare-secrets"}]
    assert deployment["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["podSecurityContext"]["runAsNonRoot"] is True
    assert [mount["mountPath"] for mount in deployment["volumeMounts"]] == ["/cache"]
    for part in ("dagsterWebserver", "dagsterDaemon"):
        assert "envSecrets" not in values[part]
        assert all(INSTANCE.fullmatch(each["name"]) for each in values[part]["env"])


def loaded_jobs():
    """The code location's jobs, as a process that starts with this environment has them."""
    return build_defs().jobs


def test_job_tags_that_cannot_be_used_fail_the_run_and_not_the_loading(nothing_set):
    nothing_set.setenv("RARE_JOB_TAGS", '{"rare_job": 3}')
    assert all(not job.tags for job in loaded_jobs())
    from rare_assets.settings import Settings

    with pytest.raises(ValueError, match="give a JSON object such as"):
        Settings()
