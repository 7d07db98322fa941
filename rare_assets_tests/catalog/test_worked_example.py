"""A row as a page of Markdown: what stands on it, and that no text of a corpus is rendered."""

import json

import pytest

from rare_assets.catalog.worked_example import literal, shortened, worked_example
from rare_assets.schemas import TABLES
from rare_assets_tests.support.rows import rows


def shown(table, *changes, documents=None):
    return worked_example(table, rows(table, *(changes or ({},))), documents).md_str


def test_reasoning_is_shown_with_all_that_the_teacher_saw_and_said():
    assert shown("reasoning", {"answer_correct": True}).split("\n\n") == [
        "**Scenario**",
        "> An engineer sees a stored battery go flat\\.",
        "**Question**: d1\\-q0",
        "> Why does a cell lose charge over time\\?",
        "**Gold document**: d1, shown at place 2 of 3",
        "> Cells store charge\\.",
        "**Hard negative 1**",
        "> Cells divide\\.",
        "**Hard negative 2**",
        "> Charge is conserved\\.",
        "**Reasoning**: m, 5 tokens, 1 attempt",
        "> It discharges itself\\.",
        "**Answer**: agrees with the gold answer",
        "> Self\\-discharge\\.",
    ]


def test_negatives_are_shown_with_their_scores_beside_the_gold_document():
    documents = rows("documents", {}).lazy()
    said = shown("hard_negatives", documents=documents)
    assert "**Gold document**: d1, rank 1, BM25 score 3.00\n\n> Cells store charge" in said
    assert "**Hard negative 1**: d2, rank 2, BM25 score 2.00\n\n> Cells divide" in said
    lost = {"gold_rank": None, "gold_score": None}
    unknown = shown("hard_negatives", lost, documents=documents)
    assert "**Gold document**: d1, beyond the ranks searched" in unknown


def test_a_question_is_shown_with_its_document():
    said = shown("questions", {"attempts": 2}, documents=rows("documents", {}).lazy())
    for text in (
        "> Cells store charge",
        "> An engineer",
        "> Why does",
        "Written by m, 2 attempts.",
    ):
        assert text in said


def test_a_document_is_shown_with_its_title_answer_and_source():
    said = shown("documents", {"title": "Cells", "answer": "42"})
    assert "**Document**: d1, Cells\n\n> Cells store charge" in said
    assert "**Gold answer**\n\n> 42" in said
    assert said.endswith("From a\\.jsonl\\:1, 3 words.")


def test_the_row_with_most_negatives_is_shown():
    poor = {"question_id": "poor", "hard_negatives": [], "negatives": []}
    assert "d1\\-q0" in shown("hard_negatives", poor, {})
    assert "**No hard negative** was found." in shown("hard_negatives", poor)


def test_nothing_of_a_text_is_rendered():
    text = "![pixel](http://e.org/p.png)\n# Heading\n\n    code\n- list <b>bold</b> `x` | a\n1. one"
    said = shown("documents", {"text": text})
    lines = said.split("\n\n")[1].splitlines()
    assert lines == [
        "> \\!\\[pixel\\]\\(http\\:\u200b\\/\\/e\\.org\\/p\\.png\\)",
        "> \\# Heading",
        "> ",
        "> code",
        "> \\- list \\<b\\>bold\\<\\/b\\> \\`x\\` \\| a",
        "> 1\\. one",
    ]


def test_an_address_is_no_link_and_a_long_word_can_be_broken():
    text = f"See https://e.org/p, WWW.e.org or me@e.org: {'x' * 70}"
    assert literal(text).replace("\\", "").split("\u200b") == [
        "See https:",
        "//e.org/p, WWW",
        ".e.org or me@",
        f"e.org: {'x' * 30}",
        "x" * 30,
        "x" * 10,
    ]
    assert "\u200b" in shown("documents", {"text": text})


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_has_an_example_too(table):
    assert worked_example(table, rows(table).clear()).md_str == "No rows."


@pytest.mark.parametrize(("text", "kept"), [("word " * 9, 20), ("電" * 45, 6), ("🔋" * 45, 3)])
def test_a_text_is_cut_by_letters_and_by_what_it_takes_in_the_event_log(text, kept):
    short = shortened(text, 20)
    assert short == text[:kept] + "…"
    assert len(json.dumps(short[:-1])) <= 2 * 20 + 2
    assert shortened(text[:3], 20) == text[:3]
