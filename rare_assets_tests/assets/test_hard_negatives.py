"""The asset `hard_negatives`: which index it accepts, and what a small corpus gives."""

import json
import re

import dagster as dg
import pytest

from rare_assets.assets import step_progress
from rare_assets.assets.hard_negatives import mining_metadata
from rare_assets.assets.step_progress import StepState
from rare_assets.command.plan import Planner
from rare_assets.operators.bm25_hard_neg import RULES, bm25_hard_neg
from rare_assets.stages.asking import UNANSWERED
from rare_assets.stages.options import Options
from rare_assets_tests.support.doubles import GivenRanking, questions, text_hash
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.support.passages import passage, write_jsonl

VERDICT = json.dumps({"explanation": "It shares the words alone.", "verdict": False})


def is_judging(body) -> bool:
    return "verdict" in json.dumps(body.get("response_format", {}))


@pytest.fixture
def graph(only_key_set, tmp_path):
    """Documents and questions of two shards, and no index yet."""
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(4))
        write_jsonl(graph.source / "b.jsonl", range(4, 8))
        graph.register()
        for shard in graph.shards:
            assert graph.make("questions_job", shard).success
        yield graph


def mine(graph, shard="a.jsonl", **options):
    return graph.make("rare_job", shard, "hard_negatives", hard_negatives=options)


def test_without_an_index_it_says_what_to_make(graph):
    result = mine(graph)
    assert not result.success
    assert "corpus_index" in failure_text(result)


def test_an_index_without_the_shard_is_refused_with_the_remedy(graph):
    assert graph.make("corpus_index_job").success
    write_jsonl(graph.source / "c.jsonl", range(8, 12))
    graph.register()
    assert graph.make("questions_job", "c.jsonl").success
    said = failure_text(mine(graph, "c.jsonl"))
    assert "does not hold shard 'c.jsonl'" in said
    assert "Materialize corpus_index" in said
    assert mine(graph, "a.jsonl").success


def test_an_index_with_older_content_of_the_shard_is_refused_with_the_remedy(graph):
    assert graph.make("corpus_index_job").success
    write_jsonl(graph.source / "a.jsonl", [*range(4), 9])
    graph.register()
    assert graph.make("questions_job", "a.jsonl").success
    said = failure_text(mine(graph))
    assert "older content of shard 'a.jsonl'" in said
    assert "Materialize corpus_index" in said
    assert graph.make("corpus_index_job").success
    assert mine(graph).success


def test_a_corpus_of_fewer_passages_keeps_what_there_is_and_a_check_warns(graph):
    assert graph.make("corpus_index_job").success
    result = mine(graph, num_neg=20)
    assert result.success
    rows = graph.tables.scan("hard_negatives", "a.jsonl").collect()
    others = {passage(number) for number in range(8)}
    found = rows["hard_negatives"].to_list()
    assert all(0 < len(texts) <= 7 and set(texts) <= others for texts in found)
    made = metadata(result, "hard_negatives")
    assert made["slots_unfilled"] == 4 * 20 - sum(len(texts) for texts in found)
    assert failed_checks(result) == ["hard_negatives/negatives_found"]
    (warned,) = (
        each
        for each in result.get_asset_check_evaluations()
        if each.check_name == "negatives_found"
    )
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.metadata["questions_with_fewer"].value == 4
    assert warned.metadata["num_neg"].value == 20


