"""The assets that ask the teacher: faults of every kind, dead endpoints, limits, and their way downstream."""

import json

import pytest

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.schemas import TABLES
from rare_assets.stages import hard_negatives, questions, reasoning
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault
from rare_assets_tests.support.graph import (
    API_KEY,
    MODEL,
    Graph,
    failed_checks,
    failure_text,
    metadata,
)
from rare_assets_tests.support.passages import write_jsonl

# Of the answer, of the transport, of the endpoint.
FAULTS = (
    *("empty", "null", "cut", "refusal", "filtered", "broken_json", "fenced"),
    *("dropped", "half_body", "not_json", "error_in_200", "server_error", "bad_gateway"),
    *(
        Fault("throttled", 0.05),
        Fault("throttled", date=True, seconds=1),
        Fault("unavailable", 0.05),
    ),
)
# Every fifth request meets the next kind of fault.
A_FIFTH = [fault for _ in range(4) for kind in FAULTS for fault in (None, None, None, None, kind)]
N_DOCUMENTS = 60
SHARD = "a.jsonl"


def prepared(folder, endpoint, numbers, **teacher):
    """A graph with documents of one shard and an index."""
    graph = Graph(folder, endpoint.url, **teacher)
    write_jsonl(graph.source / SHARD, numbers)
    graph.register()
    assert graph.make("documents_job", SHARD).success
    assert graph.make("corpus_index_job").success
    return graph


@pytest.fixture(scope="module")
def faulty(only_key_set, tmp_path_factory):
    """A run of both stages against an endpoint that fails in every way, and for two passages always."""
    always = {"Specimen pipe 005x": "refusal", "Specimen nerve 007x": "empty"}

    def fault_for(body):
        if "response_format" not in body:
            return None
        prompt = body["messages"][-1]["content"]
        return next((fault for words, fault in always.items() if words in prompt), None)

    with FakeEndpoint(script=A_FIFTH, fault_for=fault_for) as endpoint:
        graph = prepared(tmp_path_factory.mktemp("faulty"), endpoint, range(N_DOCUMENTS))
        result = graph.make("rare_job", SHARD)
        yield graph, endpoint, result


def test_faults_of_every_kind_lose_no_document(faulty):
    graph, endpoint, result = faulty
    assert result.success, failure_text(result)
    met = {kind.name if isinstance(kind, Fault) else kind for kind in FAULTS}
    assert met <= {request.fault for request in endpoint.requests}
    documents = graph.rows("documents")["doc_id"].to_list()
    for table in ("questions", "reasoning"):
        rows, rejects = graph.rows(table), graph.rejects(table)
        if table == "questions":
            assert sorted([*rows["doc_id"], *rejects["doc_id"]]) == documents
            asked = rows["question_id"].to_list()
        else:
            assert sorted([*rows["question_id"], *rejects["question_id"]]) == asked
    assert not [name for name in failed_checks(result) if name.endswith("/contract")]


def test_what_never_gave_a_usable_answer_is_rejected_with_the_raw_answer(faulty):
    graph, endpoint, _ = faulty
    rejects = {row["doc_id"]: row for row in graph.rejects("questions").iter_rows(named=True)}
    refused = rejects["p005"]
    assert (refused["reason"], refused["attempts"]) == ("refused", 3)
    assert "I can't help with that." in refused["detail"]
    assert (rejects["p007"]["reason"], rejects["p007"]["attempts"]) == ("empty", 3)
    sent = [r for r in endpoint.requests if "Specimen pipe 005x" in str(r.body["messages"][-1])]
    assert sum("response_format" in request.body for request in sent) >= 3


def test_a_rerun_after_faults_asks_nothing_and_rejects_the_same(faulty):
    graph, endpoint, _ = faulty
    before = [graph.rejects(table) for table in ("questions", "reasoning")]
    sent = len(endpoint.requests)
    assert graph.make("rare_job", SHARD).success
    assert len(endpoint.requests) == sent
    after = [graph.rejects(table) for table in ("questions", "reasoning")]
    assert all(first.equals(second) for first, second in zip(before, after, strict=True))


def test_a_shard_whose_questions_are_mostly_rejects_goes_no_further(only_key_set, tmp_path):
    with FakeEndpoint(shares={"refusal": 0.8}) as endpoint:
        graph = prepared(tmp_path, endpoint, range(12))
        result = graph.make("rare_job", SHARD, questions={"max_attempts": 1})
    assert not result.success
    assert failed_checks(result) == ["questions/rejects"]
    assert len(endpoint.requests) == 12
    assert graph.tables.exists("questions", SHARD)
    assert not graph.tables.exists("hard_negatives", SHARD)
    assert not graph.tables.exists("reasoning", SHARD)


