"""Checks on questions, judged on questions written by hand on the sample corpus."""

import pytest

from rare_assets_tests.support.rows import rows
from rare_assets_tests.support.written_questions import CLOSE, WRITTEN


def judge_on(stored, documents, name, asked):
    """What a check says of questions on the sample corpus, given as (doc_id, question)."""
    stored.tables.write("documents", "a", documents)
    questions = [
        {"question_id": f"q{number}", "doc_id": doc_id, "question": question}
        for number, (doc_id, question) in enumerate(asked)
    ]
    stored.tables.write("questions", "a", rows("questions", *questions))
    return stored.judge("questions", name)


LOOKUP = [(each.doc_id, each.lookup) for each in WRITTEN]
REASONED = [(each.doc_id, each.question) for each in WRITTEN] + list(CLOSE)


def test_of_questions_that_one_sentence_answers_most_are_found(stored, sample_corpus):
    judgement = judge_on(stored, sample_corpus, "questions_need_more_than_lookup", LOOKUP)
    assert not judgement.passed
    # One of the twenty has a single content word; another shares four of seven.
    assert (judgement.metadata["lookup"], judgement.metadata["judged"]) == (18, 19)
    first = judgement.metadata["examples"][0]
    assert first["question"] == WRITTEN[0].lookup
    assert first["sentence"].startswith("In the Daniell cell zinc dissolves at the anode")
    assert first["overlap"] == pytest.approx(5 / 7)


CHECKS_OF_QUESTIONS = [
    "questions_need_more_than_lookup",
    "questions_not_quoted",
    "questions_stand_alone",
    "questions_distinct",
    "questions_in_language_of_document",
]


@pytest.mark.parametrize("name", CHECKS_OF_QUESTIONS)
def test_no_question_that_takes_reasoning_is_flagged(stored, sample_corpus, name):
    judgement = judge_on(stored, sample_corpus, name, REASONED)
    assert judgement.passed
    assert judgement.metadata["examples"] == []
    assert judgement.metadata["judged"] >= 40


DOCUMENT = {
    "text": "The less noble metal becomes the anode and corrodes; the nobler one, serving as cathode, "
    "is protected. How fast it is eaten depends on the ratio of the areas."
}


@pytest.mark.parametrize(
    ("question", "scenario", "quotation"),
    [
        # Punctuation and case don't hide it, and the end of the document counts.
        (
            "Why corrodes THE nobler one serving as (cathode) is protected?",
            "",
            "corrodes the nobler one serving as cathode is",
        ),
        ("Is it so?", "He says it depends on the ratio of the areas.", None),
        (
            "Is it so?",
            "He says: is eaten depends on the ratio of the areas.",
            "is eaten depends on the ratio of the",
        ),
        # Seven words, and a run that goes on from question to scenario.
        ("The less noble metal becomes the anode?", "And corrodes; the nobler one.", None),
        # Words, not letters: `eaten` is not `beaten`.
        ("Is beaten depends on the ratio of the", "No.", None),
    ],
)
def test_a_quotation_is_eight_words_in_a_row(stored, question, scenario, quotation):
    stored.write("documents", DOCUMENT)
    stored.write("questions", {"question": question, "scenario": scenario or "Somebody asks."})
    examples = stored.judge("questions", "questions_not_quoted").metadata["examples"]
    assert [each["quotation"] for each in examples] == ([quotation] if quotation else [])


def test_without_blanks_a_quotation_is_sixteen_characters(stored):
    stored.write("documents", {"text": "在丹尼尔电池中锌在阳极溶解而铜离子在阴极沉积"})
    stored.write(
        "questions",
        {"question": "为什么丹尼尔电池中锌在阳极溶解而铜"},
        {"question_id": "d1-q1", "question": "为什么丹尼尔电池中锌在阳极溶解而铜离子"},
    )
    examples = stored.judge("questions", "questions_not_quoted").metadata["examples"]
    assert [each["question_id"] for each in examples] == ["d1-q1"]


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("Steel rusts in salt water. Copper does not.", 1),
        ("Steel rusts in salt water; copper does not", 0),
        # A list that has no marks is not a sentence.
        (f"# Metals\nSteel rusts in salt water {'and copper does not ' * 15}", 1),
        (f"Metals {'and steel rusts in salt water ' * 11}\n{'and copper ' * 31}", 0),
    ],
)
def test_lookup_is_judged_where_there_are_sentences(stored, text, judged):
    stored.write("documents", {"text": text})
    stored.write("questions", {"question": "Which metal rusts in salt water: steel or copper?"})
    judgement = stored.judge("questions", "questions_need_more_than_lookup")
    assert judgement.metadata["judged"] == judged


def test_a_question_whose_document_is_gone_is_left_to_another_check(stored):
    stored.write("questions", {"doc_id": "d7"})
    for name in CHECKS_OF_QUESTIONS:
        assert stored.judge("questions", name).passed
    assert not stored.judge("questions", "documents_as_stored").passed
