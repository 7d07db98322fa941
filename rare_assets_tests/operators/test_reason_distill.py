import asyncio
import json
import re

import polars as pl
import pytest

from rare_assets.operators.distilled import copied_share, distil
from rare_assets.operators.gold_answers import NoReferences
from rare_assets.operators.judge import Judge
from rare_assets.operators.reason_distill import reason_distill
from rare_assets.operators.templates import load_templates
from rare_assets.schemas import HardNegatives, Reasoning, TeacherRejects
from rare_assets.teacher.interface import TeacherStopped, Unusable
from rare_assets_tests.support.doubles import (
    ScriptedTeacher,
    answer,
    documents,
    questions,
    text_hash,
)

TEMPLATES = load_templates()
GOOD = "Brine freezes lower.\n<answer>It melts.</answer>"


def mined(question_id, doc_id, negatives):
    return {
        "question_id": question_id,
        "doc_id": doc_id,
        "query": "Why?",
        "hard_negatives": [f"text of {negative}" for negative in negatives],
        "hard_negative_titles": [f"Title of {negative}" for negative in negatives],
        "negatives": [
            {"doc_id": negative, "score": 9.0 - rank, "rank": rank, "origin": "question"}
            for rank, negative in enumerate(negatives, start=1)
        ],
        "gold_score": 9.0,
        "gold_rank": 1,
        "judged_relevant": [],
    }


def corpus(size=1, negatives=("n1", "n2", "n3"), answers=None, origin="given"):
    """Questions, documents and hard negatives, one question `q<i>` a document `d<i>`."""
    ids = range(size)
    docs = documents(
        *({"doc_id": f"d{i}", "text": f"text of d{i}", "title": f"Title of d{i}"} for i in ids)
    )
    asked = questions(
        *(
            {
                "question_id": f"q{i}",
                "doc_id": f"d{i}",
                "text_hash": text_hash(f"text of d{i}"),
                "question": f"Why {i}?",
                "scenario": f"Scenario {i}.",
                "origin": origin,
                "reference_answer": (answers or {}).get(f"d{i}"),
            }
            for i in ids
        )
    )
    found = [mined(f"q{i}", f"d{i}", negatives) for i in ids]
    return asked, docs, pl.DataFrame(found, schema=HardNegatives.create_empty().schema)


def run(tables, script, *, shuffle=0, stop_after=None, **options):
    teacher = ScriptedTeacher(script, shuffle=shuffle, stop_after=stop_after)
    produced = asyncio.run(reason_distill(*tables, teacher, templates=TEMPLATES, **options))
    Reasoning.validate(produced.rows)
    TeacherRejects.validate(produced.rejects)
    return produced.rows, produced.rejects, teacher


def one(*answers, gold=None, origin="given", **options):
    """The outcome for one question of a teacher that gives `answers` one after the other."""
    tables = corpus(answers={"d0": gold}, origin=origin)
    rows, rejects, _ = run(tables, lambda _, attempt: answers[attempt], **options)
    return rows.to_dicts(), rejects.to_dicts()


def test_a_row_has_the_columns_of_the_table():
    given = answer(
        "The <documents>2, 9</documents><answer>B</answer>",
        thinking="A chain.",
        completion_tokens=70,
    )
    [row], rejects = one("", given)
    order = row.pop("context_doc_ids")
    assert sorted(order) == ["d0", "n1", "n2", "n3"]
    assert order[row.pop("gold_position")] == "d0"
    assert row.pop("context") == [
        {"doc_id": each, "title": f"Title of {each}", "text": f"text of {each}"} for each in order
    ]
    assert row.pop("used_doc_ids") == order[1:2]
    assert row.pop("gold_used") is (order[1] == "d0")
    assert row.pop("suspected_relevant") == [each for each in order[1:2] if each != "d0"]
    assert row == {
        "question_id": "q0",
        "sample_index": 0,
        "doc_id": "d0",
        "text": "text of d0",
        "title": "Title of d0",
        "question": "Why 0?",
        "scenario": "Scenario 0.",
        "reference_answer": None,
        "hard_negatives": ["text of n1", "text of n2", "text of n3"],
        "left_out": [],
        "reasoning": "A chain.",
        "answer": "B",
        "raw_answer": "<think>\nA chain.\n</think>\nThe <documents>2, 9</documents><answer>B</answer>",
        "model": "scripted-1",
        "finish_reason": "stop",
        "prompt_tokens": 20,
        "completion_tokens": 75,
        "attempts": 2,
        "answer_correct": None,
    }
    assert rejects == []


