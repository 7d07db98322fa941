"""The Dagster UI in a real browser: what a user does there, and what lies in the storage afterwards.

With RARE_TESTS_SCREENSHOTS=1 the pictures of the README are made anew.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import polars as pl
import pytest

from rare_assets.automation.instance import LOCATION, graph_page
from rare_assets.checks.by_table import CHECKS
from rare_assets.resources.dataset import UNNAMED
from rare_assets.schemas import TABLES
from rare_assets.settings import SAMPLE_CORPUS
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.browser import DevServer, visit, without_errors
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, MODEL, clean_environment
from rare_assets_tests.support.passages import passage, write_jsonl
from rare_assets_tests.support.written_teacher import written_answer

SCREENSHOTS = Path(__file__).parent / "screenshots"
GRAPH_PAGE = graph_page(LOCATION, "rare_data")
SHARDS = ("electrochemistry.jsonl", "nerve-and-heart.json", "ocean-and-weather.csv")
ASSETS = ("corpus_files", "documents", "corpus_index", "questions", "hard_negatives", "reasoning")
ASKED = ("questions", "reasoning")
# Headings of the example of each table.
READ = {
    "documents": ("Document", "From "),
    "questions": ("Gold document", "Scenario", "Question"),
    "hard_negatives": ("Searched with", "Gold document", "Hard negative 3"),
    "reasoning": (
        "Scenario",
        "Question",
        "Gold document",
        "Hard negative 3",
        "Reasoning",
        "Answer",
    ),
}
WIDE = {"width": 2200, "height": 1000}
TALL = {"width": 1280, "height": 1000}
# The plots, without the panel that says where the storage lies.
PLOTS = {"x": 240, "y": 104, "width": 728, "height": 696}
LINEAGE = {"x": 540, "y": 110, "width": 1660, "height": 890}
SLOW = "slow.jsonl"
SLOW_MARK = b"Specimen "
SLOW_ROWS = 8
RUN_SECONDS = 180
ADD_SHARD = """mutation($key: String!) {
  addDynamicPartition(partitionsDefName: "rare_document_shards", partitionKey: $key,
    repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "rare_assets"})
  { __typename }
}"""

WELL, ILL = "well.jsonl", "ill.jsonl"
ILL_ROWS = range(100, 124)
# The endpoint has no money left when it comes to these: enough for some to be sent after its last answer.
ILL_FROM = 104


class Deployment(NamedTuple):
    """A server with the UI, its teacher, and what it works on."""

    server: DevServer
    endpoint: FakeEndpoint
    source: Path
    home: Path
    tables: ParquetTables

    def register(self, shard: str) -> None:
        added = self.server.ask(ADD_SHARD, key=shard)["addDynamicPartition"]["__typename"]
        assert added in ("AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError")

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    def wait_for_run(self, run_id: str) -> dg.DagsterRunStatus:
        """The status in which a run ends."""
        deadline = time.monotonic() + RUN_SECONDS
        with self.instance() as instance:
            while time.monotonic() < deadline:
                run = instance.get_run_by_id(run_id)
                assert run is not None
                if run.is_finished:
                    return run.status
                time.sleep(0.5)
        raise TimeoutError(f"run {run_id} is still {run.status}")

    def command_line_of_run(self, run_id: str) -> str:
        """The command line of the process in which a run is under way; that of what it was forked from."""
        with self.instance() as instance:
            records = instance.get_records_for_run(
                run_id, of_type=dg.DagsterEventType.ENGINE_EVENT
            ).records
        events = [record.event_log_entry.get_dagster_event() for record in records]
        pids = [
            event.event_specific_data.metadata["pid"].value
            for event in events
            if "pid" in event.event_specific_data.metadata
        ]
        return Path(f"/proc/{pids[0]}/cmdline").read_text()

    def materializations(self, asset: str) -> list[dg.EventLogRecord]:
        """All materializations of an asset, oldest first."""
        with self.instance() as instance:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        return list(reversed(records))


@pytest.fixture(scope="module")
def deployment(browser, tmp_path_factory):
    """Three files of the sample corpus, registered as the server starts; nothing is materialized."""
    folder = tmp_path_factory.mktemp("deployment")
    source = folder / "corpus"
    source.mkdir()
    for shard in SHARDS:
        shutil.copy(SAMPLE_CORPUS / shard, source)
    with FakeEndpoint(key=API_KEY, answer=written_answer) as endpoint:
        environment = clean_environment() | {
            "RARE_SOURCE": str(source),
            "RARE_STORAGE": str(folder / "storage"),
            "RARE_MODEL": MODEL,
            "RARE_MAX_CONCURRENCY": "2",
            "OPENAI_BASE_URL": endpoint.url,
            "OPENAI_API_KEY": API_KEY,
            "DAGSTER_HOME": str(folder / "home"),
        }
        with DevServer(folder, environment) as server:
            tables = ParquetTables(str(folder / "storage"))
            yield Deployment(server, endpoint, source, folder / "home", tables)


class Backfill(NamedTuple):
    id: str
    started: float


@pytest.fixture(scope="module")
def backfill(tab, deployment):
    """A finished backfill of the three shards over the whole graph, launched from its page."""
    started = time.time()
    with without_errors(tab) as page:
        page.goto(f"{deployment.server.url}{GRAPH_PAGE}")
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.get_by_role("dialog")
        choose(page, dialog, *SHARDS)
        dialog.get_by_role("button", name="Launch backfill").click()
        page.get_by_text("Created backfill").wait_for()
        page.get_by_text("View", exact=True).click()
        page.wait_for_url("**/runs/b/*")
        backfill_id = page.url.split("/runs/b/")[1].split("?")[0].split("/")[0]
        assert deployment.server.wait_for_backfill(backfill_id) == "COMPLETED_SUCCESS"
        page.get_by_text("100% completed").nth(len(ASSETS) - 2).wait_for()
        see(page, "Succeeded", exact=True)
        picture(page, "backfill")
    return Backfill(backfill_id, started)


def choose(page, dialog, *shards):
    """Pick partitions in the launch dialog."""
    dialog.get_by_text("Select a partition or create one").click()
    for shard in shards:
        page.get_by_role("menuitem", name=shard).click()
    page.keyboard.press("Escape")


def launch(page, deployment, asset, shard):
    """Materialize a shard from the asset's page; ends on the run's page. Returns the run's id."""
    page.goto(f"{deployment.server.url}/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    choose(page, dialog, shard)
    dialog.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url("**/runs/*")
    return page.url.split("/runs/")[1].split("?")[0]


def see(page, text, *, exact=False):
    """Wait until a text can be seen; pages hold some texts twice, once hidden to measure them."""
    page.get_by_text(text, exact=exact).filter(visible=True).first.wait_for()


def picture(page, name, **options):
    """A picture for the README, made only on request, so that tests leave the tree as it is."""
    if os.environ.get("RARE_TESTS_SCREENSHOTS") == "1":
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2000)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", **options)


