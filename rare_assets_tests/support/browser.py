"""A real browser on a real `rare-assets dev`: Chromium driven by Playwright, the server in a process group.

Required where RARE_TESTS_REQUIRE_BROWSER=1; elsewhere tests that need it are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import dagster as dg
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

from rare_assets_tests.support.ports import free_port

REQUIRED = "RARE_TESTS_REQUIRE_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--in-process-gpu",
]
SIZE = {"width": 1280, "height": 800}
START_SECONDS = 180
BACKFILL_SECONDS = 480
STOP_SECONDS = 30
LAUNCH_BACKFILL = """mutation($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters)
  { __typename ... on LaunchBackfillSuccess { backfillId } }
}"""


class DevServer:
    """`rare-assets dev` in a folder of its own, with its webserver, daemon and code server.

    A context manager; the whole process group is gone afterwards.

    Args:
        folder: working directory; storage and instance lie in it.
        environment: all that the server's processes get.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.port = free_port()
        self.log = folder / "dev.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        rare_assets = str(Path(sys.executable).with_name("rare-assets"))
        command = [rare_assets, "dev", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=dict(self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_loaded()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server as a terminal's Ctrl-C does; what is left of the group is killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            content = json.load(response)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def launch_backfill(
        self, assets: Sequence[str], shards: Sequence[str], run_config: Mapping[str, Any] = {}
    ) -> str:
        """Launch a backfill as the page of the graph does. Returns its id."""
        launched = self.ask(
            LAUNCH_BACKFILL,
            parameters={
                "assetSelection": [{"path": [asset]} for asset in assets],
                "partitionNames": list(shards),
                "runConfigData": dict(run_config),
            },
        )
        return launched["launchPartitionBackfill"]["backfillId"]

    def wait_for_backfill(self, backfill_id: str) -> str:
        """The status in which a backfill ends."""
        home = self.environment.get("DAGSTER_HOME", str(self.folder / ".rare" / "dagster"))
        deadline = time.monotonic() + BACKFILL_SECONDS
        with dg.DagsterInstance.from_config(home) as instance:
            while time.monotonic() < deadline:
                backfill = instance.get_backfill(backfill_id)
                if backfill is not None and backfill.status in BULK_ACTION_TERMINAL_STATUSES:
                    return backfill.status.value
                time.sleep(0.5)
        raise TimeoutError(f"backfill {backfill_id} has not ended:\n{self.log.read_text()}")

    def _wait_until_loaded(self) -> None:
        query = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}}}"
        deadline = time.monotonic() + START_SECONDS
        entries: list[dict[str, str]] = []
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                entries = self.ask(query)["workspaceOrError"]["locationEntries"]
                if entries == [{"name": "rare_assets", "loadStatus": "LOADED"}]:
                    return
            time.sleep(0.5)
        raise RuntimeError(f"no page, or no code location ({entries}):\n{self.log.read_text()}")


def find_chromium() -> str:
    """The installed browser's path. Skips the test where there is none, or fails if it is required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        _unavailable("no Chromium is installed: `apt-get install chromium`")
    assert found is not None
    return found


def require_minutes() -> None:
    """Skip the test where tests of the UI are not asked for."""
    if os.environ.get(REQUIRED) != "1":
        pytest.skip(f"tests of the UI take minutes: {REQUIRED}=1 runs them (with a Chromium)")


@pytest.fixture(scope="module")
def browser():
    """A profile of Chromium without a window, for one module: while it is open, Playwright's event loop runs
    in this thread, and no run of Dagster can be made in it."""
    require_minutes()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("no Playwright is installed: `pip install -e '.[test]'`")
    path = find_chromium()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = chromium.new_context(viewport=SIZE)
        context.set_default_timeout(60_000)
        yield context
        chromium.close()


@pytest.fixture(scope="module")
def tab(browser):
    """A tab that the tests of a module share: to load the UI takes longer than most of them."""
    tab = browser.new_page()
    yield tab
    tab.close()


@contextlib.contextmanager
def without_errors(tab: Any) -> Iterator[Any]:
    """The tab; asserts that the page's own scripts meet no error."""
    errors: list[str] = []

    def note(error: Any) -> None:
        errors.append(str(error))

    tab.on("pageerror", note)
    yield tab
    tab.remove_listener("pageerror", note)
    assert errors == []


@pytest.fixture
def page(tab):
    """The tab for one test, of the size that all begin with."""
    tab.set_viewport_size(SIZE)
    with without_errors(tab) as page:
        yield page


def visit(page: Any, url: str) -> None:
    """Show a page of the UI as a click on a link to it does; a tab without the UI loads it first.

    Returns once what stood there before is drawn no more.
    """
    parts = urlsplit(url)
    if not page.url.startswith(f"{parts.scheme}://{parts.netloc}/"):
        page.goto(url)
        return
    page.evaluate(
        "async url => { history.pushState(null, '', url);"
        " dispatchEvent(new PopStateEvent('popstate', {state: null}));"
        " for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame); }",
        url,
    )


def _unavailable(reason: str) -> None:
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, and {reason}", pytrace=False)
    pytest.skip(f"{reason} ({REQUIRED}=1 makes this an error)")