@pytest.mark.parametrize("assets", [("hard_negatives", "reasoning"), ("reasoning",)])
def test_a_backfill_of_what_follows_a_blocked_shard_is_refused_and_pays_nothing(
    only_key_set, tmp_path, assets
):
    bad = []
    with FakeEndpoint(fault_for=lambda _: "refusal" if bad else None) as endpoint:
        graph = prepared(tmp_path, endpoint, range(12))
        assert graph.make("rare_job", SHARD).success
        bad.append(True)
        options = {"seed": 7, "max_attempts": 1}
        asked_anew = graph.make("rare_job", SHARD, "questions", questions=options)
        assert not asked_anew.success
        sent = len(endpoint.requests)
        again = graph.make("rare_job", SHARD, *assets)
        assert len(endpoint.requests) == sent
    assert not again.success
    assert "12 of 12 documents have no usable question" in failure_text(again)


def test_a_refused_key_fails_the_step_early_and_is_in_no_message(only_key_set, tmp_path):
    with FakeEndpoint(key="sk-another") as endpoint:
        graph = prepared(tmp_path, endpoint, range(40), max_concurrency=4)
        result = graph.make("rare_job", SHARD)
    assert not result.success
    assert len(endpoint.requests) <= 4
    said = failure_text(result)
    assert "401" in said
    assert "OPENAI_API_KEY" in said
    assert API_KEY not in said
    events = json.dumps([str(event) for event in result.all_events])
    assert API_KEY not in events
    assert not graph.tables.exists("questions", SHARD)


def test_a_limit_of_requests_stops_the_step_and_the_next_run_goes_on(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path, endpoint, range(12), max_requests=5)
        stopped = graph.make("rare_job", SHARD, "questions")
        assert not stopped.success
        assert "limit of 5 requests (max_requests)" in failure_text(stopped)
        assert len(endpoint.requests) == 5
        for _ in range(2):
            stopped = graph.make("rare_job", SHARD, "questions")
        assert stopped.success
        assert len(endpoint.requests) == 12
        assert metadata(stopped, "questions")["answers_reused"] == 10


def test_a_limit_holds_for_all_steps_of_a_run_together(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path, endpoint, range(12), max_requests=15)
        stopped = graph.make("rare_job", SHARD)
        assert not stopped.success
        assert "limit of 15 requests" in failure_text(stopped)
        assert len(endpoint.requests) == 15
        assert graph.tables.exists("questions", SHARD)
        assert graph.make("rare_job", SHARD).success
        assert len(endpoint.requests) == 24


def test_refresh_asks_again_what_is_stored(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path, endpoint, range(6))
        for refresh, sent in ((False, 6), (False, 6), (True, 12)):
            result = graph.make("rare_job", SHARD, "questions", questions={"refresh": refresh})
            assert result.success
            assert len(endpoint.requests) == sent


def test_several_questions_and_samples_make_a_row_each(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path, endpoint, range(5))
        result = graph.make(
            "rare_job",
            SHARD,
            questions={"num_questions": 2, "seed": 7},
            reasoning={"n": 3, "temperature": 1.0},
        )
        assert result.success, failure_text(result)
    questions = graph.rows("questions")
    assert questions["question_id"].to_list() == [
        f"p{number:03}-q{sample}" for number in range(5) for sample in range(2)
    ]
    reasoning = graph.rows("reasoning").select("question_id", "sample_index").rows()
    assert reasoning == [(each, index) for each in questions["question_id"] for index in range(3)]
    # Words drawn at random repeat themselves; what the tables promise holds.
    assert set(failed_checks(result)) <= {"questions/quality"}
    assert {request.body["model"] for request in endpoint.requests} == {MODEL}


def test_documents_too_short_to_reason_on_are_not_paid_for(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        source = write_jsonl(graph.source / SHARD, range(3))
        with source.open("a") as lines:
            lines.write('{"id": "short", "text": "Five words and no more."}\n')
        graph.register()
        assert graph.make("documents_job", SHARD).success
        assert graph.make("rare_job", SHARD, "questions").success
    assert len(endpoint.requests) == 3
    (reject,) = graph.rejects("questions").to_dicts()
    assert (reject["doc_id"], reject["reason"], reject["prompt_tokens"]) == (
        "short",
        "too_short",
        0,
    )


def test_a_damaged_file_of_answers_is_told_before_it_is_paid_for_again(only_key_set, tmp_path):
    """In the run's log ahead of the first request, and in the metadata."""
    with FakeEndpoint(key=API_KEY) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(4))
        graph.register()
        graph.make("documents_job", "a.jsonl")
        assert graph.make("rare_job", "a.jsonl", "questions").success
        (file,) = (tmp_path / "storage" / "teacher_answers").glob("segment-*.jsonl.gz")
        file.write_bytes(bytes(file.stat().st_size))
        sent = len(endpoint.requests)
        again = graph.make("rare_job", "a.jsonl", "questions")
        assert again.success
        assert metadata(again, "questions")["answers_unreadable"] >= 1
        assert len(endpoint.requests) - sent == 4
    lines = [e.user_message for e in graph.instance.all_logs(again.run_id) if e.user_message]
    told = [line for line in lines if f"{file.name} is damaged" in line]
    assert len(told) == 1
    estimated = next(line for line in lines if "requests to send" in line)
    assert lines.index(told[0]) < lines.index(estimated)