def attempts(deployment, asset):
    """Answers that a table's rows and rejects took."""
    frames = [
        scan(asset, shard).select("attempts").collect()
        for shard in SHARDS
        for scan in (deployment.tables.scan, deployment.tables.scan_rejects)
    ]
    return pl.concat(frames)["attempts"].sum()


def test_a_fresh_server_has_the_shards_and_shows_the_state_of_their_files(page, deployment):
    with deployment.instance() as instance:
        assert instance.get_dynamic_partitions(UNNAMED.partitions_name) == list(SHARDS)
    page.goto(f"{deployment.server.url}/assets/corpus_files?view=events")
    see(page, "shards/new", exact=True)
    for shard in SHARDS:
        see(page, shard, exact=True)
    visit(page, f"{deployment.server.url}/automation")
    see(page, "watch_corpus")


def test_a_shard_is_materialized_from_its_page_and_its_checks_show_as_passed(page, deployment):
    shard = SHARDS[0]
    asked = len(deployment.endpoint.requests)
    run_id = launch(page, deployment, "documents", shard)
    assert deployment.wait_for_run(run_id) is dg.DagsterRunStatus.SUCCESS
    see(page, "Success", exact=True)
    see(page, "RUN_SUCCESS")

    rows = deployment.tables.scan("documents", shard).collect()
    source_rows = (deployment.source / shard).read_text().splitlines()
    assert rows.height == len(source_rows)
    assert deployment.materializations("documents")[-1].partition_key == shard
    assert len(deployment.endpoint.requests) == asked

    for check in CHECKS["documents"]:
        visit(
            page, f"{deployment.server.url}/assets/documents?view=checks&checkDetail={check.name}"
        )
        see(page, check.description[:40])
        see(page, "Passed", exact=True)
        see(page, shard)


