"""Real Elasticsearch nodes for the tests, without Docker.

The distribution is the one that Elasticsearch publishes for integration tests on Maven Central,
plus the analyzers of languages that it lacks (`elasticsearch_analysis/`). It needs Maven, or the
distribution already in the local Maven repository, and a JDK of at least 21.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pwd
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from rare_assets_tests.support.memory import MEMORY
from rare_assets_tests.support.ports import free_port
from rare_assets_tests.support.shared_server import Facts, common_folder, shared_server

VERSION = "9.5.0"
JAVA = 21
COORDINATES = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
PLUGIN = Path(__file__).parent / "elasticsearch_analysis"

# Compiling less takes half of the time off a start, and verifying nothing a tenth; a benchmark wants something else.
QUICK = (
    "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions"
    " -XX:-BytecodeVerificationRemote"
)

# Kills its own process group once standard input ends, so no node outlives the tests.
GUARD = 'exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) 2>/dev/null & exec "$0" "$@" 3<&- </dev/null'


_keystores: dict[str, bytes] = {}  # by password, since each takes seconds to make


class Unavailable(Exception):
    """No Elasticsearch can be started here; the message says what is missing."""


def java_release(home: Path) -> int:
    """Major version that a JDK's `release` file gives, 0 if it has none."""
    with contextlib.suppress(OSError):
        for line in (home / "release").read_text().splitlines():
            key, _, value = line.partition("=")
            if key == "JAVA_VERSION":
                return int(value.strip('"').split(".")[0].split("-")[0].split("+")[0])
    return 0


def find_jdk() -> Path:
    """Home of a JDK (with compiler) that can run the node: named by a variable, or installed."""
    named = [Path(os.environ[name]) for name in ("ES_JAVA_HOME", "JAVA_HOME") if name in os.environ]
    installed = [
        *Path("/usr/lib/jvm").glob("*"),
        *Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"),
    ]
    for home in [*named, *sorted(installed)]:
        if java_release(home) >= JAVA and (home / "bin" / "javac").exists():
            return home.resolve()
    raise Unavailable(
        f"Elasticsearch {VERSION} needs a JDK >= {JAVA}: install one and set ES_JAVA_HOME"
    )


def cache_folder() -> Path:
    """Where the unpacked distribution stays from run to run; readable for the node's user."""
    if os.geteuid() == 0:
        return Path("/var/cache/rare_assets_tests")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rare_assets_tests"


def archive() -> Path:
    """The distribution's zip in the local Maven repository, fetched if it is not there."""
    group, artifact, version, kind = COORDINATES.split(":")
    path = (
        Path.home()
        / ".m2/repository"
        / group.replace(".", "/")
        / artifact
        / version
        / f"{artifact}-{version}.{kind}"
    )
    if path.exists():
        return path
    command = ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={COORDINATES}"]
    how = f"get it with `{' '.join(command)} -Dtransitive=false`, or set ELASTICSEARCH_URL"
    if not shutil.which("mvn"):
        raise Unavailable(f"no Maven (mvn) and no {path}: {how}")
    try:
        subprocess.run(
            [*command, "-Dtransitive=false"], check=True, capture_output=True, timeout=900
        )
    except subprocess.SubprocessError as error:
        output = (getattr(error, "stdout", None) or b"").decode(errors="replace")
        raise Unavailable(f"{how}: {error} {output[-500:]}") from None
    if not path.exists():
        raise Unavailable(f"Maven did not put the distribution into {path}: {how}")
    return path


def unpack(source: Path, target: Path) -> None:
    """Unpack a zip together with the files' modes, which zipfile alone loses."""
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-q", str(source), "-d", str(target)], check=True)
        return
    with zipfile.ZipFile(source) as packed:
        for member in packed.infolist():
            path = packed.extract(member, target)
            if mode := member.external_attr >> 16:
                os.chmod(path, mode)


def add_analyzers(home: Path, jdk: Path) -> None:
    """Compile the analyzers against the distribution and install them as a plugin."""
    folder = home / "plugins" / "analysis"
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as classes:
        options = ["--release", str(JAVA), "-proc:none", "-d", classes, "-cp", f"{home}/lib/*"]
        sources = map(str, PLUGIN.glob("*.java"))
        subprocess.run([str(jdk / "bin" / "javac"), *options, *sources], check=True)
        with zipfile.ZipFile(folder / "analysis.jar", "w") as jar:
            for path in sorted(Path(classes).rglob("*.class")):
                jar.write(path, path.relative_to(classes))
    shutil.copy(PLUGIN / "named_components.json", folder)
    descriptor = (PLUGIN / "stable-plugin-descriptor.properties").read_text()
    (folder / "stable-plugin-descriptor.properties").write_text(
        descriptor.replace("${elasticsearch.version}", VERSION)
    )


