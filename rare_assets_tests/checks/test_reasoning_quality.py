"""Checks on reasoning, judged on reasoning written by hand on the sample corpus."""

import pytest

from rare_assets_tests.support.rows import rows
from rare_assets_tests.support.written_questions import WRITTEN


def reasoned(texts, of):
    """Rows of reasoning: each question with its gold document, the texts of the next three as negatives,
    and the reasoning to the question that lies `of` places on."""
    return [
        {
            "question_id": f"{each.doc_id}-q0",
            "doc_id": each.doc_id,
            "text": texts[each.doc_id],
            "question": each.question,
            "scenario": "Somebody asks.",
            "hard_negatives": [
                texts[WRITTEN[(place + step) % len(WRITTEN)].doc_id] for step in (1, 2, 3)
            ],
            "reasoning": WRITTEN[(place + of) % len(WRITTEN)].reasoning,
        }
        for place, each in enumerate(WRITTEN)
    ]


@pytest.fixture
def texts(sample_corpus):
    return dict(sample_corpus.select("doc_id", "text").iter_rows())


def test_reasoning_in_own_words_is_not_flagged(stored, texts):
    stored.tables.write("reasoning", "a", rows("reasoning", *reasoned(texts, of=0)))
    for name in ("reasoning_uses_gold", "reasoning_in_language_of_document"):
        judgement = stored.judge("reasoning", name)
        assert judgement.passed
        assert judgement.metadata["judged"] == 20
        assert judgement.metadata["examples"] == []


@pytest.mark.parametrize("of", [1, 2, 3])
def test_reasoning_on_a_negative_is_found_in_most_rows(stored, texts, of):
    """Neighbours in the corpus are of one subject, so some of their words are the gold document's too."""
    stored.tables.write("reasoning", "a", rows("reasoning", *reasoned(texts, of=of)))
    judgement = stored.judge("reasoning", "reasoning_uses_gold")
    assert not judgement.passed
    assert judgement.metadata["gold_unused"] > 10


def test_a_restated_question_is_no_use_of_the_gold_document(stored, texts):
    row = reasoned(texts, of=0)[3]
    row["question"] = "Why does diffusion of sulfuric acid in the pores lower a battery's capacity?"
    stored.write("reasoning", row | {"reasoning": f"The question is: {row['question']}"})
    judgement = stored.judge("reasoning", "reasoning_uses_gold")
    assert judgement.metadata["examples"][0]["used"] == 0


def test_a_gold_document_that_brings_in_little_is_not_judged(stored):
    """`Cells store charge.` has three longer words; what the teacher says of it counts all the same."""
    stored.write("reasoning", {"gold_used": None})
    assert stored.judge("reasoning", "reasoning_uses_gold").metadata["judged"] == 0


def test_reasoning_in_another_language_is_not_judged_by_its_words(stored, texts):
    german = "Die Säure in den Poren ist verbraucht, und neue kommt so schnell nicht nach."
    row = reasoned(texts, of=0)[3] | {"reasoning": german}
    stored.write("reasoning", row)
    judgement = stored.judge("reasoning", "reasoning_uses_gold")
    assert (judgement.passed, judgement.metadata["judged"]) == (True, 0)
    assert not stored.judge("reasoning", "reasoning_in_language_of_document").passed


def test_what_the_teacher_says_that_it_used_comes_first(stored, texts):
    good = reasoned(texts, of=0)[0]
    rows = [
        {**good, "gold_used": used, "question_id": f"q{n}"}
        for n, used in enumerate([True, False, None])
    ]
    hidden = {**good, "gold_used": None, "gold_position": None, "question_id": "q3"}
    stored.write("reasoning", *rows, hidden)
    found = stored.judge("reasoning", "reasoning_uses_gold").metadata
    assert (found["gold_unused"], found["judged"]) == (1, 3)
    assert found["examples"][0]["question_id"] == "q1"