def test_metadata_tells_how_mining_came_out():
    texts = {doc_id: f"only{doc_id}" for doc_id in ("g1", "g2", "g3", "a", "b", "c")}
    texts["b"] = texts["a"]
    retriever = GivenRanking(
        texts,
        {
            "one": {"g1": 10.0, "a": 9.0, "b": 9.0, "c": 7.0},
            "two": {"a": 10.0, "c": 9.0, "g2": 8.0},
            "three": {},
        },
    )
    asked = questions(
        *(
            {
                "question_id": q,
                "doc_id": doc_id,
                "text_hash": text_hash(texts[doc_id]),
                "question": q,
            }
            for q, doc_id in (("one", "g1"), ("two", "g2"), ("three", "g3"))
        )
    )
    options = {"num_neg": 2, "relative_margin": 0.2, "fallback_range_min": None}
    figures = mining_metadata(bm25_hard_neg(asked, retriever, **options).stats)
    expected = {
        "negatives_found": 1,
        "negatives_per_question": 0.333,
        "candidates_dropped": 4,
        "negatives_kept": 0,
        "slots_unfilled": 5,
        "filled_beyond_margin": 0,
        "questions_without_negatives": 2,
        "gold_not_found": 1,
        "margin_not_applicable": 1,
        "negatives_by_gold": 0,
        "gold_first_rate": 0.3333,
        "mean_gold_rank": 2.0,
        "median_gold_rank": 2.0,
        **{f"dropped/{rule}": 0 for rule in RULES},
        "dropped/same_text": 1,
        "dropped/relative_margin": 3,
        **{f"score_gap/p{quantile}": 0.3 for quantile in (0, 10, 25, 50, 75, 90, 100)},
    }
    assert figures == pytest.approx(expected)


def test_which_state_of_the_index_was_used_is_recorded(graph):
    index = graph.make("corpus_index_job")
    result = mine(graph)
    state = metadata(index, "corpus_index")["index_state"]
    assert metadata(result, "hard_negatives")["index_state"] == state
    stored = graph.tables.provenance("hard_negatives", "a.jsonl")
    assert stored.made_from["index"] == state


def test_a_corpus_that_grows_a_little_keeps_its_negatives_and_one_that_grows_much_does_not(graph):
    assert graph.make("corpus_index_job").success
    assert mine(graph).success
    before = graph.tables.scan("hard_negatives", "a.jsonl").collect()

    def grow(name, numbers):
        write_jsonl(graph.source / name, numbers)
        graph.register()
        assert graph.make("documents_job", name).success
        assert graph.make("corpus_index_job").success
        result = mine(graph)
        assert result.success
        return metadata(result, "hard_negatives")["negatives_kept"]

    assert grow("c.jsonl", range(8, 9)) == 4
    assert graph.tables.scan("hard_negatives", "a.jsonl").collect().equals(before)
    # From 8 to 10 documents it has grown by more than a fifth only with the first growth counted.
    assert grow("d.jsonl", range(9, 11)) == 0


def test_passages_that_the_teacher_finds_relevant_are_replaced_and_named(only_key_set, tmp_path):
    def answer(body):
        prompt = body["messages"][-1]["content"]
        if not is_judging(body):
            return None
        (judged,) = re.findall(r"(?s)<passage-(\w+)>\n(.*)\n</passage-\1>", prompt)
        return json.dumps({"explanation": "Read.", "verdict": "Specimen nerve" in judged[1]})

    with FakeEndpoint(answer=answer) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(12))
        graph.register()
        assert graph.make("questions_job", "a.jsonl").success
        assert graph.make("corpus_index_job").success
        plain = {"remine_after_growth": 0.0, "relative_margin": 0.0}
        assert mine(graph, **plain).success
        before = graph.tables.scan("hard_negatives", "a.jsonl").collect()
        nerves = {f"p{number:03}" for number in range(12) if "Specimen nerve" in passage(number)}
        assert any(nerves & {n["doc_id"] for n in row} for row in before["negatives"])

        sent = len(endpoint.requests)
        result = mine(graph, judge_relevance=True, **plain)
        assert result.success, failure_text(result)
        after = graph.tables.scan("hard_negatives", "a.jsonl").collect()
        assert after["hard_negatives"].list.len().to_list() == [3] * 12
        assert not any(nerves & {n["doc_id"] for n in row} for row in after["negatives"])
        left_out = [doc_id for row in after["judged_relevant"] for doc_id in row]
        assert set(left_out) <= nerves
        assert left_out
        # One verdict a negative that was taken, and one a passage that was not.
        asked = len(endpoint.requests) - sent
        assert asked == 3 * 12 + len(left_out)
        made = metadata(result, "hard_negatives")
        assert (made["requests"], made["dropped/judged_relevant"]) == (asked, len(left_out))

        again = mine(graph, judge_relevance=True, **plain)
        assert metadata(again, "hard_negatives")["answers_reused"] == asked
        assert len(endpoint.requests) - sent == asked
        assert graph.tables.scan("hard_negatives", "a.jsonl").collect().equals(after)