def distribution(jdk: Path) -> Path:
    """Home of the unpacked distribution with the analyzers, made once and kept in the cache."""
    plugin = hashlib.sha256()
    for path in sorted(PLUGIN.iterdir()):
        plugin.update(path.read_bytes())
    home = cache_folder() / f"elasticsearch-{VERSION}-{plugin.hexdigest()[:8]}"
    if home.exists():
        return home
    source = archive()
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        unpack(source, Path(scratch))
        (made,) = Path(scratch).iterdir()
        add_analyzers(made, jdk)
        for path in [made, *made.rglob("*")]:
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        with contextlib.suppress(OSError):  # another test session was faster
            made.rename(home)
    return home


class ElasticsearchNode:
    """One node on loopback, in a folder and a process group of its own.

    It keeps its port and its data when it is killed and started again. Root starts it as
    `nobody`, since Elasticsearch refuses to run as root.

    Args:
        password: switches security on; the user is `elastic`.
        certificates: folder made by `make_certificates`; HTTP then speaks TLS.
        settings: further settings of the node.
        java_options: for the node's Java.
    """

    def __init__(
        self,
        *,
        name: str = "node",
        password: str | None = None,
        certificates: Path | None = None,
        settings: Mapping[str, str] | None = None,
        java_options: str = QUICK,
    ) -> None:
        self.jdk = find_jdk()
        self.home = distribution(self.jdk)
        self.name = name
        self.password = password
        self.certificates = certificates
        self.java_options = java_options
        self.port = free_port()
        self.transport_port = free_port()
        self.settings = dict(settings or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="rare_assets_tests-"))
        config = self.folder / "config"
        shutil.copytree(self.home / "config", config)
        for part in ("logs", "tmp"):
            (self.folder / part).mkdir()
        self.data = Path(tempfile.mkdtemp(prefix="rare_assets_tests-", dir=MEMORY))
        if certificates:
            for path in certificates.glob("*"):
                shutil.copy(path, config)
        self._own()
        if password:
            keystore = config / "elasticsearch.keystore"
            if not (made := _keystores.get(password)):
                arguments = ("add", "--force", "--stdin", "bootstrap.password")
                self._run("elasticsearch-keystore", *arguments, stdin=password.encode())
                made = _keystores[password] = keystore.read_bytes()
            keystore.write_bytes(made)
            self._own()

    @property
    def folders(self) -> tuple[Path, Path]:
        return self.folder, self.data

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    @property
    def ca_certs(self) -> str | None:
        return str(self.certificates / "ca.crt") if self.certificates else None

    def start(self, wait: bool = True, lives_with: int = subprocess.PIPE) -> None:
        """Start the node (again); raises RuntimeError with its log if it can't.

        Args:
            wait: until it answers.
            lives_with: open file at whose end the node ends; default, with this process.
        """
        settings = {
            "node.name": self.name,
            "http.port": str(self.port),
            "transport.port": str(self.transport_port),
            "path.data": str(self.data),
            "path.logs": str(self.folder / "logs"),
            "discovery.type": "single-node",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "xpack.security.enabled": "true" if self.password else "false",
            **self.settings,
        }
        if settings["discovery.type"] == "multi-node":
            del settings["discovery.type"]
        if self.certificates:
            settings |= {
                "xpack.security.http.ssl.enabled": "true",
                "xpack.security.http.ssl.key": "node.key",
                "xpack.security.http.ssl.certificate": "node.crt",
            }
        options = itertools.chain.from_iterable(("-E", f"{k}={v}") for k, v in settings.items())
        with open(self.folder / "logs" / "console.log", "ab") as console:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, self.home / "bin" / "elasticsearch", *options],
                stdin=lives_with,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.folder,
                start_new_session=True,
                **self._as_user(),
            )
        if wait:
            self.wait()

    def wait(self, seconds: float = 180, nodes: int = 1) -> None:
        """Wait until the node answers as part of a cluster of that many nodes."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.process, "start the node first"
            with contextlib.suppress(OSError):
                health = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
                if health["number_of_nodes"] >= nodes and not health["timed_out"]:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                console = (self.folder / "logs" / "console.log").read_text(errors="replace")
                raise RuntimeError(f"the Elasticsearch node did not start:\n{console[-4000:]}")
            time.sleep(0.2)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send one request without a client; raises OSError if that fails."""
        headers = {"Content-Type": "application/json"}
        if self.password:
            token = b64encode(f"elastic:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=self.ca_certs) if self.certificates else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the node's process group; SIGKILL waits for its end."""
        if not self.process:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()
            if self.process.stdin:
                self.process.stdin.close()
            self.process = None

    def close(self) -> None:
        """Kill the node and remove its folders."""
        self.kill()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "ES_JAVA_HOME": str(self.jdk),
            "ES_JAVA_OPTS": self.java_options,
            "CLI_JAVA_OPTS": QUICK,
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_TMPDIR": str(self.folder / "tmp"),
        }

    def _as_user(self) -> dict[str, Any]:
        if not self.user:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def _own(self) -> None:
        if self.user:
            for path in [self.data, self.folder, *self.folder.rglob("*")]:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def _run(self, tool: str, *arguments: str, stdin: bytes = b"") -> None:
        done = subprocess.run(
            [self.home / "bin" / tool, *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{tool} failed: {done.stdout.decode(errors='replace')[-2000:]}")


def make_certificates(folder: Path) -> Path:
    """Make `ca.crt` and a loopback node's `node.crt` and `node.key` in that folder."""
    authority = trustme.CA()
    node = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    node.private_key_pem.write_to_path(folder / "node.key")
    node.cert_chain_pems[0].write_to_path(folder / "node.crt")
    return folder


class ElasticsearchCluster:
    """Several nodes on loopback that form one cluster; options as for a node. The first is its only master."""

    def __init__(self, size: int, **options: Any) -> None:
        self.nodes = [ElasticsearchNode(name=f"node-{i}", **options) for i in range(size)]
        for node in self.nodes:
            node.settings |= {
                "cluster.name": f"rare-{uuid.uuid4().hex[:8]}",
                "discovery.type": "multi-node",
                "discovery.seed_hosts": ",".join(
                    f"127.0.0.1:{peer.transport_port}" for peer in self.nodes
                ),
                "cluster.initial_master_nodes": self.nodes[0].name,
            }
        for node in self.nodes[1:]:
            node.settings["cluster.name"] = self.nodes[0].settings["cluster.name"]
            node.settings["node.roles"] = "data,ingest"

    @property
    def url(self) -> str:
        """All nodes, as ELASTICSEARCH_URL takes them."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait(nodes=len(self.nodes))

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def skip_or_fail(error: Unavailable) -> None:
    """Skip the test, unless RARE_TESTS_REQUIRE_ELASTICSEARCH=1 says that it must run."""
    if os.environ.get("RARE_TESTS_REQUIRE_ELASTICSEARCH") == "1":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def elasticsearch_node() -> Iterator[ElasticsearchNode]:
    """A node that no other worker uses. Tests may kill it, if they start it again."""
    try:
        node = ElasticsearchNode()
    except Unavailable as error:
        skip_or_fail(error)
    try:
        node.start()
        yield node
    finally:
        node.close()


def _start(lives_with: int) -> Facts:
    node = ElasticsearchNode()
    node.start(lives_with=lives_with)
    assert node.process
    return {"url": node.url, "group": node.process.pid, "folders": [*map(str, node.folders)]}


def _end(facts: Facts) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(facts["group"], signal.SIGKILL)
    for folder in map(Path, facts["folders"]):
        # It goes on writing until it has ended, which only its parent hears of.
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


@pytest.fixture(scope="session")
def elasticsearch_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of an Elasticsearch that all workers use: $ELASTICSEARCH_URL, or the tests' own node."""
    if url := os.environ.get("ELASTICSEARCH_URL"):
        yield url
        return
    folder = common_folder(request, tmp_path_factory) / "elasticsearch"
    try:
        with shared_server(folder, _start, _end) as facts:
            yield facts["url"]
    except Unavailable as error:
        skip_or_fail(error)


@pytest.fixture
def elasticsearch_index(elasticsearch_url: str) -> Iterator[str]:
    """Name of an index of the test's own; it and what is called `<name>-...` is removed after."""
    from elasticsearch import Elasticsearch

    name = f"rare-test-{uuid.uuid4().hex[:12]}"
    yield name
    with Elasticsearch(elasticsearch_url.split(","), retry_on_timeout=True) as client:
        found = client.indices.get(
            index=f"{name}*", expand_wildcards="all", ignore_unavailable=True
        )
        for index in found:
            client.indices.delete(index=index, ignore_unavailable=True)


if (
    __name__ == "__main__"
):  # start a node by hand: python -m rare_assets_tests.support.elasticsearch_node
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    started = ElasticsearchNode()
    try:
        started.start()
        print(started.url, flush=True)
        signal.pause()
    except Unavailable as error:
        sys.exit(str(error))
    finally:
        started.close()