def test_the_teacher_sees_the_documents_in_the_order_that_is_stored():
    rows, _, teacher = run(corpus(30), lambda *_: GOOD)
    prompts = {ask.key: ask.messages[-1]["content"] for ask in teacher.asked}
    for row in rows.to_dicts():
        prompt = prompts[f"{row['question_id']}#0"]
        shown = re.findall(r'number="(\d)">\nTitle of \w+\n\ntext of (\w+)\n</document-', prompt)
        assert shown == [(str(n), d) for n, d in enumerate(row["context_doc_ids"], start=1)]
        assert f"Why {row['doc_id'][1:]}?" in prompt
        assert f"Scenario {row['doc_id'][1:]}." in prompt
        assert "4 in all" in prompt
    assert set(rows["gold_position"]) == {0, 1, 2, 3}


def test_the_shuffle_depends_on_seed_and_question_alone():
    asked, docs, found = corpus(30)
    orders = dict(run((asked, docs, found), lambda *_: GOOD)[0].select("question_id", "context_doc_ids").iter_rows())  # fmt: skip
    rows, _, _ = run((asked.reverse()[:7], docs.reverse(), found.reverse()), lambda *_: GOOD)
    assert rows["question_id"].to_list() == [f"q{i}" for i in range(29, 22, -1)]
    for question_id, order in rows.select("question_id", "context_doc_ids").iter_rows():
        assert order == orders[question_id]
    other, _, _ = run((asked, docs, found), lambda *_: GOOD, seed=1)
    assert other["context_doc_ids"].to_list() != list(orders.values())


def test_rows_come_in_the_questions_order_whatever_the_order_of_answers():
    results = [
        run(corpus(15), lambda ask, _: f"{ask.key} {GOOD}", shuffle=order, n=2)[0]
        for order in range(3)
    ]
    ids = [(f"q{i}", sample) for i in range(15) for sample in range(2)]
    assert results[0].select("question_id", "sample_index").rows() == ids
    assert results[0]["reasoning"][3] == "q1#1 Brine freezes lower."
    assert results[1].equals(results[0])
    assert results[2].equals(results[0])


def test_samples_differ_in_number_and_seed_and_share_their_documents():
    rows, _, teacher = run(
        corpus(), lambda *_: GOOD, n=3, sampling_seed=10, temperature=0.7, max_tokens=50
    )
    assert [(a.sample, a.seed, a.temperature, a.max_tokens) for a in teacher.asked] == [
        (0, 10, 0.7, 50),
        (1, 11, 0.7, 50),
        (2, 12, 0.7, 50),
    ]
    assert len({ask.messages[-1]["content"] for ask in teacher.asked}) == 1
    assert rows["context_doc_ids"].n_unique() == 1


def test_a_question_without_negatives_is_asked_with_its_gold_alone():
    rows, rejects, teacher = run(corpus(negatives=()), lambda *_: GOOD)
    assert rows.select("context_doc_ids", "gold_position", "hard_negatives").rows() == [
        (["d0"], 0, [])
    ]
    assert "1 in all" in teacher.asked[0].messages[-1]["content"]
    assert rejects.is_empty()


