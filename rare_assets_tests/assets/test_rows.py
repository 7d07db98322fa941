"""What makes rows worth training on, through the whole graph: given questions, retries, prompts, refusals."""

import json
import re

from rare_assets.command.estimate import estimate
from rare_assets.command.plan import Planner
from rare_assets.stages.options import Options
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failed_checks, failure_text
from rare_assets_tests.support.passages import row

SHARD = "a.jsonl"
PUBMED = 40


def write(graph, rows):
    (graph.source / SHARD).write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def given(number):
    """A row as PubMedQA has them: a context, its own question, and yes or no."""
    words = " ".join(row(number)["text"].split()[:8])
    asked = {"question": f"Is the reading of number {number} above the mean, as in {words}?"}
    return row(number) | asked | {"answer": "yes" if number % 2 else "no"}


def test_a_source_with_its_own_questions_asks_for_none_and_compares_with_its_own_answers(
    only_key_set, tmp_path
):
    def answer(body):
        prompt = body["messages"][-1]["content"]
        number = int(re.search(r"reading of number (\d+)", prompt)[1])
        said = "Yes." if number % 2 or number < 10 else "no"
        return f"The table has it below or above, step by step. <answer>{said}</answer>"

    with FakeEndpoint(answer=answer) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write(graph, map(given, range(PUBMED)))
        graph.register()
        assert graph.make("documents_job", SHARD).success
        assert graph.make("corpus_index_job").success
        result = graph.make("rare_job", SHARD, "questions")
        assert result.success, failure_text(result)
        assert endpoint.requests == []
        result = graph.make("rare_job", SHARD, "hard_negatives")
        assert result.success, failure_text(result)
        run_config = {"ops": {"reasoning": {"config": {"rejection_samples": 8}}}}
        planner = Planner(
            graph.tables, graph.retriever, graph.teacher, Options.from_run_config(run_config)
        )
        shards = list(graph.corpus.source().shards())
        by_stage = {each.stage: each.requests for each in estimate(planner, graph.teacher, shards)}
        assert by_stage == {"questions": 0, "reasoning": 8 * PUBMED}
        result = graph.make("rare_job", SHARD, "reasoning", reasoning={"rejection_samples": 2})
        assert result.success, failure_text(result)
    questions, reasoning = graph.rows("questions"), graph.rows("reasoning")
    assert set(questions["origin"]) == {"given"}
    # Five even ones below ten get the wrong answer again and again.
    assert reasoning.height == PUBMED - 5
    assert reasoning["answer_correct"].all()
    assert reasoning["reference_answer"].to_list() == [
        "yes" if int(doc_id[1:]) % 2 else "no" for doc_id in reasoning["doc_id"]
    ]
    assert set(graph.rejects("reasoning")["reason"]) == {"wrong_answer", "wrong_answer_retried"}


def test_sampling_without_references_is_refused_before_a_question_is_paid_for(
    only_key_set, tmp_path
):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write(graph, [row(number) | {"answer": "yes"} for number in range(3)])
        *_, result = graph.make_all(reasoning={"rejection_samples": 8})
        assert not result.success
        assert "an `answer` alone belongs to no question" in failure_text(result)
        assert endpoint.requests == []


def test_prompts_say_title_type_length_wording_and_a_retry_what_was_wrong(only_key_set, tmp_path):
    answers = []

    def answer(body):
        if "response_format" not in body:
            return None
        answers.append(body["messages"][-1]["content"])
        asked = "Redis." if "An earlier answer" not in answers[-1] else "Why does the reading rise?"
        return json.dumps(
            {"question": asked, "scenario": "A clerk wonders.", "answer": "It warms."}
        )

    with FakeEndpoint(answer=answer) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        titled = row(0) | {"title": "Readings, API v2"}
        write(graph, [titled, *(row(number) for number in range(1, 5))])
        results = graph.make_all()
        assert all(result.success for result in results)
        first, *_ = [text for text in answers if "Readings, API v2" in text]
        assert re.search(r">\nReadings, API v2\n\n", first)
        for said in ("- Type: ", "- Length: ", "- Wording: "):
            assert said in first
        retried = [
            text for text in answers if "An earlier answer to this could not be used." in text
        ]
        assert len(retried) == 5
        assert all("The question 'Redis.' is too short" in text for text in retried)
        shown = [
            request.body["messages"][-1]["content"]
            for request in endpoint.requests
            if "response_format" not in request.body
        ]
        gold = [text for text in shown if "Readings, API v2\n\n" in text]
        assert gold
        sent = len(endpoint.requests)
        assert all(result.success for result in graph.make_all())
        assert len(endpoint.requests) == sent
    questions = graph.rows("questions")
    assert set(questions["attempts"]) == {2}
    assert set(questions["reference_answer"]) == {"It warms."}
    titles = {
        document["title"] for context in graph.rows("reasoning")["context"] for document in context
    }
    assert "Readings, API v2" in titles


def test_a_document_that_is_declined_costs_one_request_and_is_no_failure(only_key_set, tmp_path):
    def answer(body):
        if "response_format" in body:
            return json.dumps({"question": None, "reason": "A list of links."})
        return None

    with FakeEndpoint(answer=answer) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write(graph, [row(number) for number in range(6)])
        results = graph.make_all()
        assert all(result.success for result in results)
        assert len(endpoint.requests) == 6
    assert graph.rejects("questions").select("reason", "detail", "attempts").unique().rows() == [
        ("unsuitable_document", "A list of links.", 1)
    ]
    assert "questions/rejects" not in failed_checks(*results)


def test_judged_questions_are_asked_about_once_each_and_counted(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write(graph, [row(number) for number in range(4)])
        graph.register()
        assert graph.make("documents_job", SHARD).success
        config = {"judge_questions": True}
        planner = Planner(
            graph.tables,
            graph.retriever,
            graph.teacher,
            Options.from_run_config({"ops": {"questions": {"config": config}}}),
        )
        graph.make("corpus_index_job")
        shards = list(graph.corpus.source().shards())
        by_stage = {each.stage: each.requests for each in estimate(planner, graph.teacher, shards)}
        assert by_stage["questions"] == 8
        for _ in range(2):
            result = graph.make("rare_job", SHARD, "questions", questions=config)
            assert result.success, failure_text(result)
            assert len(endpoint.requests) == 8
    judged = graph.rows("questions")["judged"].to_list()
    assert [set(each.values()) for each in judged] == [{True}] * 4