def test_a_backfill_from_the_graph_makes_every_table_and_syncs_the_index_once(deployment, backfill):
    with deployment.instance() as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.id}))
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    run_ids = {run.run_id for run in runs}
    made = {
        asset: [record for record in deployment.materializations(asset) if record.run_id in run_ids]
        for asset in ASSETS[1:]
    }
    assert len(made["corpus_index"]) == 1
    for asset in TABLES:
        assert sorted(record.partition_key for record in made[asset]) == sorted(SHARDS)
    [synced] = made["corpus_index"]
    assert all(record.timestamp < synced.timestamp for record in made["documents"])
    assert all(record.timestamp > synced.timestamp for record in made["hard_negatives"])

    for shard in SHARDS:
        heights = {
            asset: deployment.tables.scan(asset, shard).collect().height
            + deployment.tables.scan_rejects(asset, shard).collect().height
            for asset in TABLES
        }
        assert heights["questions"] == deployment.tables.scan("documents", shard).collect().height
        assert (
            heights["hard_negatives"] == deployment.tables.scan("questions", shard).collect().height
        )
        assert deployment.tables.scan("reasoning", shard).collect().height > 0


def test_every_answer_of_the_backfill_was_asked_for_once(deployment, backfill):
    requests = [
        request.raw for request in deployment.endpoint.requests if SLOW_MARK not in request.raw
    ]
    assert len(requests) == sum(attempts(deployment, asset) for asset in ASKED)


def test_the_graph_shows_every_asset_in_its_group(page, deployment, backfill):
    visit(page, f"{deployment.server.url}/asset-groups")
    for group in ("rare_data", "exports"):
        see(page, group, exact=True)
    assert f"{deployment.server.url}{GRAPH_PAGE}" in deployment.server.log.read_text()
    visit(page, f"{deployment.server.url}{GRAPH_PAGE}")
    for asset in ASSETS:
        see(page, asset, exact=True)
    # At this width the graph fits with all that its nodes say.
    page.set_viewport_size(WIDE)
    page.reload()
    for kind in ("File", "Polars", "Parquet", "OpenAI"):
        see(page, kind, exact=True)
    picture(page, "lineage", clip=LINEAGE)


@pytest.mark.parametrize("asset", TABLES)
def test_the_page_of_a_table_says_what_its_columns_and_its_last_rows_are(
    page, deployment, backfill, asset
):
    visit(page, f"{deployment.server.url}/assets/{asset}?view=overview")
    for text in ("data-platform", "Parquet", "rare_assets"):
        see(page, text)
    page.get_by_title(f"{asset}.py").wait_for()
    for name, column in TABLES[asset].schema.columns().items():
        see(page, name, exact=True)
        see(page, column.description.partition("`")[0])
    visit(page, f"{deployment.server.url}/assets/{asset}?view=partitions&partition={SHARDS[1]}")
    for key in ("rows", "reject_rate", "made_with", "preview", "example", "details", "path"):
        see(page, key, exact=True)
    chart = page.locator("img[src^='data:image/svg+xml']")
    chart.wait_for()
    assert chart.evaluate("image => image.complete && image.naturalWidth > 0")
    path = deployment.tables.path(asset, SHARDS[1])
    see(page, str(path))
    first = deployment.tables.scan(asset, SHARDS[1]).head(1).collect().to_series(0)[0]
    see(page, first, exact=True)
    if asset == "hard_negatives":
        picture(page, "partition")
    where = page
    # What is longer than a thousand characters stands behind a button.
    button = page.get_by_text("[Show Markdown]").first
    if button.is_visible():
        button.click()
        where = page.get_by_role("dialog")
    for text in READ[asset]:
        where.get_by_text(text).first.wait_for()
    if asset == "reasoning":
        page.set_viewport_size(TALL)
        picture(page, "example")