def test_questions_that_cannot_be_asked_go_to_the_rejects():
    asked, docs, found = corpus(4)
    rows, rejects, teacher = run(
        (asked, docs.filter(pl.col("doc_id") != "d1"), found.filter(pl.col("question_id") != "q2")),
        lambda *_: GOOD,
        n=2,
    )
    assert rows["question_id"].to_list() == ["q0", "q0", "q3", "q3"]
    assert rejects.to_dicts() == [
        {
            "question_id": question_id,
            "doc_id": doc_id,
            "reason": reason,
            "detail": detail,
            "model": "scripted",
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "attempts": 0,
        }
        for question_id, doc_id, reason, detail in [
            ("q1", "d1", "gold_text_missing", "documents has no 'd1'"),
            ("q2", "d2", "not_mined", "hard_negatives has no row for the question"),
        ]
    ]
    assert len(teacher.asked) == 4


@pytest.mark.parametrize(
    ("given", "reasoning", "final"),
    [
        # A chain sent apart.
        (answer("It melts.", thinking="Brine.\n"), "Brine.", "It melts."),
        (answer("So:\n<answer> B </answer>", thinking="Brine."), "Brine.", "B"),
        (answer("<think>\n</think>It melts.", thinking="Brine."), "Brine.", "It melts."),
        # A chain in tags.
        (answer("<think>\nBrine.\n</think>\nIt melts."), "Brine.", "It melts."),
        (answer("<think>Brine.</think><answer>B</answer>"), "Brine.", "B"),
        (answer("<Thinking>Brine.</Thinking> It melts."), "Brine.", "It melts."),
        (answer("Sure!\n<think>Brine.</think>\n<answer>B</answer>"), "Brine.", "B"),
        (answer("<think><answer>A</answer>? No.</think><answer>B</answer>"), "<answer>A</answer>? No.", "B"),
        (answer("Brine.\n</think>\n\nIt melts."), "Brine.", "It melts."),
        (answer("[THINK]Brine.[/THINK]<answer>B</answer><|im_end|>"), "Brine.", "B"),
        (answer("<|channel|>analysis<|message|>Brine.<|end|><|start|>assistant<|channel|>final<|message|>It melts.<|return|>"), "Brine.", "It melts."),
        (answer("", thinking="Brine.\n</think>\n<answer>B</answer>"), "Brine.", "B"),
        (answer("", thinking="Brine. <answer>B</answer>"), "Brine.", "B"),
        # No chain.
        (answer("The text says <think>x</think> is a chain. <answer>B</answer>"), "The text says <think>x</think> is a chain.", "B"),
        (answer("Brine.\n\n<answer>It melts.</answer>\n"), "Brine.", "It melts."),
        (answer("Brine. <ANSWER>B</ANSWER>"), "Brine.", "B"),
        (answer("Brine. <answer>B"), "Brine.", "B"),
        (answer("Brine. <answer>A</answer> or rather <answer>B</answer>"), "Brine. <answer>A</answer> or rather", "B"),
        (answer("Salt makes brine, so it melts."), "Salt makes brine, so it melts.", None),
        (answer("<answer>B</answer> since brine."), "since brine.", "B"),
        (answer("<think>\n\n</think>\n\nBrine. <answer>B</answer>"), "Brine.", "B"),
        (answer("Brine. <answer>B</answer>", thinking="  "), "Brine.", "B"),
    ],
)  # fmt: skip
def test_chain_and_answer_are_told_apart(given, reasoning, final):
    assert distil(given)[:2] == (reasoning, final)


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("<documents>3, 1</documents>", [3, 1]),
        ("<DOCUMENTS>[1]; 2 and 1</DOCUMENTS>", [1, 2]),
        ("<documents>Document 2</documents>", [2]),
        ("<documents>none</documents>", []),
        ("<documents>None of them</documents>", []),
        ("<documents>3, 1", [3, 1]),
        ("<documents>\n1, 3\n</documents>", [1, 3]),
        ("<documents>\n- 1\n- 3\n</documents>", [1, 3]),
        ("<documents>1-3</documents>", [1, 2, 3]),
        ("<documents>documents 1 to 3, 7</documents>", [1, 2, 3, 7]),
        ("<documents>1 \N{EN DASH} 3", [1, 2, 3]),
        ("<documents>3-1; of 1990-1995, page 7-120</documents>", [3, 1, 1990, 1995, 7, 120]),
        ("<documents><document>2</document>\n<document>3</document></documents>", [2, 3]),
        ('<documents><document-5f7 number="3"></document-5f7></documents>', [3]),
        ("<documents>\n</documents>", None),
        ("<documents>1</documents> or <documents>2</documents>", [2]),
        ("<documents></documents>", None),
        ("<documents>all</documents>", None),
        ("", None),
    ],
)
def test_the_documents_named_are_read_and_taken_out(said, numbers):
    text = f"Brine freezes lower.\n{said}\n<answer>B</answer>"
    assert distil(answer(text)) == ("Brine freezes lower.", "B", numbers) or numbers == [2]
    assert distil(answer(text)).documents == numbers
    assert distil(answer(f"<think>Brine freezes lower.</think>{said}<answer>B</answer>")) == (
        *("Brine freezes lower.", "B"),
        numbers,
    )


