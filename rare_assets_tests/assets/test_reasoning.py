"""Reasoning against gold answers: other samples where the first is wrong, and the teacher as a judge."""

import json

import pytest

from rare_assets_tests.support.fake_batch_endpoint import FakeBatchEndpoint
from rare_assets_tests.support.graph import API_KEY, Graph, failure_text, metadata
from rare_assets_tests.support.passages import row

SHARD = "a.jsonl"
N_DOCUMENTS = 6
GOLD = "1000 m"
RIGHT, WRONG = "a kilometre", "a mile"
OPTIONS = {"rejection_samples": 4, "judge_answers": True}


def is_judging(body) -> bool:
    return "verdict" in json.dumps(body.get("response_format", {}))


@pytest.mark.parametrize("mode", ["online", "batch"])
def test_a_judge_decides_which_sample_is_right(mode, only_key_set, tmp_path):
    seen = {}

    def answer(body):
        prompt = body["messages"][-1]["content"]
        if is_judging(body):
            said = json.dumps({"explanation": "Compared.", "verdict": f"\n{RIGHT}\n" in prompt})
        elif "response_format" in body:
            return None
        else:
            # The second sample of every question is right.
            seen[prompt] = seen.get(prompt, 0) + 1
            said = f"Step by step. <answer>{RIGHT if seen[prompt] > 1 else WRONG}</answer>"
        return said

    with FakeBatchEndpoint(key=API_KEY, answer=answer) as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        rows = [row(number) | {"answer": GOLD} for number in range(N_DOCUMENTS)]
        (graph.source / SHARD).write_text("".join(f"{json.dumps(each)}\n" for each in rows))
        *_, result = graph.make_all(reasoning=OPTIONS | {"mode": mode})
        assert result.success, failure_text(result)
        made = graph.rows("reasoning")
        assert made["answer"].to_list() == [RIGHT] * N_DOCUMENTS
        assert made["answer_correct"].to_list() == [True] * N_DOCUMENTS
        assert made["attempts"].to_list() == [2] * N_DOCUMENTS
        rejects = graph.rejects("reasoning")
        assert rejects["reason"].to_list() == ["wrong_answer_retried"] * N_DOCUMENTS
        assert all(WRONG in detail for detail in rejects["detail"])
        # Two samples and two verdicts a question; the verdicts never wait for a batch.
        asked = metadata(result, "reasoning")
        assert asked["requests"] == 4 * N_DOCUMENTS
        judged = [request for request in endpoint.requests if is_judging(request.body)]
        assert len(judged) == 2 * N_DOCUMENTS
        sent = len(endpoint.requests)
        again = graph.make("rare_job", SHARD, "reasoning", reasoning=OPTIONS | {"mode": mode})
        assert again.success
        assert len(endpoint.requests) == sent
        assert metadata(again, "reasoning")["answers_reused"] == 4 * N_DOCUMENTS
        assert graph.rows("reasoning").equals(made)
