"""What a webhook is told: failed runs and checks once each, and nothing of what went well."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from rare_assets.automation import watch
from rare_assets.build import build_defs
from rare_assets.definitions import defs
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import write_jsonl

tell_failures = next(sensor for sensor in defs.sensors if sensor.name == "tell_failures")


class Webhook:
    """A real server that keeps what is posted, or refuses it."""

    def __init__(self):
        hook = self
        self.posts, self.status = [], 200

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.status == 200:
                    hook.posts.append(json.loads(body))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=S3CR3T"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook():
    hook = Webhook()
    yield hook
    hook.server.shutdown()


@pytest.fixture
def graph(nothing_set, hook, tmp_path):
    nothing_set.setenv("OPENAI_API_KEY", "sk-x")
    nothing_set.setenv("RARE_WEBHOOK_URL", hook.url)
    nothing_set.setenv("RARE_UI_URL", "https://dagster.example/")
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(3))
        (graph.source / "b.parquet").write_bytes(b"PAR1 this is no Parquet file")
        graph.register()
        yield graph


class Ticks:
    def __init__(self, graph):
        self.graph, self.cursor = graph, None

    def __call__(self):
        context = dg.build_sensor_context(
            instance=self.graph.instance,
            cursor=self.cursor,
            repository_def=self.graph.defs.get_repository_def(),
        )
        result = tell_failures(context)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
        return result


def test_a_failed_check_and_its_run_are_told_once_with_shard_sentence_and_link(graph, hook):
    tick = Ticks(graph)
    tick()
    assert graph.make("documents_job", "a.jsonl").success
    failed = graph.make("documents_job", "b.parquet")
    assert not failed.success
    tick()
    assert {(post["event"], post["severity"], post["shard"]) for post in hook.posts} == {
        ("check_failed", "ERROR", "b.parquet"),
        ("run_failed", "ERROR", "b.parquet"),
    }
    (check,) = [post for post in hook.posts if post["event"] == "check_failed"]
    assert (check["asset"], check["check"]) == ("documents", "file_readable")
    assert "b.parquet" in check["sentence"]
    assert check["link"] == f"https://dagster.example/runs/{failed.run_id}"
    assert check["text"].startswith("ERROR: file_readable b.parquet: ")
    tick()
    assert len(hook.posts) == 2


def test_what_failed_before_it_was_switched_on_is_not_told(graph, hook):
    assert not graph.make("documents_job", "b.parquet").success
    tick = Ticks(graph)
    tick()
    tick()
    assert hook.posts == []


def test_a_post_that_is_refused_is_sent_again_and_the_url_is_in_no_message(graph, hook, caplog):
    tick = Ticks(graph)
    tick()
    assert not graph.make("documents_job", "b.parquet").success
    hook.status = 500
    result = tick()
    assert "0 posts sent, 2 are left" in result.skip_reason.skip_message
    assert "S3CR3T" not in caplog.text + result.skip_reason.skip_message
    hook.status = 200
    tick()
    assert len(hook.posts) == 2


def test_more_than_a_tick_may_post_follows_with_the_next(graph, hook, monkeypatch):
    monkeypatch.setattr(watch, "POSTS_PER_TICK", 3)
    tick = Ticks(graph)
    tick()
    for _ in range(2):
        assert not graph.make("documents_job", "b.parquet").success
    tick()
    assert len(hook.posts) == 3
    tick()
    assert len(hook.posts) == 4
    assert len({(post["event"], post["link"]) for post in hook.posts}) == 4


def test_runs_of_other_assets_are_not_told(graph, hook):
    @dg.asset
    def somebody_elses():
        raise ValueError("not ours")

    tick = Ticks(graph)
    tick()
    dg.materialize([somebody_elses], instance=graph.instance, raise_on_error=False)
    tick()
    assert hook.posts == []


def test_failures_of_assets_beside_ours_in_one_location_are_not_told(graph, hook):
    """A team's own, made by a job of its own or from the UI, and those of another corpus."""

    @dg.asset
    def somebody_elses():
        raise ValueError("not ours")

    beside = dg.Definitions(
        assets=[somebody_elses], jobs=[dg.define_asset_job("theirs", [somebody_elses])]
    )
    graph.defs = dg.Definitions.merge(beside, graph.defs, build_defs(name="legal"))
    graph.instance.add_dynamic_partitions("legal_rare_document_shards", ["b.parquet"])
    tick = Ticks(graph)
    tick()
    assert not graph.make("theirs").success
    assert not graph.make("__ASSET_JOB", None, "somebody_elses").success
    assert not graph.make("legal_documents_job", "b.parquet").success
    tick()
    assert hook.posts == []
    assert not graph.make("documents_job", "b.parquet").success
    tick()
    assert {post["event"] for post in hook.posts} == {"check_failed", "run_failed"}


def test_without_a_webhook_nothing_is_read(graph, nothing_set):
    nothing_set.delenv("RARE_WEBHOOK_URL")
    assert "RARE_WEBHOOK_URL is not set" in Ticks(graph)().skip_message
