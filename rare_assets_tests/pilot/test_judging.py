"""Pairs, judged in both orders: who wins, what is a tie, and where the judge went by the order."""

import asyncio
import json

import polars as pl
import pytest

from rare_assets.operators.judge import Judge
from rare_assets.operators.templates import load_templates
from rare_assets.pilot.judging import counted, examples, judge_pairs, n_requests
from rare_assets_tests.support.doubles import ScriptedTeacher
from rare_assets_tests.support.pilot import a_trial
from rare_assets_tests.support.rows import rows

DOCUMENTS = rows("documents", {"doc_id": "d1"}, {"doc_id": "d2", "text_hash": "h2"})


def trial(tmp_path, name, doc_ids=("d1", "d2")):
    questions = [{"question_id": f"{d}-q0", "doc_id": d} for d in doc_ids]
    made = [
        {
            "question_id": f"{d}-q0",
            "doc_id": d,
            "question": f"What of {d}?",
            "reasoning": f"By {name}, of {d}.",
            "context_doc_ids": [d],
            "context": [{"doc_id": d, "title": None, "text": "t"}],
            "gold_position": 0,
        }
        for d in doc_ids
    ]
    return a_trial(tmp_path, name, questions=questions, reasoning=made)


def judged(trials, better):
    """Verdicts by `better(text of the first, text of the second)`, and what was asked."""

    def script(ask, _):
        text = ask.messages[-1]["content"]
        first, second = text.index('number="1"'), text.index('number="2"')
        said = better(text[first:second], text[second:])
        return json.dumps({"explanation": f"It is {said}.", "better": said})

    teacher = ScriptedTeacher(script)
    judge = Judge(teacher, load_templates())
    return asyncio.run(judge_pairs(trials, DOCUMENTS, judge)), teacher.asked


def prefers(name):
    return lambda first, second: "first" if f"By {name}" in first else "second"


def test_the_better_one_wins_whatever_the_order(tmp_path):
    trials = [trial(tmp_path, "a"), trial(tmp_path, "b")]
    verdicts, asked = judged(trials, prefers("b"))
    assert [(v.doc_id, v.one, v.other, v.winner) for v in verdicts] == [
        ("d1", "a", "b", "b"),
        ("d2", "a", "b", "b"),
    ]
    assert verdicts[0].explanations == ("It is second.", "It is first.")
    assert len(asked) == n_requests(trials, 2) == 4
    # a, b; wins of each; ties, orders disagree, no verdict, not compared
    assert counted(trials, verdicts, 2) == [("a", "b", 0, 2, 0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("better", "figures"),
    [
        (lambda *_: "first", (0, 0, 0, 2, 0, 0)),
        (lambda *_: "tie", (0, 0, 2, 0, 0, 0)),
        (lambda *_: "neither", (0, 0, 0, 0, 2, 0)),
        # Better in one order and a tie in the other is no win.
        (lambda first, _: "tie" if "By a" in first else "first", (0, 0, 0, 2, 0, 0)),
    ],
)
def test_what_is_no_win(tmp_path, better, figures):
    trials = [trial(tmp_path, "a"), trial(tmp_path, "b")]
    verdicts, _ = judged(trials, better)
    assert counted(trials, verdicts, 2) == [("a", "b", *figures)]


def test_what_one_of_them_made_no_example_of_is_not_compared(tmp_path):
    trials = [trial(tmp_path, "a", ["d1"]), trial(tmp_path, "b"), trial(tmp_path, "c")]
    verdicts, asked = judged(trials, prefers("c"))
    assert len(asked) == 2 * 4
    assert counted(trials, verdicts, 2) == [
        ("a", "b", 0, 0, 0, 1, 0, 1),
        ("a", "c", 0, 1, 0, 0, 0, 1),
        ("b", "c", 0, 2, 0, 0, 0, 0),
    ]


def test_the_judge_sees_document_question_reasoning_and_answer(tmp_path):
    one = trial(tmp_path, "a")
    rows_of_one = one.produced["reasoning"].rows.with_columns(answer=pl.lit("42."))
    one.produced["reasoning"] = one.produced["reasoning"]._replace(rows=rows_of_one)
    assert examples(one)["d1"].split("\n\n")[1:] == [
        "Question: What of d1?",
        "Reasoning: By a, of d1.",
        "Answer: 42.",
    ]
    _, asked = judged([one, trial(tmp_path, "b")], prefers("a"))
    text = asked[0].messages[-1]["content"]
    assert "Cells store charge." in text
    assert text.index("By a, of d1.") < text.index("By b, of d1.")
