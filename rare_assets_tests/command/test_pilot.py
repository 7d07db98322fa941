"""`rare-assets pilot`, as a user types it, against an endpoint that counts."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, Graph
from rare_assets_tests.support.pilot import write_corpus

MODEL = "gpt-4o-mini"


@pytest.fixture
def endpoint():
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def pilot(nothing_set, tmp_path, monkeypatch, endpoint):
    """Runs the command on six documents with a sample of three."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "source")
    settings = {
        "RARE_SOURCE": "source",
        "RARE_STORAGE": "storage",
        "RARE_MODEL": MODEL,
        "OPENAI_BASE_URL": endpoint.url,
        "OPENAI_API_KEY": API_KEY,
        "RARE_MAX_CONCURRENCY": "2",
        "DAGSTER_HOME": str(tmp_path / "home"),
        "COLUMNS": "200",
    }
    for name, value in settings.items():
        nothing_set.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(main, ["pilot", "--documents", "3", *arguments])


def config(tmp_path, name, ops=None, **teacher):
    path = tmp_path / f"{name}.yaml"
    content = {"ops": {op: {"config": options} for op, options in (ops or {}).items()}}
    path.write_text(json.dumps({**content, "resources": {"teacher": {"config": teacher}}}))
    return "--config", str(path)


def tables_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_real_run_pays_only_for_the_rest(pilot, endpoint, tmp_path):
    done = pilot("--out", "p.html")
    assert done.exit_code == 0, done.output
    assert "3 of 6 documents" in done.output
    assert "at most 6 requests to send" in done.output
    assert len(endpoint.requests) == 6
    assert tables_in(tmp_path / "storage") == {"teacher_answers"}
    assert "<title>RARE data: pilot</title>" in (tmp_path / "p.html").read_text()

    graph = Graph(tmp_path / "graph", endpoint.url, storage=str(tmp_path / "storage"), model=MODEL)
    write_corpus(graph.source)
    assert all(result.success for result in graph.make_all())
    # Three more questions and their reasoning: the negatives were those that the run has found.
    assert len(endpoint.requests) == 12
    assert len({request.raw for request in endpoint.requests}) == 12

    again = pilot("--out", "p.html")
    assert "6 answers are stored, exactly 0 requests" in again.output
    assert len(endpoint.requests) == 12


def test_configurations_differ_in_model_prompts_and_options(pilot, endpoint, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "doc2query.md").write_text(
        "# System\nBe brief.\n# User\nOf:\n$document\n$wanted\n$reply\n"
    )
    one = config(tmp_path, "one", {"hard_negatives": {"num_neg": 1}}, model="gpt-4o")
    other = config(tmp_path, "other", prompts=str(prompts))
    done = pilot(*one, *other)
    assert done.exit_code == 0, done.output
    asked = [request.body for request in endpoint.requests]
    assert [body["model"] for body in asked].count("gpt-4o") == 6
    briefly = [body for body in asked if body["messages"][0]["content"] == "Be brief."]
    assert {body["model"] for body in briefly} == {MODEL}
    assert len(briefly) == 3
    html = (tmp_path / "storage/pilot/pilot.html").read_text()
    assert all(f"<bdi>{name}</bdi>" in html for name in ("one", "other"))
    assert "hard_negatives.num_neg" in html


def test_two_configurations_share_what_they_ask_alike(pilot, endpoint, tmp_path):
    done = pilot(
        *config(tmp_path, "a"), *config(tmp_path, "b", {"reasoning": {"temperature": 0.5}})
    )
    assert done.exit_code == 0, done.output
    assert len(endpoint.requests) == 3 + 3 + 3


