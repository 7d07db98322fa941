# ruff: noqa: RUF001

import polars as pl
import pytest

from rare_assets.operators.bm25_hard_neg.siblings import Siblings

GOLD = "The bearing failed because grease hardened at minus forty degrees during the winter trial."
HOLDS = "In the winter trial the bearing was opened: grease that had hardened was the cause."
OTHER = "The gearbox was filled with new oil before the summer trial and ran for nine weeks."
ELSEWHERE = HOLDS + " Copied into another report."
TEXTS = {"gold": GOLD, "holds": HOLDS, "other": OTHER, "elsewhere": ELSEWHERE}


def siblings(same_parent="allow", *, answer="hardened grease", parents=None, texts=None):
    parents = parents or {"gold": "a.md", "holds": "a.md", "other": "a.md", "elsewhere": "b.md"}
    texts = TEXTS | (texts or {})
    rows = [
        {"doc_id": d, "parent_id": parents.get(d), "title": None, "text": text}
        for d, text in texts.items()
    ]
    schema = dict.fromkeys(("doc_id", "parent_id", "title", "text"), pl.String)
    asked = pl.DataFrame(
        [("q", "gold", "Why did the bearing fail in the winter trial?", answer)],
        schema=dict.fromkeys(("question_id", "doc_id", "question", "reference_answer"), pl.String),
        orient="row",
    )
    found = Siblings(asked, pl.DataFrame(rows, schema=schema), same_parent)
    return {doc_id: rule for doc_id in texts if (rule := found.rule("q", doc_id)) is not None}


def test_a_sibling_that_holds_the_answer_is_left_out():
    assert siblings() == {"gold": "same_parent_holds_answer", "holds": "same_parent_holds_answer"}


def test_every_sibling_is_left_out_where_that_is_asked_for():
    assert siblings("exclude").keys() == {"gold", "holds", "other"}
    assert set(siblings("exclude").values()) == {"same_parent"}


def test_words_of_an_answer_alone_do_not_make_a_sibling_hold_it():
    texts = {"word": "Grease hardened in storage is thrown away by the workshop every month."}
    parents = {"gold": "a.md", "word": "a.md"}
    assert "word" not in siblings(parents=parents, texts=texts)


def test_without_an_answer_or_a_parent_nothing_is_left_out():
    assert siblings(answer=None) == {}
    assert siblings(parents={"holds": "a.md"}) == {}
    assert siblings("exclude", parents={"holds": "a.md"}) == {}


@pytest.mark.parametrize("answer", ["冬季试验中润滑脂在低温下变硬"])
def test_an_answer_in_a_script_without_blanks_is_found_in_other_places(answer):
    texts = {
        "gold": "轴承失效的原因是冬季试验中润滑脂在低温下变硬，导致轴承无法转动。",
        "holds": "报告写道：冬季试验中润滑脂在低温下变硬。",
        "other": "齿轮箱在夏季试验之前换了新的机油。",
    }
    parents = dict.fromkeys(texts, "a.md")
    assert siblings(answer=answer, parents=parents, texts=texts).keys() == {"gold", "holds"}
