import asyncio
import json

import pytest

from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.judge import QUESTION_VERDICTS, Judge
from rare_assets.operators.question_reply import HardQuestion
from rare_assets.operators.references import refers_to_document
from rare_assets.operators.templates import load_templates
from rare_assets.operators.variety import LENGTHS, QUESTION_TYPES, WORDINGS, Variety
from rare_assets.schemas import Questions, TeacherRejects
from rare_assets.teacher.interface import TeacherStopped
from rare_assets_tests.support.doubles import ScriptedTeacher, answer, documents, text_hash

TEMPLATES = load_templates()
ONE = Variety(["predict"], ["short"], ["symptom"], ["a nurse"])
WORDS = " ".join(f"word{number}" for number in range(25))


def written(
    question="Why does salt melt ice on a road?", scenario="A driver wonders.", **more
) -> str:
    return json.dumps({"question": question, "scenario": scenario, **more})


def several(*questions) -> str:
    return json.dumps({"questions": [json.loads(one) for one in questions]})


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
        return written(f"Why is it {ask.key} so?")

    results = [run(docs, script, shuffle=order) for order in range(3)]
    for rows, rejects, _ in results:
        assert rows["question_id"].to_list() == [f"d{n}-q0" for n in range(20)]
        assert rows["question"].to_list() == [f"Why is it d{n} so?" for n in range(20)]
        assert rows.equals(results[0][0])
        assert rejects.is_empty()


def test_a_row_has_the_columns_of_the_table():
    rows, _, teacher = run(
        documents({"doc_id": "d", "text": WORDS}),
        lambda *_: written("  How did it come so?\n", " Who asks. ", answer=" By salt. "),
        variety=ONE,
    )
    Questions.validate(rows)
    assert rows.to_dicts() == [
        {
            "question_id": "d-q0",
            "doc_id": "d",
            "text_hash": text_hash(WORDS),
            "question": "How did it come so?",
            "scenario": "Who asks.",
            "origin": "written",
            "reference_answer": "By salt.",
            "question_type": "predict",
            "length": "short",
            "wording": "symptom",
            "persona": "a nurse",
            "extra": None,
            "judged": None,
            "model": "scripted-1",
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "attempts": 1,
        }
    ]
    [ask] = teacher.asked
    assert (ask.key, ask.schema, ask.sample) == ("d", HardQuestion, 0)


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


def test_several_questions_are_one_request_and_share_its_tokens():
    rows, rejects, teacher = run(
        documents({"doc_id": "d", "text": WORDS}),
        lambda *_: several(*(written(f"Why does number {n} melt?") for n in range(3))),
        num_questions=3,
        seed=40,
        temperature=0.5,
        max_tokens=99,
    )
    [ask] = teacher.asked
    assert (ask.sample, ask.seed, ask.temperature, ask.max_tokens) == (0, 40, 0.5, 99)
    assert "3 questions" in ask.messages[-1]["content"]
    assert rows["question_id"].to_list() == ["d-q0", "d-q1", "d-q2"]
    assert rows["question"].to_list() == [f"Why does number {n} melt?" for n in range(3)]
    assert rows["prompt_tokens"].to_list() == [4, 3, 3]
    assert rows["completion_tokens"].to_list() == [3, 1, 1]
    assert rejects.is_empty()


def test_of_several_questions_the_good_ones_of_the_best_answer_stay():
    good = [written(f"Why does number {n} melt?") for n in range(3)]
    answers = [several(good[0]), several(*good[:2], written("Redis.")), "nothing"]
    docs = documents({"doc_id": "d", "text": WORDS})
    rows, rejects, _ = run(docs, lambda _, attempt: answers[attempt], num_questions=3)
    assert rows.select("question_id", "attempts").rows() == [("d-q0", 3), ("d-q1", 3)]
    assert rejects.select("question_id", "reason", "detail").rows() == [
        ("d-q2", "too_little_asked", answers[1])
    ]
    assert rows["prompt_tokens"].sum() + rejects["prompt_tokens"].sum() == 30
    rows, rejects, _ = run(docs, lambda *_: "nothing", num_questions=3)
    assert rejects.select("question_id", "reason", "attempts").rows() == [
        (f"d-q{n}", "not_json", 3) for n in range(3)
    ]