def test_one_that_fails_leaves_the_others(pilot, endpoint, tmp_path):
    done = pilot(
        *config(tmp_path, "dead", base_url="http://127.0.0.1:9/v1", endpoint_wait=0.2),
        *config(tmp_path, "typo", {"questions": {"num_question": 2}}),
        *config(tmp_path, "lost", prompts=str(tmp_path / "none")),
        *config(tmp_path, "good"),
    )
    assert done.exit_code == 1
    assert "no option num_question" in done.output
    assert "RARE_PROMPTS: cannot read the folder" in done.output
    assert len(endpoint.requests) == 6
    html = (tmp_path / "storage/pilot/pilot.html").read_text()
    assert html.count("did not come to its end") == 3


def test_a_limit_holds_for_all_configurations_and_what_was_answered_is_shown(
    pilot, endpoint, tmp_path, nothing_set
):
    nothing_set.setenv("RARE_MAX_REQUESTS", "4")
    done = pilot(*config(tmp_path, "a"), *config(tmp_path, "b", model="gpt-4o"), "--out", "p.html")
    assert done.exit_code == 1
    assert "max_requests" in done.output
    assert len(endpoint.requests) == 4
    html = (tmp_path / "p.html").read_text()
    assert html.count('<div class="text question"') == 3


def test_a_configuration_goes_over_the_deployments_own_defaults(
    pilot, endpoint, tmp_path, nothing_set
):
    (tmp_path / "rare.yaml").write_text("ops: {questions: {config: {min_words: 10000}}}")
    nothing_set.setenv("RARE_CONFIG", str(tmp_path / "rare.yaml"))
    done = pilot(
        *config(tmp_path, "short"), *config(tmp_path, "all", {"questions": {"min_words": 1}})
    )
    assert done.exit_code == 0, done.output
    assert "short: 0 answers are stored, exactly 0 requests" in done.output
    assert len(endpoint.requests) == 6
    assert "3 too_short" in (tmp_path / "storage/pilot/pilot.html").read_text()


def test_an_estimate_sends_nothing(pilot, endpoint, tmp_path):
    done = pilot(
        "--dry-run", "--judge", *config(tmp_path, "a"), *config(tmp_path, "b", model="gpt-4o")
    )
    assert done.exit_code == 0, done.output
    assert "judge: at most 6 short requests" in done.output
    assert endpoint.requests == []
    assert not (tmp_path / "storage/pilot").exists()


def test_a_judge_compares_in_both_orders(pilot, endpoint, tmp_path):
    endpoint.answer = lambda body: (
        json.dumps({"explanation": "The first.", "better": "first"})
        if "Two examples were written" in body["messages"][-1]["content"]
        else None
    )
    done = pilot("--judge", *config(tmp_path, "a"), *config(tmp_path, "b", model="gpt-4o"))
    assert done.exit_code == 0, done.output
    judged = [
        r.body for r in endpoint.requests if "Two examples" in r.body["messages"][-1]["content"]
    ]
    assert len(judged) == 6
    assert {body["model"] for body in judged} == {MODEL}
    html = (tmp_path / "storage/pilot/pilot.html").read_text()
    # Neither won, no tie, and the orders disagree on all three documents.
    assert "<td>0</td><td>0</td><td>0</td><td>3</td><td>0</td><td>0</td>" in html


def test_each_stage_asks_its_own_teacher_and_pairs_the_judge(
    pilot, endpoint, tmp_path, nothing_set
):
    nothing_set.setenv("RARE_JUDGE_MODEL", "judge-1")
    a = config(tmp_path, "a", {"reasoning": {"judge_answers": True}}, reasoning_model="thinker-1")
    done = pilot("--judge", *a, *config(tmp_path, "b", reasoning_model="thinker-2"))
    assert done.exit_code == 0, done.output
    counts = Counter(request.body["model"] for request in endpoint.requests)
    assert (counts[MODEL], counts["thinker-1"], counts["thinker-2"]) == (3, 3, 3)
    # Verdicts on three answers, and on three pairs in both orders.
    assert counts["judge-1"] == 3 + 6
    html = (tmp_path / "storage/pilot/pilot.html").read_text()
    assert "model of reasoning" in html
    assert "judged by <bdi>judge-1</bdi>" in html