def test_a_storage_that_goes_under_a_run_fails_it(only_key_set, tmp_path):
    with FakeEndpoint(key=API_KEY) as endpoint:

        def lose(_):
            (tmp_path / "storage").rename(tmp_path / f"gone{len(endpoint.requests)}")

        graph = Graph(tmp_path, endpoint.url, max_concurrency=1)
        write_jsonl(graph.source / "a.jsonl", range(20))
        graph.register()
        graph.make("documents_job", "a.jsonl")
        endpoint.fault_for = lambda body: lose(body) if len(endpoint.requests) == 3 else None
        stopped = graph.make("rare_job", "a.jsonl", "questions")
    assert not stopped.success
    assert "are gone" in failure_text(stopped)
    assert len(endpoint.requests) <= 4


def test_what_a_shard_cost_stays_known_when_a_rerun_is_free(only_key_set, tmp_path):
    prices = tmp_path / "prices.json"
    each = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 10.0}
    prices.write_text(json.dumps({"models": {MODEL: each}}))
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path / "graph", endpoint, range(4), prices=str(prices))
        first, again = (graph.make("rare_job", SHARD) for _ in range(2))
    for table in ("questions", "reasoning"):
        rows = graph.rows(table)
        paid = (rows["prompt_tokens"].sum() + 10 * rows["completion_tokens"].sum()) / 1e6
        for result, new in ((first, paid), (again, 0.0)):
            told = metadata(result, table)
            costs = told["cost_usd"], told["all_time_cost_usd"]
            assert costs == pytest.approx((new, paid), abs=1e-6)
            tags = graph.instance.get_run_by_id(result.run_id).tags
            assert float(tags[f"rare_assets/cost_usd/{table}"]) == pytest.approx(new, abs=1e-6)


def test_where_every_answer_is_stored_the_operator_runs_once(only_key_set, tmp_path, monkeypatch):
    runs = []

    def counted(operator, name):
        def run(*given, **options):
            runs.append(name)
            return operator(*given, **options)

        return run

    monkeypatch.setattr(questions, "doc2query", counted(questions.doc2query, "questions"))
    monkeypatch.setattr(reasoning, "reason_distill", counted(reasoning.reason_distill, "reasoning"))
    with FakeEndpoint() as endpoint:
        graph = prepared(tmp_path, endpoint, range(12))
        assert graph.make("rare_job", SHARD).success
        # Once for the estimate, once to ask.
        assert runs == ["questions"] * 2 + ["reasoning"] * 2
        before = {table: (graph.rows(table), graph.rejects(table)) for table in TABLES}
        sent = len(endpoint.requests)
        again = graph.make("rare_job", SHARD)
        assert runs[4:] == ["questions", "reasoning"]
        assert len(endpoint.requests) == sent
    for table, (rows, rejects) in before.items():
        assert graph.rows(table).equals(rows)
        assert graph.rejects(table).equals(rejects)
    for table in ("questions", "reasoning"):
        told = metadata(again, table)
        assert (told["requests"], told["answers_reused"]) == (0, 12)
        assert told["reused_cost_usd"] is None


def test_an_estimate_of_what_is_judged_mines_a_sample(only_key_set, tmp_path, monkeypatch):
    mined = []

    def counted(asked, *given, **options):
        mined.append(asked.height)
        return bm25_hard_neg(asked, *given, **options)

    monkeypatch.setattr(hard_negatives, "bm25_hard_neg", counted)
    verdict = json.dumps({"explanation": "It shares the words alone.", "verdict": False})

    def answer(body):
        return verdict if "verdict" in json.dumps(body.get("response_format", {})) else None

    config = {"judge_relevance": True}
    with FakeEndpoint(answer=answer) as endpoint:
        graph = prepared(tmp_path, endpoint, range(12))
        assert graph.make("rare_job", SHARD, "questions").success
        monkeypatch.setattr(hard_negatives, "ESTIMATED_QUESTIONS", 5)
        result = graph.make("rare_job", SHARD, "hard_negatives", hard_negatives=config)
        assert result.success, failure_text(result)
        assert mined == [4, 12]
        lines = [e.user_message for e in graph.instance.all_logs(result.run_id) if e.user_message]
        said = f"{SHARD}: of 4 of 12 questions, 0 answers are stored, 12 requests to send"
        assert [line for line in lines if line.startswith(said)]
        # All of them at once, and all are stored: what the estimate mined is the result.
        monkeypatch.setattr(hard_negatives, "ESTIMATED_QUESTIONS", 12)
        config["remine_after_growth"] = 0.0
        assert graph.make("rare_job", SHARD, "hard_negatives", hard_negatives=config).success
        assert mined == [4, 12, 12]