def test_without_a_seed_none_is_sent():
    _, _, teacher = run(documents({"doc_id": "d", "text": WORDS}), lambda *_: written())
    [ask] = teacher.asked
    assert (ask.seed, ask.temperature, ask.max_tokens) == (None, None, None)


def test_a_repeated_question_of_one_document_is_a_reject():
    given = several(
        written("Why is that so?"), written("How can it be?"), written("why  is THAT so?")
    )
    rows, rejects, _ = run(
        documents({"doc_id": "d", "text": WORDS}), lambda *_: given, num_questions=3
    )
    assert rows["question_id"].to_list() == ["d-q0", "d-q1"]
    [reject] = rejects.to_dicts()
    assert (reject["question_id"], reject["reason"]) == ("d-q2", "duplicate_question")
    assert reject["detail"] == given


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
        docs, lambda *_: several(written(), written("How can it be?")), num_questions=2, min_words=5
    )
    assert {ask.key for ask in teacher.asked} == {"long"}
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
        (json.dumps({"scenario": "Why?"}), "schema_mismatch"),
        (json.dumps({"question": "Why does salt melt ice?"}), "blank_scenario"),
        (written(question=""), "blank_question"),
        (written(question="  ?! "), "blank_question"),
        (written(scenario=" \n"), "blank_scenario"),
        (written("A driver asks: why?", "a driver  asks why"), "scenario_is_question"),
        (written(question="Why?"), "too_little_asked"),
        (written(question="Redis."), "too_little_asked"),
        (written(question="Redis as a store of sessions"), "not_a_question"),
        (written(question="No question can be written from this"), "not_a_question"),
        (
            written(question="There are no questions that this list allows, are there?"),
            "not_a_question",
        ),
        (
            written(question="I cannot write a hard question about a table of contents?"),
            "refused",
        ),
        (written(question="I'm sorry, but I can't help with that."), "refused"),
        (written(question="several steps of reasoning"), "copied_from_prompt"),
        (written(question="x y " * 225), "cut"),
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
        number = int(ask.key[1:])
        return written(f"Why does {number} melt?") if (number + attempt) % 5 < 2 else "nonsense"

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
        "Why does salt melt ice?",
        "Berechne ich den Druck, wie groß ist er dann?",
        "Explain how the pressure would change if the valve closed twice as fast.",
        "Given a pipe of 20 m, calculate the pressure rise at the valve.",
        "为什么冬天的路面撒盐以后冰会融化？",  # noqa: RUF001
        "なぜ塩を撒くと氷が溶けるのか",
        "ทำไมเกลือทำให้น้ำแข็งละลายได้",
        "لماذا يذوب الجليد عند رش الملح؟",
        "Γιατί λιώνει ο πάγος όταν ρίχνουμε αλάτι;",  # noqa: RUF001
        "Is there no question of law that a judge could still decide here?",
        "According to the passage, why does ice melt?",
        "The document database MongoDB keeps two copies; which one answers during an election?",
    ],
)
def test_what_asks_something_passes_in_any_language(question):
    [row], rejects = one(written(question))
    assert (row["question"], rejects) == (question, [])


def test_a_long_question_passes_where_one_is_asked_for():
    question = "Why does it melt, given that " + "the salt was strewn late " * 60 + "on it?"
    [row], _ = one(written(question), variety=Variety(lengths=["long"]))
    assert row["question"] == question
    assert row["length"] == "long"
    rows, [reject] = one(*[written(question)] * 3)
    assert (rows, reject["reason"]) == ([], "schema_mismatch")


LONG = " ".join(f"word{number}" for number in range(200))


@pytest.mark.parametrize(
    ("beside", "reference_answer"),
    [
        ({"answer": LONG}, None),
        # As a grammar leaves it: to the cap, and blank there.
        ({"answer": LONG[:590].ljust(600)}, None),
        ({"answer": ["brine", "heat"]}, None),
        ({"answer": 0.5, "reason": LONG}, "0.5"),
        ({"answer": "Brine.", "reason": {"why": "It asks."}}, "Brine."),
    ],
)
def test_a_question_is_kept_whatever_stands_beside_it(beside, reference_answer):
    [row], rejects = one(written(**beside))
    assert (row["question"], row["reference_answer"], row["attempts"], rejects) == (
        *("Why does salt melt ice on a road?", reference_answer),
        *(1, []),
    )
    rows, rejects = one(several(written(**beside), written("How can it be?")), num_questions=2)
    assert [row["reference_answer"] for row in rows] == [reference_answer, None]
    assert rejects == []