def test_the_estimate_goes_by_the_price_of_each_stages_teacher(pilot, endpoint, tmp_path):
    prices = {"prompt_usd_per_million": 0, "completion_usd_per_million": 1_000_000 / 900}
    (tmp_path / "prices.json").write_text(json.dumps({"models": {"thinker-1": prices}}))
    own = {"reasoning_model": "thinker-1", "prices": str(tmp_path / "prices.json")}
    done = pilot("--dry-run", *config(tmp_path, "a", model="free", **own))
    assert "cost unknown, no price" in done.output
    free = {"models": {"thinker-1": prices, "free": dict.fromkeys(prices, 0)}}
    (tmp_path / "prices.json").write_text(json.dumps(free))
    done = pilot("--dry-run", *config(tmp_path, "a", model="free", **own))
    # Three answers of 300 tokens at a dollar in all.
    assert "cost about $1.0000" in done.output, done.output


def test_verdicts_that_come_online_are_projected_at_the_full_price(
    pilot, endpoint, tmp_path, nothing_set
):
    nothing_set.setenv("RARE_JUDGE_MODEL", "judge-1")
    names = ("prompt_usd_per_million", "completion_usd_per_million")
    models = {MODEL: dict.fromkeys(names, 0), "judge-1": dict.fromkeys(names, 1.0)}
    (tmp_path / "prices.json").write_text(json.dumps({"models": models}))
    own = {"prices": str(tmp_path / "prices.json")}
    judged = {"judge_answers": True}
    online = config(tmp_path, "online", {"reasoning": judged}, **own)
    batch = config(tmp_path, "batch", {"reasoning": {**judged, "mode": "batch"}}, **own)
    done = pilot(*online, *batch)
    assert done.exit_code == 0, done.output
    cells = {
        name: line.split("│")
        for line in done.output.splitlines()
        for name in ("online", "batch")
        if line.startswith(f"│ {name} ")
    }
    *_, cost, time, _ = cells["online"]
    assert float(cost.strip().removeprefix("$")) > 0
    assert "batches" not in time
    assert cells["batch"][-3] == cost
    assert cells["batch"][-2].strip().startswith("up to a day in batches")


def test_five_configurations_are_too_many(pilot, endpoint, tmp_path):
    done = pilot(*(part for n in range(5) for part in config(tmp_path, f"c{n}")))
    assert (done.exit_code, endpoint.requests) == (1, [])
    assert "4 at most can be read" in done.output


def test_a_page_that_can_not_be_written_is_told(pilot, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = pilot("--out", "taken/p.html")
    assert done.exit_code == 1
    assert "can't be made" in done.output
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_file_of_somebody_else_is_left_alone_before_anything_is_paid(pilot, endpoint, tmp_path):
    (tmp_path / "notes.html").write_text("<title>My notes</title>")
    done = pilot("--out", "notes.html")
    assert done.exit_code == 1
    assert "was not written by rare-assets" in done.output
    assert (tmp_path / "notes.html").read_text() == "<title>My notes</title>"
    assert endpoint.requests == []


def test_files_of_one_name_are_told_apart(pilot, tmp_path):
    (tmp_path / "x").mkdir()
    done = pilot(*config(tmp_path, "a"), *config(tmp_path / "x", "a", model="gpt-4o"), "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'a.yaml'}: " in done.output
    assert f"{tmp_path / 'x/a.yaml'}: " in done.output


def test_a_stored_corpus_is_left_as_it_is(pilot, endpoint, tmp_path):
    graph = Graph(tmp_path / "graph", endpoint.url, storage=str(tmp_path / "storage"), model=MODEL)
    write_corpus(graph.source)
    graph.make_all()
    tables = ParquetTables(str(tmp_path / "storage"))
    stored = [tables.provenance(table, "0.jsonl") for table in ("questions", "reasoning")]
    assert pilot(*config(tmp_path, "b", model="gpt-4o")).exit_code == 0
    assert [tables.provenance(table, "0.jsonl") for table in ("questions", "reasoning")] == stored