def test_a_part_that_names_documents_ends_before_the_answer_and_the_next_part():
    chain = "Brine freezes lower.\nSo it melts."
    given = (
        chain.replace("\n", "\n<documents>1\n") + " <documents>\n2\n</documents><answer>B</answer>"
    )
    assert distil(answer(given)) == (chain.replace("\n", "\n\n"), "B", [2])
    given = f"{chain}\n<documents>3\n<answer>B</answer></documents>"
    assert distil(answer(given)) == (chain, "B", [3])


def used(said, **options):
    [row], _ = one(f"Brine freezes lower.\n{said}\n<answer>B</answer>", **options)
    gold = row["gold_position"]
    return row["used_doc_ids"], row["gold_used"], row["suspected_relevant"], row, gold


def test_documents_named_are_kept_by_id():
    _, _, _, row, gold = used("")
    order = row["context_doc_ids"]
    other = (gold + 1) % 4
    said = f"<documents>{other + 1}, {gold + 1}</documents>"
    assert used(said)[:3] == ([order[other], "d0"], True, [order[other]])
    assert used(f"<documents>{other + 1}</documents>")[:3] == (
        [order[other]],
        False,
        [order[other]],
    )
    assert used("<documents>none</documents>")[:3] == ([], False, [])
    assert used("<documents>\n1-4\n</documents>")[0] == order
    # Five were not shown.
    assert used("<documents>1-5</documents>")[0] == order[:1]
    # Numbers that no document has say nothing.
    assert used("<documents>17</documents>")[:3] == (None, None, None)
    assert used("")[:3] == (None, None, None)


def test_a_share_of_the_questions_is_shown_without_their_gold_document():
    rows, _, teacher = run(
        corpus(60, answers={f"d{i}": "B" for i in range(60)}),
        lambda *_: "Hm. <documents>1</documents> <answer>It is not settled.</answer>",
        without_gold=0.5,
        rejection_samples=1,
        n=1,
    )
    # Sampled are those alone that were shown their gold document.
    assert rows["gold_position"].null_count() == rows.height
    assert 15 < rows.height < 45
    for row in rows.to_dicts():
        assert row["context_doc_ids"] == [each["doc_id"] for each in row["context"]]
        assert sorted(row["context_doc_ids"]) == ["n1", "n2", "n3"]
        assert (row["gold_used"], row["answer_correct"]) == (None, None)
        assert row["suspected_relevant"] == row["used_doc_ids"] == row["context_doc_ids"][:1]
        prompt = next(a for a in teacher.asked if a.key == f"{row['question_id']}#0").messages[-1]
        assert f"text of {row['doc_id']}\n" not in prompt["content"]
    every, _, _ = run(corpus(60), lambda *_: GOOD, without_gold=1)
    assert every["gold_position"].null_count() == 60
    alone, _, _ = run(corpus(negatives=()), lambda *_: GOOD, without_gold=1)
    assert alone["context_doc_ids"].to_list() == [["d0"]]