def test_a_long_reason_for_declining_a_document_is_cut():
    for given, number in (({"question": None}, 1), ({"questions": []}, 2)):
        _, [reject, *_] = one(json.dumps({**given, "reason": LONG}), num_questions=number)
        assert (reject["reason"], reject["detail"]) == ("unsuitable_document", LONG[:400])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"question": None, "reason": "A list of links."}, "A list of links."),
        ({"question": None, "scenario": None, "answer": None}, "no reason given"),
        ({"questions": [], "reason": "A list of links."}, "A list of links."),
    ],
)
def test_a_document_that_holds_nothing_is_declined_at_the_first_attempt(given, why):
    several_wanted = "questions" in given
    rows, rejects = one(json.dumps(given), num_questions=2 if several_wanted else 1)
    assert rows == []
    assert {(r["reason"], r["detail"], r["attempts"]) for r in rejects} == {
        ("unsuitable_document", why, 1)
    }
    assert sum(r["prompt_tokens"] for r in rejects) == 10


def test_a_question_of_the_source_is_taken_over_without_a_request():
    docs = documents(
        {"doc_id": "a", "text": "short", "question": "Does it melt?", "answer": "yes"},
        {"doc_id": "b", "text": WORDS, "question": " Why? ", "scenario": "Winter."},
        {"doc_id": "c", "text": WORDS, "question": "  ", "answer": "no"},
    )
    rows, rejects, teacher = run(docs, lambda *_: written(), num_questions=1)
    assert [ask.key for ask in teacher.asked] == ["c"]
    assert rejects.is_empty()
    shown = (
        "question_id",
        "origin",
        "question",
        "scenario",
        "reference_answer",
        "model",
        "attempts",
    )
    assert rows.select(shown).rows() == [
        ("a-q0", "given", "Does it melt?", "", "yes", "source", 0),
        ("b-q0", "given", "Why?", "Winter.", None, "source", 0),
        ("c-q0", "written", *json.loads(written()).values(), None, "scripted-1", 1),
    ]
    assert rows.select("question_type", "length", "wording", "persona").rows()[0] == (None,) * 4


def test_types_lengths_and_wordings_are_spread_evenly_and_stand_in_the_prompt():
    docs = documents(*({"doc_id": f"d{n}", "text": f"{WORDS} {n}"} for n in range(240)))
    rows, _, teacher = run(docs, lambda ask, _: written(), variety=Variety(personas=("A", "B")))
    for column, values in (
        ("question_type", QUESTION_TYPES),
        ("length", ("short", "medium")),
        ("wording", WORDINGS),
        ("persona", ("A", "B")),
    ):
        counts = dict(rows[column].value_counts().iter_rows())
        assert set(counts) == set(values)
        assert min(counts.values()) > 0.6 * 240 / len(counts)
    for row, ask in zip(rows.to_dicts(), teacher.asked, strict=True):
        prompt = ask.messages[-1]["content"]
        assert f"- Type: {row['question_type']} (" in prompt
        assert f"- Length: {row['length']} ({LENGTHS[row['length']].said})" in prompt
        assert f"- Wording: {row['wording']} (" in prompt
        assert f"- Asked by: {row['persona']}\n" in prompt
    again, _, _ = run(
        docs.reverse()[:9], lambda *_: written(), variety=Variety(personas=("A", "B"))
    )
    assert again.equals(rows.reverse()[:9])
    other, _, _ = run(docs, lambda *_: written(), seed=1)
    assert other["question_type"].to_list() != rows["question_type"].to_list()


def test_questions_of_one_document_are_of_different_types():
    rows, _, _ = run(
        documents({"doc_id": "d", "text": WORDS}),
        lambda *_: several(*(written(f"Why does number {n} melt?") for n in range(6))),
        num_questions=6,
    )
    assert set(rows["question_type"]) == set(QUESTION_TYPES)


def test_lists_that_are_empty_ask_for_nothing():
    rows, _, teacher = run(
        documents({"doc_id": "d", "text": WORDS}), lambda *_: written(), variety=Variety([], [], [])
    )
    assert rows.select("question_type", "length", "wording", "persona").rows() == [(None,) * 4]
    assert "Write one question.\n\n" in teacher.asked[0].messages[-1]["content"]


