import asyncio
import json

import pytest

from rare_assets.operators.doc2query import HardQuestion, doc2query, refers_to_document
from rare_assets.operators.templates import load_templates
from rare_assets.schemas import Questions, TeacherRejects
from rare_assets.teacher.interface import TeacherStopped
from rare_assets_tests.support.doubles import ScriptedTeacher, answer, documents, text_hash

TEMPLATES = load_templates()
WORDS = " ".join(f"word{number}" for number in range(25))


def written(question="Why does salt melt ice on a road?", scenario="A driver wonders.") -> str:
    return json.dumps({"question": question, "scenario": scenario})


def run(docs, script, *, shuffle=0, stop_after=None, **options):
    teacher = ScriptedTeacher(script, shuffle=shuffle, stop_after=stop_after)
    produced = asyncio.run(doc2query(docs, teacher, templates=TEMPLATES, **options))
    return produced.rows, produced.rejects, teacher


def one(*answers, **options):
    """The outcome for one document of a teacher that gives `answers` one after the other."""
    docs = documents({"doc_id": "d", "text": WORDS})
    rows, rejects, _ = run(docs, lambda ask, attempt: answers[attempt], **options)
    return rows.to_dicts(), rejects.to_dicts()


def test_each_document_gives_a_row_in_document_order_whatever_the_order_of_answers():
    docs = documents(*({"doc_id": f"d{n}", "text": f"{WORDS} {n}"} for n in range(20)))

    def script(ask, attempt):
        return written(f"Why is {ask.key} so?")

    results = [run(docs, script, shuffle=order) for order in range(3)]
    for rows, rejects, _ in results:
        assert rows["question_id"].to_list() == [f"d{n}-q0" for n in range(20)]
        assert rows["question"].to_list() == [f"Why is d{n}-q0 so?" for n in range(20)]
        assert rows.equals(results[0][0])
        assert rejects.is_empty()


def test_a_row_has_the_columns_of_the_table():
    rows, _, teacher = run(
        documents({"doc_id": "d", "text": WORDS}), lambda *_: written("  How so?\n", " Who asks. ")
    )
    Questions.validate(rows)
    assert rows.to_dicts() == [
        {
            "question_id": "d-q0",
            "doc_id": "d",
            "text_hash": text_hash(WORDS),
            "question": "How so?",
            "scenario": "Who asks.",
            "model": "scripted-1",
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "attempts": 1,
        }
    ]
    [ask] = teacher.asked
    assert (ask.key, ask.schema, ask.sample) == ("d-q0", HardQuestion, 0)


def test_the_prompt_quotes_the_document_with_its_title_once():
    docs = documents(
        {"doc_id": "a", "text": WORDS, "title": "Roads"},
        {"doc_id": "b", "text": f"Roads\n{WORDS}", "title": "Roads"},
        {"doc_id": "c", "text": WORDS},
    )
    _, _, teacher = run(docs, lambda *_: written())
    users = [ask.messages[-1]["content"] for ask in teacher.asked]
    assert f">\nRoads\n\n{WORDS}\n</document-" in users[0]
    assert f">\nRoads\n{WORDS}\n</document-" in users[1]
    assert f">\n{WORDS}\n</document-" in users[2]


def test_several_questions_differ_in_sample_and_seed_and_keep_their_settings():
    docs = documents({"doc_id": "d", "text": WORDS})
    rows, _, teacher = run(
        docs,
        lambda ask, _: written(f"Why {ask.sample}?"),
        num_questions=3,
        seed=40,
        temperature=0.5,
        max_tokens=99,
    )
    assert rows["question_id"].to_list() == ["d-q0", "d-q1", "d-q2"]
    assert [(ask.sample, ask.seed, ask.temperature, ask.max_tokens) for ask in teacher.asked] == [
        (0, 40, 0.5, 99),
        (1, 41, 0.5, 99),
        (2, 42, 0.5, 99),
    ]


def test_without_a_seed_none_is_sent():
    _, _, teacher = run(documents({"doc_id": "d", "text": WORDS}), lambda *_: written())
    [ask] = teacher.asked
    assert (ask.seed, ask.temperature, ask.max_tokens) == (None, None, None)


@pytest.mark.parametrize("order", range(6))
def test_a_repeated_question_is_rejected_by_number_not_by_arrival(order):
    questions = ["Why so?", "How come?", "why  SO"]
    rows, rejects, _ = run(
        documents({"doc_id": "d", "text": WORDS}),
        lambda ask, _: written(questions[ask.sample]),
        num_questions=3,
        shuffle=order,
    )
    assert rows["question_id"].to_list() == ["d-q0", "d-q1"]
    [reject] = rejects.to_dicts()
    assert (reject["question_id"], reject["reason"]) == ("d-q2", "duplicate_question")
    assert reject["detail"] == written("why  SO")


def test_two_documents_may_have_the_same_question():
    docs = documents({"doc_id": "a", "text": WORDS}, {"doc_id": "b", "text": WORDS + " more"})
    rows, rejects, _ = run(docs, lambda *_: written())
    assert len(rows) == 2
    assert rejects.is_empty()


