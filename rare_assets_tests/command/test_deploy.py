"""The files of a deployment: whose they are, what they hold, and that the tools they are for take them."""

import hashlib
import importlib.util
import json
import re
import uuid

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher import LaunchRunContext

from rare_assets.build import build_defs
from rare_assets.command.cli import main
from rare_assets.resources.dagster_internals import code_origin

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


# What the templates of Dagster's chart 1.12.19 did with these values when `helm template` (3.19.5) rendered them
# as release `rare`: the names that it writes into dagster.yaml, others it leaves out without a word.
MONITORING = {"enabled", "startTimeoutSeconds", "cancelTimeoutSeconds", "maxResumeRunAttempts"}
MONITORING |= {"pollIntervalSeconds", "freeSlotsAfterRunEndSeconds"}
RETRIES = {"enabled", "maxRetries"}
LAUNCHER = {"imagePullPolicy", "failPodOnRunFailure", "runK8sConfig"}
INSTANCE_MAP, DAGSTER_HOME = "rare-dagster-instance", "/opt/dagster/dagster_home"


def rendered_instance(values):
    """The dagster.yaml that the chart makes, but for the storages, which are its own."""
    daemon = values["dagsterDaemon"]
    [launcher] = values["runLauncher"]["config"].values()
    assert daemon["runMonitoring"].keys() <= MONITORING
    assert daemon["runRetries"].keys() <= RETRIES
    assert launcher.keys() <= LAUNCHER
    parts = {
        "concurrency": values["concurrency"],
        "run_monitoring": daemon["runMonitoring"],
        "run_retries": daemon["runRetries"],
    }
    config = {
        name: {
            k: v for k, v in camel_to_snake(part).items() if name != "concurrency" or k != "enabled"
        }
        for name, part in parts.items()
        if part["enabled"]
    }
    # Under one name twice, YAML takes one of them and drops the other.
    assert not config.keys() & values["additionalInstanceConfig"].keys()
    return {
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": camel_to_snake(daemon["runCoordinator"]["config"]["queuedRunCoordinator"]),
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": True,
                "job_namespace": "data",
                "service_account_name": "rare-dagster",
                "dagster_home": DAGSTER_HOME,
                "instance_config_map": INSTANCE_MAP,
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                **camel_to_snake(launcher),
            },
        },
        **config,
        **values["additionalInstanceConfig"],
    }


def rendered_context(values):
    """What the chart tells the code server that its runs get."""
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [each["name"] for each in deployment["envConfigMaps"]],
            "env_secrets": [each["name"] for each in deployment["envSecrets"]],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "resources": deployment["resources"],
            "namespace": "data",
            "service_account_name": "rare-dagster-user-deployments-user-deployments",
            "env": deployment["env"],
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }


