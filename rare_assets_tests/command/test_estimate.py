"""What a run would cost, by the way in which it would ask."""

import json

import pytest

from rare_assets.command.estimate import estimate
from rare_assets.command.plan import Planner
from rare_assets.stages.options import Options
from rare_assets_tests.support.graph import MODEL, Graph
from rare_assets_tests.support.passages import write_jsonl

ROWS = 4
JUDGE = "judge-1"
# US dollars per million tokens of prompt and answer, and what the Batch API takes of it.
PROMPT, COMPLETION, JUDGES = 1.0, 2.0, 10.0
HALF = 0.5


@pytest.fixture
def graph(tmp_path, nothing_set):
    """One shard, of which nothing is made; the judge's model costs ten times the teacher's."""
    models = {
        model: {"prompt_usd_per_million": times * PROMPT, "completion_usd_per_million": times * COMPLETION}
        for model, times in ((MODEL, 1.0), (JUDGE, JUDGES))
    }  # fmt: skip
    (tmp_path / "prices.json").write_text(json.dumps({"models": models, "batch_factor": HALF}))
    nothing_set.setenv("OPENAI_API_KEY", "sk-x")
    nothing_set.setenv("RARE_PRICES", str(tmp_path / "prices.json"))
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(ROWS))
    return graph


def costs(graph, **options):
    """What each stage would cost, by its name, and the requests."""
    config = {"ops": {stage: {"config": given} for stage, given in options.items()}}
    options = Options.from_run_config(config)
    planner = Planner(graph.tables, graph.retriever, graph.teacher, options, False)
    stages = estimate(planner, graph.teacher, graph.register().shards)
    return {stage.stage: (stage.requests, stage.cost_usd) for stage in stages}


def usd(requests, prompt, completion, times=1.0):
    return requests * (prompt * PROMPT + completion * COMPLETION) * times / 1e6


# Tokens that are foreseen where nothing is made: 400 of a prompt's own words, 200 a document, 300 an answer and
# 50 a verdict.
QUESTIONS = usd(ROWS, 600, 300)
QUESTION_VERDICTS = usd(ROWS, 600, 50)
ANSWERS = usd(ROWS, 400 + 4 * 200, 300)
ANSWER_VERDICTS = usd(ROWS, 400, 50)


@pytest.mark.parametrize(
    ("judge", "questions", "reasoning"),
    [
        # Verdicts on questions need not be there before others are asked for.
        (None, HALF * (QUESTIONS + QUESTION_VERDICTS), HALF * ANSWERS + ANSWER_VERDICTS),
        (
            JUDGE,
            HALF * QUESTIONS + JUDGES * QUESTION_VERDICTS,
            HALF * ANSWERS + JUDGES * ANSWER_VERDICTS,
        ),
    ],
)
def test_what_is_asked_in_batches_has_their_price(graph, nothing_set, judge, questions, reasoning):
    if judge:
        nothing_set.setenv("RARE_JUDGE_MODEL", judge)
    judged = {"questions": {"judge_questions": True}, "reasoning": {"judge_answers": True}}
    batch = {stage: {**given, "mode": "batch"} for stage, given in judged.items()}
    times = JUDGES if judge else 1.0
    online = {
        "questions": (2 * ROWS, pytest.approx(QUESTIONS + times * QUESTION_VERDICTS)),
        "reasoning": (2 * ROWS, pytest.approx(ANSWERS + times * ANSWER_VERDICTS)),
    }
    assert costs(graph, **judged) == online
    assert costs(graph, **batch) == {
        "questions": (2 * ROWS, pytest.approx(questions)),
        "reasoning": (2 * ROWS, pytest.approx(reasoning)),
    }


def test_prompts_that_are_known_have_the_price_of_batches_too(graph):
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    requests, online = costs(graph)["questions"]
    assert (requests, online > 0) == (ROWS, True)
    assert costs(graph, questions={"mode": "batch"})["questions"] == (
        ROWS,
        pytest.approx(HALF * online),
    )


def test_without_a_price_there_is_no_cost(graph, nothing_set):
    nothing_set.setenv("RARE_JUDGE_MODEL", "judge-without-a-price")
    judged = costs(graph, questions={"judge_questions": True})
    assert judged["questions"] == (2 * ROWS, None)
    assert judged["reasoning"] == (ROWS, pytest.approx(ANSWERS))