def test_a_judge_that_stops_fails_the_shard_and_is_paid_once(only_key_set, tmp_path):
    with FakeEndpoint(answer=lambda body: VERDICT if is_judging(body) else None) as endpoint:
        graph = Graph(tmp_path, endpoint.url, max_requests=20)
        write_jsonl(graph.source / "a.jsonl", range(8))
        graph.register()
        assert graph.make("questions_job", "a.jsonl").success
        assert graph.make("corpus_index_job").success
        stopped = mine(graph, judge_relevance=True)
        assert "limit of 20 requests" in failure_text(stopped)
        assert len(endpoint.requests) == 8 + 20
        assert not graph.tables.exists("hard_negatives", "a.jsonl")
        # A run of its own may ask as many again; what was answered is not asked twice.
        assert mine(graph, judge_relevance=True).success
        assert len(endpoint.requests) == 8 + 3 * 8


def test_a_verdict_that_the_endpoint_failed_to_give_is_asked_for_by_the_next_run(
    only_key_set, tmp_path
):
    failing = ["Specimen nerve"]

    def fault_for(body):
        prompt = body["messages"][-1]["content"]
        (judged,) = re.findall(r"(?s)<passage-(\w+)>\n(.*)\n</passage-\1>", prompt) or [("", "")]
        return "server_error" if any(words in judged[1] for words in failing) else None

    with FakeEndpoint(
        answer=lambda body: VERDICT if is_judging(body) else None, fault_for=fault_for
    ) as endpoint:
        graph = Graph(tmp_path, endpoint.url, endpoint_wait=1.0)
        write_jsonl(graph.source / "a.jsonl", range(12))
        graph.register()
        assert graph.make("questions_job", "a.jsonl").success
        assert graph.make("corpus_index_job").success
        options = {"judge_relevance": True, "relative_margin": 0.0}
        assert mine(graph, **options).success
        before = graph.tables.provenance("hard_negatives", "a.jsonl")
        assert int(before.made_from[UNANSWERED]) > 0
        planner = Planner(
            graph.tables,
            graph.retriever,
            graph.teacher,
            Options.from_run_config({"ops": {"hard_negatives": {"config": options}}}),
        )
        stale = {each.stage: each.why for each in planner.asked("a.jsonl", planner.index_state())}
        assert stale["hard_negatives"] == UNANSWERED

        failing.clear()
        sent = len(endpoint.requests)
        assert mine(graph, **options).success
        again = endpoint.requests[sent:]
        # Not all of them: a candidate that is taken now was replaced by others then.
        assert 0 < len(again) <= int(before.made_from[UNANSWERED])
        assert all(
            "Specimen nerve" in request.body["messages"][-1]["content"].rpartition("<passage")[2]
            for request in again
        )
        after = graph.tables.provenance("hard_negatives", "a.jsonl")
        assert UNANSWERED not in after.made_from
        mined = graph.tables.scan("hard_negatives", "a.jsonl").collect()
        assert any("Specimen nerve" in text for row in mined["hard_negatives"] for text in row)


def test_how_far_mining_is_is_told(graph, monkeypatch):
    told = []
    monkeypatch.setattr(step_progress, "listeners", [told.append])
    assert graph.make("corpus_index_job").success
    assert mine(graph).success
    assert told == [StepState("hard_negatives", 0, 4), StepState("hard_negatives", 4, 4)]