DOCUMENT = (
    "Salt dissolves in the thin film of water on the ice and lowers its freezing point, so that more ice "
    "melts until the brine is too weak to melt any more of it."
)
IN_OWN_WORDS = (
    "The driver asks what salt does. Brine stays liquid where pure water would not, so the film "
    "eats into the ice and grows. That ends once it is diluted."
)


def test_a_chain_copied_from_one_document_is_unusable():
    asked, docs, found = corpus()
    tables = asked, docs.with_columns(text=pl.lit(DOCUMENT)), found
    copied = f"{DOCUMENT} So it melts. <answer>It melts.</answer>"
    rows, rejects, _ = run(tables, lambda *_: copied)
    assert rows.is_empty()
    assert rejects.select("reason", "attempts").rows() == [("copied_reasoning", 3)]
    quoting = f'{IN_OWN_WORDS} As they say, "{DOCUMENT[:60]}". <answer>It melts.</answer>'
    rows, rejects, _ = run(tables, lambda *_: quoting)
    assert (rows.height, rejects.height) == (1, 0)


def test_what_is_copied_is_counted_in_runs_in_any_script():
    assert copied_share(DOCUMENT, DOCUMENT) == 1.0
    assert copied_share(IN_OWN_WORDS, DOCUMENT) == 0.0
    assert copied_share("", DOCUMENT) == 0.0
    chinese = "盐溶解在冰面上的水膜中并降低其凝固点因此更多的冰融化直到盐水太稀"
    assert copied_share(chinese, chinese + "为止") == 1.0
    assert copied_share("司机想知道为什么撒盐有用这是因为盐水比纯水更难结冰", chinese) == 0.0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(""), "empty"),
        (answer(" ", thinking="Brine."), "empty"),
        (answer("", refusal="not allowed"), "refused"),
        (answer("I'm sorry, but I can't help with that."), "refused"),
        (answer("<think>Hm.</think>I cannot answer this."), "refused"),
        (answer("Brine", finish_reason="length"), "cut"),
        (answer("<think>Brine and then"), "cut"),
        (answer("<think>Brine.</think> \n"), "no_answer"),
        (answer("<think>Brine.</think><answer> </answer>"), "no_answer"),
        (answer("Brine. <answer></answer>"), "no_answer"),
        (answer("..."), "no_reasoning"),
        (answer("<think></think>"), "no_reasoning"),
        (answer("<answer>B</answer>"), "no_reasoning"),
        (answer("<documents>1</documents>\n<answer>It melts.</answer>"), "no_reasoning"),
        (answer("The answer is <answer>B</answer>."), "no_reasoning"),
        (answer("**Final answer:** <answer>B</answer>"), "no_reasoning"),
        (answer("B"), "no_reasoning"),
        (answer("It melts."), "no_reasoning"),
    ],
)
def test_an_unusable_answer_is_asked_for_again_and_then_rejected(given, reason):
    with pytest.raises(Unusable) as caught:
        distil(given)
    assert caught.value.reason == reason

    [row], rejects = one(given, given, GOOD)
    assert (row["attempts"], row["prompt_tokens"]) == (3, 30)
    assert rejects == []

    rows, [reject] = one(given, given, max_attempts=2)
    assert rows == []
    assert (reject["question_id"], reject["doc_id"]) == ("q0", "d0")
    assert (reject["reason"], reject["detail"]) == (
        reason,
        given.raw or given.refusal or "the answer has no content",
    )
    assert (reject["attempts"], reject["prompt_tokens"]) == (2, 20)