@pytest.mark.parametrize(
    ("variety", "message"),
    [
        (Variety(lengths=["huge"]), "lengths: no huge; there are short, medium, long"),
        (Variety(wordings=["rude"]), "wordings: no rude; there are expert, symptom"),
        (Variety(question_types=["apply", " "]), "question_types: an entry is blank"),
    ],
)
def test_an_entry_that_there_is_not_is_refused(variety, message):
    with pytest.raises(ValueError, match=message):
        run(documents(), lambda *_: written(), variety=variety)


def own_prompt(tmp_path, user):
    (tmp_path / "doc2query.md").write_text(f"# System\nAsk.\n# User\n{user}\n$document\n")
    return load_templates(str(tmp_path))


def asked_with(templates, reply, **options):
    teacher = ScriptedTeacher(lambda *_: reply)
    docs = documents({"doc_id": "d", "text": WORDS})
    produced = asyncio.run(doc2query(docs, teacher, templates=templates, **options))
    return produced.rows.to_dicts(), teacher.asked[0]


def test_placeholders_say_in_a_prompt_of_ones_own_what_is_wanted(tmp_path):
    own = own_prompt(tmp_path, "Ask one of type $question_type for $persona, $length.")
    [row], ask = asked_with(own, written(), variety=ONE)
    assert "of type predict (say what follows if something changes) for a nurse, short (" in ask.messages[-1]["content"]  # fmt: skip
    # What the prompt has no place for was not asked for.
    assert (row["question_type"], row["persona"], row["wording"]) == ("predict", "a nurse", None)
    rows, ask = asked_with(own, several(written(), written("How can it be?")), num_questions=2)
    assert len(rows) == 2
    assert "Write 2 questions" in ask.messages[-1]["content"]


def test_further_keys_that_a_prompt_asks_for_are_kept(tmp_path):
    own = own_prompt(
        tmp_path, 'Reply {"question": "...", "scenario": "...", "steps": ["..."], "level": 3}.'
    )
    [row], ask = asked_with(own, written(steps=["a", "b"], level=3, unasked=None))
    assert json.loads(row["extra"]) == {"steps": ["a", "b"], "level": 3, "unasked": None}
    [other], _ = asked_with(own, written(steps=[1, 2], level={"of": 3}))
    assert json.loads(other["extra"]) == {"steps": [1, 2], "level": {"of": 3}}
    assert {"steps", "level"} < set(ask.schema.model_json_schema()["properties"])


def verdicts(**changed):
    all_good = dict.fromkeys(QUESTION_VERDICTS, True)
    return json.dumps({"explanation": "So.", **all_good, **changed})


def test_a_judge_of_questions_sends_what_fails_to_the_rejects():
    docs = documents(
        *({"doc_id": f"d{n}", "text": f"{WORDS} {n}", "title": "Roads"} for n in range(4))
    )

    def judging(ask, attempt):
        prompt = ask.messages[-1]["content"]
        assert ">\nRoads\n\nword0" in prompt
        return {
            "0": verdicts(),
            "1": verdicts(settled=False, language=False),
            "2": verdicts(one_thing=False),
            "3": "no verdict",
        }[prompt.partition("Why is number ")[2][0]]

    judging_teacher = ScriptedTeacher(judging)
    rows, rejects, _ = run(
        docs,
        lambda ask, _: written(f"Why is number {ask.key[1:]} so?"),
        judge=Judge(judging_teacher, TEMPLATES),
    )
    assert len(judging_teacher.asked) == 4
    assert rows.select("doc_id", "judged").rows() == [
        ("d0", dict.fromkeys(QUESTION_VERDICTS, True)),
        ("d3", None),
    ]
    assert rejects.select("doc_id", "reason", "attempts").rows() == [
        ("d1", "judged_settled", 1),
        ("d2", "judged_one_thing", 1),
    ]


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


def test_half_a_character_costs_neither_the_row_nor_the_reject():
    [row], _ = one(f"Half \ud83d.\n{written('Why does salt melt ice?')}")
    assert row["question"] == "Why does salt melt ice?"
    _, [reject] = one("no json \ud83d", max_attempts=1)
    assert reject["detail"] == "no json \ufffd"