def test_a_short_document_is_rejected_without_being_asked_about():
    docs = documents(
        {"doc_id": "short", "text": "only four words here"}, {"doc_id": "long", "text": WORDS}
    )
    _, rejects, teacher = run(
        docs, lambda ask, _: written(f"Why {ask.sample}?"), num_questions=2, min_words=5
    )
    assert {ask.key for ask in teacher.asked} == {"long-q0", "long-q1"}
    TeacherRejects.validate(rejects)
    assert rejects.to_dicts() == [
        {
            "question_id": f"short-q{sample}",
            "doc_id": "short",
            "reason": "too_short",
            "detail": "4 words, min_words is 5",
            "model": "scripted",
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "attempts": 0,
        }
        for sample in range(2)
    ]
    rows, rejects, _ = run(docs, lambda *_: written(), min_words=4)
    assert len(rows) == 2
    assert rejects.is_empty()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("no object at all", "not_json"),
        (json.dumps({"question": "Why?"}), "schema_mismatch"),
        (written(question=""), "schema_mismatch"),
        (written(question="  ?! "), "blank_question"),
        (written(scenario=" \n"), "blank_scenario"),
        (written("A driver: why?", "a driver  why"), "scenario_is_question"),
        (written(question="According to the passage, why does ice melt?"), "refers_to_document"),
        (written(question="I'm sorry, but I can't help with that."), "refused"),
        (written(question="several steps of reasoning"), "copied_from_prompt"),
        (written(question="x" * 900), "cut"),
        (written(scenario="x " * 600), "cut"),
        ("I cannot assist with this request.", "refused"),
        (answer("", refusal="not allowed"), "refused"),
        (answer(""), "empty"),
        (answer('{"question": "Why', finish_reason="length"), "cut"),
        (answer("", finish_reason="content_filter"), "content_filter"),
    ],
)
def test_an_unusable_answer_is_asked_for_again_and_then_rejected(given, reason):
    rows, rejects = one(given, given, written())
    assert rows[0]["attempts"] == 3
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == (30, 15)
    assert rejects == []

    rows, [reject] = one(given, given, max_attempts=2)
    assert rows == []
    assert (reject["reason"], reject["attempts"]) == (reason, 2)
    assert (reject["prompt_tokens"], reject["completion_tokens"]) == (20, 10)


def test_a_reject_keeps_the_last_raw_answer():
    last = answer("still not JSON", thinking="hm")
    _, [reject] = one("not JSON", last, max_attempts=2)
    assert reject["detail"] == "<think>\nhm\n</think>\nstill not JSON"
    _, [reject] = one(answer("", refusal="not allowed"), max_attempts=1)
    assert reject["detail"] == "not allowed"


def test_a_reject_without_an_answer_keeps_what_the_endpoint_said():
    _, [reject] = one(None)
    assert (reject["reason"], reject["detail"]) == ("request_refused", "400: too long")
    assert (reject["model"], reject["attempts"]) == ("scripted", 0)


def test_no_document_is_lost_among_faults():
    docs = documents(*({"doc_id": f"d{n}", "text": WORDS if n % 7 else "short"} for n in range(50)))

    def script(ask, attempt):
        number = int(ask.key[1:].split("-")[0])
        return written(f"Why {number}?") if (number + attempt) % 5 < 2 else "nonsense"

    rows, rejects, _ = run(docs, script)
    ids = rows["question_id"].to_list() + rejects["question_id"].to_list()
    assert sorted(ids) == sorted(f"d{n}-q0" for n in range(50))
    assert len(rows) > 10
    assert len(rejects) > 10


def test_an_empty_shard_gives_empty_tables():
    rows, rejects, _ = run(documents(), lambda *_: written())
    assert rows.schema == Questions.create_empty().schema
    assert rejects.schema == TeacherRejects.create_empty().schema


def test_a_teacher_that_stops_stops_the_operator():
    docs = documents(*({"doc_id": f"d{n}", "text": WORDS} for n in range(5)))
    with pytest.raises(TeacherStopped, match="the budget is spent"):
        run(docs, lambda *_: written(), stop_after=2)


@pytest.mark.parametrize("options", [{"num_questions": 0}, {"max_attempts": 0}])
def test_a_number_below_one_is_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        run(documents(), lambda *_: written(), **options)


@pytest.mark.parametrize(
    "question",
    [
        "According to the text, why does ice melt?",
        "Based on this document, what would follow?",
        "What does the author conclude about salt?",
        "As described in the passage, how does brine form?",
        "Why does the passage mention salt?",
        "What is the effect discussed in the article?",
        "How would the process described in this abstract change at sea level?",
        "Which method from the given text would you choose?",
        "What can be inferred from the passage about brine?",
        "In the text, who pays?",
        "Using the information in the document, find the freezing point.",
        "How does the excerpt above explain brine?",
        "The document states that salt melts ice; why?",
        "The document compares salt and sand. Which is cheaper?",
        "This text compares two methods of thawing. Which is cheaper?",
    ],
)
def test_a_question_that_points_at_its_text_is_recognised(question):
    assert refers_to_document(question)


@pytest.mark.parametrize(
    "question",
    [
        "Why does salt melt ice on a road?",
        "Which document must a seller hand over before the title passes?",
        "How does the text of the treaty bind a state that signed late?",
        "Under which article of the constitution may a judge be removed?",
        "Does the rule in article 5 apply to a foreign vessel?",
        "Why did the author of Frankenstein set her novel in Geneva?",
        "Why does safe passage through the strait matter to trade?",
        "How long may a text message be before it is split?",
    ],
)
def test_a_question_about_texts_in_the_world_is_left_alone(question):
    assert not refers_to_document(question)