@pytest.mark.parametrize(
    ("given", "gold", "correct"),
    [
        ("Brine. <answer>(b)</answer>", "B", True),
        ("Brine. <answer>C</answer>", "B", False),
        ("Salt makes brine, so it is B.", "B", False),
        ("Brine. <answer>C</answer>", None, None),
        ("Brine. <answer>C</answer>", "  ", None),
    ],
)
def test_answers_are_compared_with_the_gold_ones_and_kept_either_way(given, gold, correct):
    [row], rejects = one(given, gold=gold)
    assert row["answer_correct"] is correct
    assert row["attempts"] == 1
    assert rejects == []


def test_rejection_sampling_asks_until_the_answer_agrees_and_keeps_the_wrong_ones():
    wrong = [
        "Hm. <answer>C</answer>",
        "",
        "Hm. <answer>D</answer>",
        "Salt makes brine, so it melts.",
    ]
    [row], rejects = one(*wrong, "Brine. <answer>B</answer>", gold="B", rejection_samples=8)
    assert (row["answer"], row["answer_correct"], row["attempts"]) == ("B", True, 5)
    assert row["prompt_tokens"] == 50
    assert [(r["reason"], r["detail"], r["prompt_tokens"], r["attempts"]) for r in rejects] == [
        ("wrong_answer_retried", "Hm. <answer>C</answer>", 0, 0),
        ("wrong_answer_retried", "Hm. <answer>D</answer>", 0, 0),
        ("wrong_answer_retried", "Salt makes brine, so it melts.", 0, 0),
    ]


def test_rejection_sampling_that_never_agrees_rejects_every_answer_once():
    rows, rejects = one(*(f"Hm. <answer>{a}</answer>" for a in "CDE"), gold="B", rejection_samples=3)  # fmt: skip
    assert rows == []
    assert [(r["reason"], r["detail"], r["prompt_tokens"], r["attempts"]) for r in rejects] == [
        ("wrong_answer_retried", "Hm. <answer>C</answer>", 0, 0),
        ("wrong_answer_retried", "Hm. <answer>D</answer>", 0, 0),
        ("wrong_answer", "Hm. <answer>E</answer>", 30, 3),
    ]


def test_rejection_sampling_leaves_questions_without_a_gold_answer_alone():
    tables = corpus(3, answers={"d1": "B"})
    script = {
        "q0": ["Brine freezes lower than water."],
        "q1": [""] * 4 + [GOOD, "Hm. <answer>B</answer>"],
        "q2": [""] * 9,
    }
    rows, rejects, _ = run(
        tables, lambda ask, attempt: script[ask.key[:2]][attempt], rejection_samples=6
    )
    assert rows.select("question_id", "attempts", "answer_correct").rows() == [
        ("q0", 1, None),
        ("q1", 6, True),
    ]
    assert rejects.select("question_id", "reason", "attempts").rows() == [
        ("q1", "wrong_answer_retried", 0),
        ("q2", "empty", 3),
    ]


def test_with_a_judge_answers_that_differ_in_words_alone_are_taken():
    verdicts = {"a kilometre": True, "a mile": False}

    def judging(ask, _):
        prompt = ask.messages[-1]["content"]
        (said,) = (answer for answer in verdicts if answer in prompt)
        return json.dumps({"explanation": "Compared.", "verdict": verdicts[said]})

    judge = Judge(ScriptedTeacher(judging), TEMPLATES)
    said = [f"Hm. <answer>{answer}</answer>" for answer in verdicts]
    [row], rejects = one(said[1], said[0], gold="1000 m", rejection_samples=3, judge=judge)
    assert (row["answer"], row["answer_correct"], row["attempts"]) == ("a kilometre", True, 2)
    assert [(r["reason"], r["detail"]) for r in rejects] == [("wrong_answer_retried", said[1])]
    # Without sampling an answer is kept either way; the judge tells whether it is right.
    [row], rejects = one(said[1], gold="1000 m", judge=judge)
    assert (row["answer"], row["answer_correct"], rejects) == ("a mile", False, [])