def test_plots_of_a_table_are_drawn_over_its_shards(page, deployment, backfill):
    visit(page, f"{deployment.server.url}/assets/questions?view=overview")
    page.get_by_role("button", name="Plots").click()
    for key in ("rows", "reject_rate", "requests", "seconds"):
        page.get_by_text(key, exact=True).first.scroll_into_view_if_needed()
    assert 5 <= page.locator("canvas").count() <= 10
    picture(page, "plots", clip=PLOTS)


def test_checks_of_a_table_show_their_state_for_every_shard(page, deployment, backfill):
    visit(page, f"{deployment.server.url}/assets/hard_negatives?view=checks&checkDetail=contract")
    see(page, "Passed", exact=True)
    picture(page, "checks")
    page.get_by_role("tab", name="Partitions").last.click()
    see(page, f"Passed ({len(SHARDS)})")
    see(page, "Missing (0)")


def test_execute_all_judges_every_stored_shard_at_no_cost(page, deployment, backfill):
    asked = len(deployment.endpoint.requests)
    page.goto(f"{deployment.server.url}/assets/questions?view=checks")
    page.get_by_role("button", name="Execute all").click()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url("**/runs/*")
    run_id = page.url.split("/runs/")[1].split("?")[0]
    assert deployment.wait_for_run(run_id) is dg.DagsterRunStatus.SUCCESS
    assert len(deployment.endpoint.requests) == asked
    with deployment.instance() as instance:
        events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    judged = {
        (found.check_name, found.partition)
        for event in events
        if event
        and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
        and (found := event.asset_check_evaluation_data).partition
    }
    assert judged == {(check.name, shard) for check in CHECKS["questions"] for shard in SHARDS}


def test_a_run_of_the_command_shows_on_its_jobs_page_and_is_re_executed_there_at_no_cost(
    page, deployment, backfill
):
    asked = len(deployment.endpoint.requests)
    command = [str(Path(sys.executable).with_name("rare-assets")), "run"]
    subprocess.run(
        [*command, "--all", "--shard", SHARDS[0]],
        cwd=deployment.server.folder,
        env=dict(deployment.server.environment),
        check=True,
        capture_output=True,
    )
    assert len(deployment.endpoint.requests) == asked
    with deployment.instance() as instance:
        run = instance.get_runs(dg.RunsFilter(job_name="rare_job"), limit=1)[0]
    visit(page, f"{deployment.server.url}/locations/rare_assets/jobs/rare_job/runs")
    page.get_by_text(run.run_id[:8]).first.click()
    see(page, "Success", exact=True)
    picture(page, "run")

    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: run.run_id not in url)
    again = page.url.split("/runs/")[1].split("?")[0]
    assert deployment.wait_for_run(again) is dg.DagsterRunStatus.SUCCESS
    assert len(deployment.endpoint.requests) == asked


@pytest.fixture
def slow_shard(deployment):
    """A shard whose answers take five seconds; it is gone afterwards."""
    write_jsonl(deployment.source / SLOW, range(SLOW_ROWS))
    deployment.register(SLOW)
    deployment.endpoint.latency = 5
    yield SLOW
    deployment.endpoint.latency = 0
    # In this order: a sensor registers what is there.
    (deployment.source / SLOW).unlink()
    with deployment.instance() as instance:
        instance.delete_dynamic_partition(UNNAMED.partitions_name, SLOW)