def test_the_charts_values_make_an_instance_that_dagster_takes(values, tmp_path):
    config = resolve_to_config_type(dagster_instance_config_schema())
    result = process_config(config, rendered_instance(values))
    assert result.success, result.errors
    [limit] = result.value["concurrency"]["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["limit"]) == ("dagster/partition", 1)
    assert limit["value"] == {"applyLimitPerUniqueValue": True}
    deploy("docker-compose", tmp_path / "compose")
    beside = yaml.safe_load((tmp_path / "compose" / "dagster.yaml").read_text())
    for part in ("run_retries", "run_coordinator", "local_artifact_storage"):
        assert rendered_instance(values)[part] == beside[part]


# The values that the chart's own schema (helm/dagster/schema of Dagster's repository) names, where these use it;
# None: whatever stands there is judged by its name's own schema, or goes on to Dagster.
POD = dict.fromkeys(
    (
        "env",
        "envConfigMaps",
        "envSecrets",
        "podSecurityContext",
        "securityContext",
        "resources",
        "volumes",
        "volumeMounts",
    )
)
CHART = {
    "global": dict.fromkeys(("postgresqlSecretName", "dagsterHome", "serviceAccountName")),
    "generatePostgresqlPasswordSecret": None,
    "postgresql": {
        "service": {"port": None},
        **dict.fromkeys(("enabled", "postgresqlHost", "postgresqlUsername", "postgresqlPassword")),
        **dict.fromkeys(("postgresqlDatabase", "postgresqlScheme", "postgresqlParams", "image")),
    },
    "dagster-user-deployments": {
        "enabled": None,
        "enableSubchart": None,
        "deployments": {
            **POD,
            "name": None,
            "image": dict.fromkeys(("repository", "tag", "pullPolicy")),
            "dagsterApiGrpcArgs": None,
            "port": None,
            "includeConfigInLaunchedRuns": {"enabled": None},
        },
    },
    "runLauncher": {
        "type": None,
        "config": {
            "k8sRunLauncher": {
                **POD,
                **dict.fromkeys(("imagePullPolicy", "failPodOnRunFailure", "runK8sConfig")),
            }
        },
    },
    "dagsterWebserver": {
        **POD,
        "workspace": {"enabled": None, "servers": dict.fromkeys(("host", "port", "name", "ssl"))},
    },
    "dagsterDaemon": {
        **POD,
        "runCoordinator": {
            "enabled": None,
            "type": None,
            "config": {
                "queuedRunCoordinator": dict.fromkeys(
                    (
                        "maxConcurrentRuns",
                        "tagConcurrencyLimits",
                        "dequeueIntervalSeconds",
                        "dequeueNumWorkers",
                        "dequeueUseThreads",
                    )
                )
            },
        },
        # Objects of any names there; Dagster's own schema judges them (below).
        "runMonitoring": None,
        "runRetries": None,
    },
    "concurrency": {
        "enabled": None,
        "pools": dict.fromkeys(("defaultLimit", "granularity", "opGranularityRunBuffer")),
        "runs": {
            "maxConcurrentRuns": None,
            "tagConcurrencyLimits": dict.fromkeys(("key", "value", "limit")),
        },
    },
    "computeLogManager": {"type": None, "config": None},
    "telemetry": {"enabled": None},
    "additionalInstanceConfig": None,
}


def unknown_names(given, known, path=""):
    """Names in values that a schema lacks; lists as what they hold."""
    if known is None:
        return
    for each in given if isinstance(given, list) else [given]:
        for name, value in each.items():
            if name not in known:
                yield f"{path}{name}"
            else:
                yield from unknown_names(value, known[name], f"{path}{name}.")


def test_the_charts_values_have_names_that_its_schema_has(values):
    """The chart itself is not to be had in CI; a name that it does not know would do nothing."""
    assert list(unknown_names(values, CHART)) == []
    values["dagsterDaemon"]["runCoordinator"]["typ"] = "wrong"
    assert list(unknown_names(values, CHART)) == ["dagsterDaemon.runCoordinator.typ"]


class Cluster:
    """Takes the jobs that the launcher of the chart's instance creates, as Kubernetes would."""

    def __init__(self, values, instance, monkeypatch):
        dagster_k8s = pytest.importorskip("dagster_k8s")
        given = rendered_instance(values)["run_launcher"]["config"]
        config = process_config(
            resolve_to_config_type(dagster_k8s.K8sRunLauncher.config_type()), given
        )
        assert config.success, config.errors
        monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
        self._made = []
        self.launcher = dagster_k8s.K8sRunLauncher.from_config_value(None, config.value)
        self.launcher.register_instance(instance)
        self.launcher._api_client.create_namespaced_job_with_retries = self._create

    def _create(self, body, namespace):
        assert namespace == "data"
        self._made.append(body)

    def job_of(self, run):
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        from kubernetes.client import ApiClient

        return ApiClient().sanitize_for_serialization(self._made.pop())


def test_the_charts_launcher_starts_pods_with_what_the_code_server_has(
    values, nothing_set, tmp_path
):
    """Also those of runs that `rare-assets run --submit` makes, beside the code server."""
    [deployment] = values["dagster-user-deployments"]["deployments"]
    variables = {each["name"]: each["value"] for each in deployment["env"]}
    nothing_set.setenv("RARE_JOB_TAGS", variables["RARE_JOB_TAGS"])
    nothing_set.setenv("DAGSTER_CURRENT_IMAGE", "registry.example.com/rare:1")
    context = json.dumps(rendered_context(values))
    nothing_set.setenv("DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT", context)
    jobs = {job.name: job for job in loaded_jobs()}
    assert json.loads(variables["RARE_JOB_TAGS"]).keys() == jobs.keys()
    memory = {}
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        cluster = Cluster(values, instance, nothing_set)
        for name, job in jobs.items():
            origin = code_origin(name, "rare_assets.definitions", None)
            run = dg.DagsterRun(name, str(uuid.uuid4()), tags=job.tags, job_code_origin=origin)
            instance.add_run(run)
            pod = cluster.job_of(run)["spec"]["template"]["spec"]
            [container] = pod["containers"]
            assert container["image"] == "registry.example.com/rare:1"
            memory[name] = container["resources"]["limits"]["memory"]
            assert bool(pod["securityContext"].pop("sysctls", None)) == (
                name in ("questions_job", "rare_job")
            )
            assert pod["securityContext"] == deployment["podSecurityContext"]
            assert container["securityContext"] == deployment["securityContext"]
            assert container["volumeMounts"] == deployment["volumeMounts"]
            assert pod["volumes"] == deployment["volumes"]
            sources = [next(iter(each.values()))["name"] for each in container["envFrom"]]
            assert sources == ["rare-settings", "rare-secrets"]
            written = {each["name"]: each.get("value") for each in container["env"]}
            assert written.items() >= variables.items()
            assert written["DAGSTER_HOME"] == DAGSTER_HOME
    assert memory == {
        "documents_job": "4Gi",
        "corpus_index_job": "8Gi",
        "questions_job": "2Gi",
        "rare_job": "4Gi",
    }


def test_commands_beside_the_code_server_find_the_instance(values):
    """The chart gives its dagster.yaml to webserver and daemon alone."""
    [deployment] = values["dagster-user-deployments"]["deployments"]
    mounts = {each["name"]: each for each in deployment["volumeMounts"]}
    assert mounts["instance"] == {
        "name": "instance",
        "mountPath": f"{DAGSTER_HOME}/dagster.yaml",
        "subPath": "dagster.yaml",
    }
    assert {"name": "instance", "configMap": {"name": INSTANCE_MAP}} in deployment["volumes"]


def test_the_charts_pods_get_secrets_by_reference_and_write_to_the_cache_alone(values):
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["envSecrets"] == [{"name": "rare-secrets"}]
    assert deployment["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["podSecurityContext"]["runAsNonRoot"] is True
    volumes = {volume.pop("name"): volume for volume in deployment["volumes"]}
    assert [
        mount["mountPath"]
        for mount in deployment["volumeMounts"]
        if "emptyDir" in volumes[mount["name"]]
    ] == ["/cache"]
    assert [name for name, volume in volumes.items() if "configMap" not in volume] == ["cache"]
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


@pytest.mark.parametrize("written", ["celery"], indirect=True)
def test_workers_fork_runs_from_what_has_imported_what_all_of_them_do(written):
    """Each run starts in a third less of a core's time; its process is its own, and ends with it."""
    command = services(written)["worker"]["command"]
    assert "--include=rare_assets.resources.preloaded" in command
    assert "--max-tasks-per-child=1" in command
    assert importlib.util.find_spec("rare_assets.resources.preloaded") is not None