def test_what_the_teacher_wrote_itself_is_no_proof_of_a_wrong_answer():
    written = {"gold": "B", "origin": "written"}
    [row], _ = one("Brine. <answer>(b)</answer>", **written)
    assert row["answer_correct"] is True
    [row], _ = one("Brine. <answer>C</answer>", **written)
    assert row["answer_correct"] is None
    judge = Judge(ScriptedTeacher(lambda *_: '{"explanation": "", "verdict": false}'), TEMPLATES)
    [row], _ = one("Brine. <answer>C</answer>", judge=judge, **written)
    assert row["answer_correct"] is False


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"rejection_samples": 8}, {}, "rejection_samples .* no question of this shard has one"),
        ({"rejection_samples": 8}, {"gold": "B", "origin": "written"}, "the teacher wrote those"),
        ({"judge": object()}, {}, "judge_answers .* no question of this shard has one"),
    ],
)
def test_what_nothing_can_be_compared_with_is_refused_before_the_first_request(
    options, given, message
):
    with pytest.raises(NoReferences, match=message):
        one(**given, **options)
    assert run(corpus(0), lambda *_: GOOD, rejection_samples=8)[0].is_empty()


def test_an_estimate_counts_the_attempts_that_sampling_may_take():
    _, _, teacher = run(
        corpus(3, answers={"d1": "B"}), lambda *_: "Hm. <answer>B</answer>", rejection_samples=6
    )
    assert {ask.key: ask.may_take for ask in teacher.asked} == {"q0#0": 1, "q1#0": 6, "q2#0": 1}


def test_a_question_without_a_scenario_is_asked_as_one():
    asked, docs, found = corpus()
    _, _, teacher = run((asked.with_columns(scenario=pl.lit("")), docs, found), lambda *_: GOOD)
    assert "Scenario: (none given)\n" in teacher.asked[0].messages[-1]["content"]


def test_no_sample_is_lost_among_faults():
    def script(ask, attempt):
        number = int(ask.key[1:].partition("#")[0]) + ask.sample
        return GOOD if (number + attempt) % 5 < 2 else None if number % 3 else ""

    rows, rejects, _ = run(corpus(40), script, n=2)
    ids = rows["question_id"].to_list() + rejects["question_id"].to_list()
    assert sorted(ids) == sorted(f"q{i}" for i in range(40) for _ in range(2))
    assert len(rows) > 10
    assert len(rejects) > 10


def test_an_empty_shard_gives_empty_tables():
    rows, rejects, _ = run(corpus(0), lambda *_: GOOD)
    assert rows.schema == Reasoning.create_empty().schema
    assert rejects.schema == TeacherRejects.create_empty().schema


def test_a_teacher_that_stops_stops_the_operator():
    with pytest.raises(TeacherStopped, match="the budget is spent"):
        run(corpus(5), lambda *_: GOOD, stop_after=2)


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"max_attempts": 0}, {"rejection_samples": -1}, {"without_gold": 1.5}]
)
def test_a_number_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        run(corpus(), lambda *_: GOOD, **options)


def test_the_worst_negatives_are_left_out_until_the_prompt_fits_and_named():
    asked, docs, found = corpus(2)
    long = [
        "Brine freezes lower than water. " * 60,
        "Salt dissolves in water. " * 90,
        "Ice is light. ",
    ]
    found = found.with_columns(hard_negatives=pl.lit(long))
    for window, shown in ((20_000, 3), (1_700, 1), (10, 0)):
        rows, _, teacher = run(
            (asked, docs, found), lambda *_: GOOD, max_context_tokens=window, max_tokens=500
        )
        for row, ask in zip(rows.to_dicts(), teacher.asked, strict=True):
            assert sorted(row["context_doc_ids"]) == sorted([row["doc_id"], *["n1", "n2", "n3"][:shown]])  # fmt: skip
            assert row["left_out"] == ["n1", "n2", "n3"][shown:]
            assert row["hard_negatives"] == long
            assert row["context_doc_ids"][row["gold_position"]] == row["doc_id"]
            prompt = sum(len(message["content"]) for message in ask.messages) / 4
            assert prompt + 500 <= window or window == 10
