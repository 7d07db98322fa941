"""A teacher for each stage: who is asked what and where, and that a storage made by one stays current."""

import json

import polars as pl
import pytest

from rare_assets.command.plan import Planner
from rare_assets.corpus.scan import scan_source
from rare_assets.resources.configurable import TeacherModel, teacher_of
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets.stages.options import Options
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, Graph
from rare_assets_tests.support.passages import write_jsonl

A = "a.jsonl"
JUDGED = {
    "questions": {"judge_questions": True},
    "hard_negatives": {"judge_relevance": True},
    "reasoning": {"judge_answers": True},
}


@pytest.fixture
def graph(nothing_set, tmp_path):
    nothing_set.setenv("OPENAI_API_KEY", API_KEY)
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        graph.endpoint = endpoint
        write_jsonl(graph.source / A, range(6))
        graph.register()
        yield graph


def asked(endpoint):
    """Models in the order in which they were first asked."""
    return list(dict.fromkeys(request.body["model"] for request in endpoint.requests))


def stale(graph, **options):
    """What a run would make again, by table."""
    run_config = {"ops": {stage: {"config": config} for stage, config in options.items()}}
    planner = Planner(
        graph.tables, graph.retriever, graph.teacher, Options.from_run_config(run_config)
    )
    scan_source(graph.corpus.source(), graph.tables, registered_shards(graph.instance, UNNAMED))
    return [each.stage for each in planner.asked(A, planner.index_state())]


def test_without_a_setting_of_its_own_every_stage_has_the_same_teacher(graph):
    for role in ("questions", "reasoning", "judge"):
        assert teacher_of(graph.teacher, role) is graph.teacher


def test_each_stage_asks_its_own_model_and_the_judge_another(graph, nothing_set):
    nothing_set.setenv("RARE_QUESTIONS_MODEL", "writer")
    nothing_set.setenv("RARE_REASONING_MODEL", "reasoner")
    nothing_set.setenv("RARE_JUDGE_MODEL", "judge")
    assert graph.make("documents_job", A).success
    assert graph.make("corpus_index_job").success
    graph.make("rare_job", A, "questions", questions=JUDGED["questions"])
    assert asked(graph.endpoint) == ["writer", "judge"]
    graph.endpoint.requests.clear()
    graph.make("rare_job", A, "hard_negatives", hard_negatives=JUDGED["hard_negatives"])
    assert asked(graph.endpoint) == ["judge"]
    graph.endpoint.requests.clear()
    graph.make("rare_job", A, "reasoning")
    assert asked(graph.endpoint) == ["reasoner"]


def test_a_stage_whose_teacher_was_changed_is_made_again_and_no_other(graph, nothing_set):
    assert all(result.success for result in graph.make_all())
    assert stale(graph) == []
    nothing_set.setenv("RARE_JUDGE_MODEL", "judge")
    assert stale(graph) == []
    nothing_set.setenv("RARE_REASONING_MODEL", "reasoner")
    assert stale(graph) == ["reasoning"]
    graph.endpoint.requests.clear()
    assert graph.make("rare_job", A, "reasoning").success
    assert asked(graph.endpoint) == ["reasoner"]
    assert stale(graph) == []
    assert set(graph.rows("questions")["model"]) == {"fake-teacher"}
    made_from = graph.tables.provenance("reasoning", A).made_from
    assert made_from["teacher"] == "reasoner"
    assert "judge" not in made_from


def test_an_endpoint_of_its_own_gets_its_own_key_and_no_secret_of_the_other(graph, nothing_set):
    nothing_set.setenv("RARE_EXTRA_HEADERS", json.dumps({"X-Gateway": "h1dd3n"}))
    with FakeEndpoint() as other:
        nothing_set.setenv("RARE_REASONING_BASE_URL", other.url)
        nothing_set.setenv("RARE_REASONING_API_KEY", "sk-reasoning")
        assert all(result.success for result in graph.make_all())
        assert len(graph.endpoint.requests) == len(other.requests) == 6
        sent = [{k.lower(): v for k, v in request.headers.items()} for request in other.requests]
        assert {each["authorization"] for each in sent} == {"Bearer sk-reasoning"}
        assert not any("x-gateway" in each for each in sent)
        general = [
            {k.lower(): v for k, v in request.headers.items()}
            for request in graph.endpoint.requests
        ]
        assert {each["x-gateway"] for each in general} == {"h1dd3n"}
        assert {each["authorization"] for each in general} == {f"Bearer {API_KEY}"}
    assert isinstance(graph.rows("reasoning"), pl.DataFrame)


def test_a_key_is_in_no_repr(nothing_set, graph):
    nothing_set.setenv("RARE_JUDGE_API_KEY", "sk-h1dd3n")
    judge = teacher_of(graph.teacher, "judge")
    assert judge.role == "judge"
    assert "h1dd3n" not in repr(judge)
    assert isinstance(judge, TeacherModel)