def test_a_run_terminated_on_its_page_ends_before_its_work_is_done_and_keeps_its_answers(
    page, deployment, slow_shard
):
    def asked():
        return [r for r in deployment.endpoint.requests if SLOW_MARK in r.raw]

    documents = launch(page, deployment, "documents", slow_shard)
    assert deployment.wait_for_run(documents) is dg.DagsterRunStatus.SUCCESS
    run_id = launch(page, deployment, "questions", slow_shard)
    page.get_by_text(f"{SLOW_ROWS} requests to send").wait_for(timeout=RUN_SECONDS * 1000)
    while len(asked()) < 3:
        time.sleep(0.2)
    answered = sum(request.answered is not None for request in asked())
    assert "multiprocessing.forkserver" in deployment.command_line_of_run(run_id)
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    assert deployment.wait_for_run(run_id) is dg.DagsterRunStatus.CANCELED
    see(page, "Canceled", exact=True)
    before = len(asked())
    assert answered > 0
    assert before < SLOW_ROWS

    deployment.endpoint.latency = 0
    again = launch(page, deployment, "questions", slow_shard)
    assert deployment.wait_for_run(again) is dg.DagsterRunStatus.SUCCESS
    stored = deployment.tables.scan("questions", slow_shard).collect()
    assert stored.height == SLOW_ROWS
    assert len(asked()) - before <= SLOW_ROWS - answered


@pytest.fixture
def ill_shard(deployment):
    """Two shards, of which one can't be asked about to its end; they are gone afterwards."""
    write_jsonl(deployment.source / WELL, range(130, 134))
    write_jsonl(deployment.source / ILL, ILL_ROWS)
    refused = [passage(number) for number in ILL_ROWS if number >= ILL_FROM]
    # A short question, too: else it is these documents, and not the account, that can't be asked about.
    refused.append("What is a lake?")

    def fault_for(body):
        asked = body["messages"][-1]["content"]
        return "quota" if any(text in asked for text in refused) else None

    deployment.endpoint.fault_for = fault_for
    for shard in (WELL, ILL):
        deployment.register(shard)
    yield ILL
    deployment.endpoint.fault_for = None
    with deployment.instance() as instance:
        for shard in (WELL, ILL):
            (deployment.source / shard).unlink()
            instance.delete_dynamic_partition(UNNAMED.partitions_name, shard)


def test_a_failed_shard_of_a_backfill_stops_no_other_and_is_run_again_for_what_it_lacks(
    page, deployment, ill_shard
):
    def asked():
        texts = [passage(number).encode() for number in ILL_ROWS]
        return [r for r in deployment.endpoint.requests if any(text in r.raw for text in texts)]

    backfill_id = deployment.server.launch_backfill(["documents", "questions"], [ILL, WELL])
    assert deployment.server.wait_for_backfill(backfill_id) == "COMPLETED_FAILED"
    with deployment.instance() as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    assert {run.tags["dagster/partition"]: run.status for run in runs} == {
        WELL: success,
        ILL: failure,
    }
    assert deployment.tables.scan("questions", WELL).collect().height == 4
    assert not deployment.tables.exists("questions", ILL)
    visit(page, f"{deployment.server.url}/assets/questions?view=partitions&partition={ILL}")
    see(page, "Failed (1)")

    refused, deployment.endpoint.fault_for = deployment.endpoint.fault_for, None
    answered = [request for request in asked() if refused(request.body) is None]
    assert answered
    before = len(asked())
    again = launch(page, deployment, "questions", ill_shard)
    assert deployment.wait_for_run(again) is success
    assert deployment.tables.scan("questions", ILL).collect().height == len(ILL_ROWS)
    assert len(asked()) - before == len(ILL_ROWS) - len(answered)


def test_no_page_and_no_file_of_the_instance_holds_the_key(page, deployment, backfill):
    location = f"{deployment.server.url}/locations/rare_assets"
    for url in (
        f"{deployment.server.url}/config",
        f"{location}/resources/teacher",
        f"{location}/jobs/rare_job/playground",
    ):
        page.goto(url)
        page.wait_for_load_state("networkidle")
        assert API_KEY not in page.content()
    folders = (deployment.home, Path(str(deployment.tables.root)), deployment.server.log)
    files = [file for f in folders for file in (f.rglob("*") if f.is_dir() else [f])]
    holding = [file for file in files if file.is_file() and API_KEY.encode() in file.read_bytes()]
    assert holding == []
