import random
import re
import zlib

import polars as pl
import pytest

from rare_assets.operators.bm25_hard_neg import RULES, bm25_hard_neg
from rare_assets.schemas import HardNegatives, HardNegativesRejects
from rare_assets_tests.support.doubles import GivenRanking, questions, text_hash

PLAIN = {"relative_margin": 0, "range_min": 0}


def ranking(*scored, query="why", texts=None) -> GivenRanking:
    """Documents `(doc_id, score)` for one query; each text is a word of its own unless given."""

    # ruff: noqa: RUF001
    texts = {doc_id: f"only{doc_id}" for doc_id, _ in scored} | (texts or {})
    return GivenRanking(texts, {query: dict(scored)})


def question(doc_id="gold", question_id="q", query="why", text=None, **fields):
    text = f"only{doc_id}" if text is None else text
    return {
        "question_id": question_id,
        "doc_id": doc_id,
        "text_hash": text_hash(text),
        "question": query,
    } | fields


def mine(retriever, *asked, **options):
    return bm25_hard_neg(questions(*(asked or (question(),))), retriever, **options)


def negatives(retriever, *asked, **options) -> list[str]:
    """The negatives' ids of the one question."""
    [row] = mine(retriever, *asked, **options).produced.rows.to_dicts()
    return [negative["doc_id"] for negative in row["negatives"]]


FOUR = [("a", 9.0), ("gold", 8.0), ("b", 7.0), ("c", 6.0), ("d", 5.0)]


def test_a_row_has_texts_best_first_with_their_place_in_the_ranking():
    rows, rejects = mine(ranking(*FOUR), **PLAIN).produced
    HardNegatives.validate(rows)
    assert rows.to_dicts() == [
        {
            "question_id": "q",
            "doc_id": "gold",
            "query": "why",
            "hard_negatives": ["onlya", "onlyb", "onlyc"],
            "negatives": [
                {"doc_id": "a", "score": 9.0, "rank": 1, "origin": "question"},
                {"doc_id": "b", "score": 7.0, "rank": 3, "origin": "question"},
                {"doc_id": "c", "score": 6.0, "rank": 4, "origin": "question"},
            ],
            "hard_negative_titles": [None] * 3,
            "gold_score": 8.0,
            "gold_rank": 2,
            "judged_relevant": [],
            "extra_positives": None,
            "extra_positive_ids": None,
        }
    ]
    assert rejects.is_empty()


def test_the_default_leaves_out_what_scores_near_the_gold_or_above():
    scored = [("a", 11.0), ("gold", 10.0), ("b", 8.01), ("c", 8.0), ("d", 7.0), ("e", 6.0)]
    assert negatives(ranking(*scored)) == ["c", "d", "e"]


def traced(retriever, **options):
    """What became of each document ranked for the one question, in order."""
    found = []
    mine(retriever, trace=lambda _, considered: found.extend(considered), **options)
    return [(each.doc_id, each.rank, each.outcome) for each in found]


def test_a_trace_says_of_every_document_why_it_was_taken_or_left():
    scored = [("a", 11.0), ("gold", 10.0), ("twin", 10.0), ("b", 9.5), ("c", 7.0), ("d", 6.5)]
    scored += [("copy", 6.2), ("e", 6.0), ("f", 5.0)]
    texts = {"twin": "onlygold", "copy": "onlyd"}
    given = ranking(*scored, texts=texts)
    assert traced(given, num_neg=3, range_min=1, range_max=6) == [
        ("a", 1, "range_min"),
        ("gold", 2, "gold"),
        ("twin", 3, "twin_of_gold"),
        ("b", 4, "relative_margin"),
        ("c", 5, "taken"),
        ("d", 6, "taken"),
        ("copy", 7, "same_text"),
        ("e", 8, "taken"),
        ("f", 9, "not_needed"),
    ]


@pytest.mark.parametrize(
    ("same_parent", "taken", "rules"),
    [
        ("allow", ["b", "c"], {"a": "same_parent_holds_answer"}),
        ("exclude", ["c", "d"], {"a": "same_parent", "b": "same_parent"}),
    ],
)
def test_passages_of_the_golds_parent_that_hold_the_answer_are_replaced(same_parent, taken, rules):
    texts = {"gold": "the pump stalled on sand", "a": "sand stalled the pump", "b": "the pump ran"}
    texts |= {"c": "a valve leaks", "d": "a pipe bends"}
    given = ranking(("a", 9.0), ("gold", 8.0), ("b", 7.0), ("c", 6.0), ("d", 5.0), texts=texts)
    documents = pl.DataFrame(
        {
            "doc_id": list(texts),
            "parent_id": ["log.md", "log.md", "log.md", "c", "d"],
            "title": pl.Series([None] * 5, dtype=pl.String),
            "text": list(texts.values()),
        }
    )
    asked = question(text=texts["gold"], reference_answer="sand")
    options = {"same_parent": same_parent, "documents": documents, "num_neg": 2, **PLAIN}
    found = []
    mined = mine(given, asked, trace=lambda _, considered: found.extend(considered), **options)
    [row] = mined.produced.rows.to_dicts()
    assert [negative["doc_id"] for negative in row["negatives"]] == taken
    outcomes = {each.doc_id: each.outcome for each in found}
    assert {doc_id: outcomes[doc_id] for doc_id in rules} == rules
    assert mined.stats.dropped == {
        rule: list(rules.values()).count(rule) for rule in rules.values()
    }


def test_a_trace_names_what_the_judge_left_out_and_what_ranks_too_low():
    given = ranking(*FOUR, ("e", 4.0), ("f", 3.0))

    def is_relevant(pairs):
        return [doc_id == "b" for doc_id in pairs["doc_id"]]

    outcomes = traced(given, num_neg=2, range_max=4, is_relevant=is_relevant, **{"range_min": 0})
    assert [(doc_id, outcome) for doc_id, _, outcome in outcomes] == [
        ("a", "relative_margin"),
        ("gold", "gold"),
        ("b", "relative_margin"),
        ("c", "taken"),
        ("d", "taken"),
        ("e", "range_max"),
        ("f", "range_max"),
    ]
    plain = traced(given, num_neg=2, range_max=4, is_relevant=is_relevant, **PLAIN)
    assert ("b", 3, "judged_relevant") in plain


LOW = [(f"d{n:02}", 50.0 - n) for n in range(30)] + [("gold", 19.5)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["d20", "d21", "d22"]),
        ({"fallback_range_min": 4}, ["d04", "d05", "d06"]),
        ({"fallback_range_min": 4, "range_min": 10}, ["d10", "d11", "d12"]),
        ({"fallback_range_min": 28}, ["d28", "d29"]),
        ({"fallback_range_min": 0, "range_max": 10}, ["d00", "d01", "d02"]),
        ({"fallback_range_min": 20, "range_max": 10}, []),
        ({"fallback_range_min": None}, []),
        ({"relative_margin": 0, "absolute_margin": 0.0}, ["d20", "d21", "d22"]),
        ({"max_score": 28.0}, ["d22", "d23", "d24"]),
        ({"relative_margin": 0, "max_score": 10.0}, []),
        ({"relative_margin": 0}, ["d00", "d01", "d02"]),
    ],
)
def test_slots_that_margins_leave_empty_are_filled_from_lower_ranks(options, expected):
    assert negatives(ranking(*LOW), **options) == expected


def test_what_a_margin_lets_pass_is_taken_before_lower_ranks_fill_up():
    scored = [(f"d{n:02}", 50.0 - n) for n in range(30)] + [("gold", 45.5)]
    options = {"relative_margin": 0.5, "absolute_margin": 24.0}
    assert negatives(ranking(*scored), fallback_range_min=12, **options) == ["d12", "d13", "d29"]
    assert negatives(ranking(*scored), fallback_range_min=None, **options) == ["d29"]


def test_a_gold_without_a_score_gets_what_ranks_low_before_what_ranks_high():
    scored = [(f"d{n:02}", 50.0 - n) for n in range(22)]
    retriever = ranking(*scored, texts={"gold": "onlygold"})
    assert negatives(retriever) == ["d00", "d20", "d21"]
    assert negatives(retriever, fallback_range_min=None) == ["d00", "d01", "d02"]
    assert negatives(retriever, **PLAIN) == ["d00", "d01", "d02"]


def test_random_choices_fill_up_from_lower_ranks_too():
    options = {"sampling_strategy": "random", "fallback_range_min": 20}
    drawn = {tuple(negatives(ranking(*LOW), **options, seed=seed)) for seed in range(9)}
    assert len(drawn) > 3
    assert {doc_id for ids in drawn for doc_id in ids} <= {f"d{n}" for n in range(20, 30)}
    assert {len(set(ids)) for ids in drawn} == {3}


def test_stats_count_negatives_that_no_margin_let_pass():
    scored = [(f"d{n:02}", 50.0 - n) for n in range(30)]
    retriever = GivenRanking(
        {doc_id: f"only{doc_id}" for doc_id in [*dict(scored), "low", "near", "none"]},
        {
            "one": dict([*scored, ("low", 27.5)]),
            "two": dict([*scored, ("near", 60.0)]),
            "three": dict(scored),
        },
    )
    asked = [
        question("low", "q1", "one"),
        question("near", "q2", "two"),
        question("none", "q3", "three"),
    ]
    stats = mine(retriever, *asked).stats
    # At most 22.0 beside a gold of 27.5: d28 and d29, and one from rank 20 on.
    assert (stats.found, stats.filled_beyond_margin) == ({3: 3}, 1 + 0 + 3)
    assert mine(retriever, *asked, **PLAIN).stats.filled_beyond_margin == 0


OF_SUBJECT = [f"near{n:02}" for n in range(14)]


def test_where_the_question_missed_the_subject_the_golds_terms_find_it():
    texts = {
        d: f"only{d}" for d in ["gold", *OF_SUBJECT, "of1", "of2", *(f"d{n:02}" for n in range(30))]
    }
    away = {f"d{n:02}": 50.0 - n for n in range(30)}
    near = {d: 89.0 - n for n, d in enumerate(OF_SUBJECT)}
    subject = {"gold": 90.0, **near, "of1": 60.0, "d25": 50.0, "of2": 40.0}
    retriever = GivenRanking(texts, {"why": away, "like onlygold": subject})
    [row] = mine(retriever).produced.rows.to_dicts()
    # Fifteen ranks are skipped, the gold's own among them.
    assert row["negatives"] == [
        {"doc_id": "of1", "score": 60.0, "rank": 16, "origin": "gold"},
        {"doc_id": "d25", "score": 50.0, "rank": 17, "origin": "gold"},
        {"doc_id": "of2", "score": 40.0, "rank": 18, "origin": "gold"},
    ]
    assert (row["gold_rank"], row["query"]) == (None, "why")
    assert negatives(retriever, num_neg=5) == ["of1", "d25", "of2", "d20", "d21"]
    assert negatives(retriever, fallback_range_min=None) == ["d00", "d01", "d02"]
    assert negatives(retriever, **PLAIN) == ["d00", "d01", "d02"]
    found = GivenRanking(texts, {"why": {"gold": 99.0, **away}, "like onlygold": subject})
    assert negatives(found) == ["d00", "d01", "d02"]
    # One search for each question, and one more where it missed its gold.
    assert found.depths == [(16, 1)]
    assert retriever.depths[:3] == [(16, 1), (110, 1), (-100, 1)]


def test_candidates_by_the_gold_or_by_both():
    texts = {d: f"only{d}" for d in ["gold", "a", "b", "c", "d", "e"]}
    question_ranks = {"gold": 9.0, "a": 8.0, "b": 7.0, "c": 6.0}
    gold_ranks = {"gold": 90.0, "c": 80.0, "d": 70.0, "e": 60.0}
    retriever = GivenRanking(texts, {"why": question_ranks, "like onlygold": gold_ranks})
    assert negatives(retriever, query="gold", **PLAIN) == ["c", "d", "e"]
    assert negatives(retriever, query="gold", relative_margin=0.2) == ["d", "e"]
    [row] = mine(retriever, query="fused", num_neg=5, **PLAIN).produced.rows.to_dicts()
    assert row["negatives"] == [
        {"doc_id": "c", "score": 80.0, "rank": 2, "origin": "gold"},
        {"doc_id": "a", "score": 8.0, "rank": 2, "origin": "question"},
        {"doc_id": "b", "score": 7.0, "rank": 3, "origin": "question"},
        {"doc_id": "d", "score": 70.0, "rank": 3, "origin": "gold"},
        {"doc_id": "e", "score": 60.0, "rank": 4, "origin": "gold"},
    ]
    assert (row["gold_score"], row["gold_rank"]) == (9.0, 1)
    # Beyond a margin in either ranking is out: c in the gold's, a in the question's.
    assert negatives(retriever, query="fused", relative_margin=0.2, fallback_range_min=None) == [
        "b",
        "d",
        "e",
    ]


def test_what_is_relabelled_is_named_with_its_text():
    judge = Judge(lambda row: row["doc_id"] == "a")
    [row] = mine(ranking(*FOUR), is_relevant=judge, relabel=True, **PLAIN).produced.rows.to_dicts()
    assert (row["extra_positive_ids"], row["extra_positives"]) == (["a"], ["onlya"])
    with pytest.raises(ValueError, match="relabel needs a judge"):
        mine(ranking(*FOUR), relabel=True)


def test_documents_with_the_golds_text_are_never_negatives():
    texts = {"twin1": "onlygold", "twin2": "onlygold"}
    retriever = ranking(("twin1", 9.0), ("gold", 8.0), ("twin2", 8.0), ("b", 7.0), texts=texts)
    mined = mine(retriever, **PLAIN)
    [row] = mined.produced.rows.to_dicts()
    assert row["hard_negatives"] == ["onlyb"]
    assert mined.stats.dropped == {"twin_of_gold": 2}


def test_equal_texts_count_once_by_their_best_rank():
    texts = {"b": "onlya"}
    retriever = ranking(("a", 9.0), ("b", 9.0), ("c", 8.0), ("gold", 1.0), texts=texts)
    mined = mine(retriever, num_neg=2, **PLAIN)
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["a", "c"]
    assert mined.stats.dropped == {"same_text": 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"range_min": 1}, ["b", "c", "d"]),
        ({"range_min": 2}, ["c", "d"]),
        ({"range_min": 4}, []),
        ({"range_max": 2, "num_neg": 2}, ["a", "b"]),
        ({"range_min": 1, "range_max": 3, "num_neg": 2}, ["b", "c"]),
        ({"max_score": 7.0}, ["b", "c", "d"]),
        ({"min_score": 6.0}, ["a", "b", "c"]),
        ({"min_score": 6.5, "max_score": 8.0}, ["b"]),
        ({"absolute_margin": 0}, ["b", "c", "d"]),
        ({"absolute_margin": 2.0}, ["c", "d"]),
        ({"relative_margin": 0.25}, ["c", "d"]),
        ({"relative_margin": 0.2, "absolute_margin": 2.5}, ["d"]),
        ({"relative_margin": None}, ["a", "b", "c"]),
        ({"num_neg": 1}, ["a"]),
        ({"num_neg": 9}, ["a", "b", "c", "d"]),
    ],
)
def test_ranks_are_counted_without_the_gold_and_scores_bound_what_is_kept(options, expected):
    assert negatives(ranking(*FOUR), **(PLAIN | options)) == expected


def test_a_relative_margin_of_zero_gives_the_best_ranked_texts_but_the_golds():
    """Near-duplicates too: only the margin brings their rule with it."""
    near = "one two three four five six seven eight nine"
    texts = {"gold": near, "a": f"{near} ten", "b": f"{near} eleven"}
    retriever = ranking(("a", 9.0), ("gold", 9.0), ("b", 8.0), ("c", 7.0), texts=texts)
    assert negatives(retriever, question(text=near), **PLAIN) == ["a", "b", "c"]


NEAR = {
    "gold": "a1 a2 a3 a4 a5",
    "copy": "A1, a2. a3 a4 extra",  # 4 of 5 words
    "part": "a1 a2",  # all of its words
    "half": "a1 a2 a3 x1 x2",  # 3 of 5
    "other": "x1 x2 x3 x4 x5",  # 2 of 5 of half's
    "blank": "...",
}
NEAR_SCORES = [("gold", 9.0), ("copy", 5.0), ("part", 4.0), ("half", 3.0), ("other", 2.0), ("blank", 1.0)]  # fmt: skip


@pytest.mark.parametrize(
    ("threshold", "expected", "dropped"),
    [
        (0, ["copy", "part", "half", "other", "blank"], {}),
        (1.0, ["copy", "half", "other", "blank"], {"near_duplicate_of_gold": 1}),
        (None, ["half", "other", "blank"], {"near_duplicate_of_gold": 2}),
        (0.8, ["half", "other", "blank"], {"near_duplicate_of_gold": 2}),
        (0.6, ["other", "blank"], {"near_duplicate_of_gold": 3}),
    ],
)
def test_near_duplicates_of_the_gold_are_left_out(threshold, expected, dropped):
    retriever = GivenRanking(NEAR, {"why": dict(NEAR_SCORES)})
    mined = mine(
        retriever, question(text=NEAR["gold"]), num_neg=5, near_duplicate_threshold=threshold
    )
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == expected
    assert mined.stats.dropped == dropped


def test_words_of_any_script_are_compared():
    gold = "Größe, naïve façade: 東京 cafe_1"
    texts = {"gold": gold, "copy": "GRÖSSE größe! (naïve) façade 東京; CAFE_1", "ascii": "cafe_1"}
    retriever = ranking(("copy", 9.0), ("ascii", 8.0), ("gold", 7.0), ("b", 6.0), texts=texts)
    options = {"relative_margin": 0, "near_duplicate_threshold": 1.0}
    mined = mine(retriever, question(text=gold), **options)
    # Of copy's words "grösse" alone is not the gold's.
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["b"]
    assert mined.stats.dropped == {"near_duplicate_of_gold": 2}


@pytest.mark.parametrize(
    ("gold", "copy", "other"),
    [
        (
            "电池放电时，负极上的金属失去电子，电子经过外电路流向正极。",
            "电池充电时，负极上的金属失去电子，电子经过外电路流向正极！",
            "汛期水量大增，两岸的堤坝承受很大的压力，村庄被淹没。",
        ),
        (
            "ขณะคายประจุโลหะที่ขั้วลบจะสูญเสียอิเล็กตรอนซึ่งไหลผ่านวงจรภายนอก",
            "ขณะคายประจุโลหะที่ขั้วบวกจะสูญเสียอิเล็กตรอนซึ่งไหลผ่านวงจรภายนอก",
            "ในฤดูน้ำหลากปริมาณน้ำเพิ่มขึ้นมากและกดดันคันกั้นน้ำทั้งสองฝั่ง",
        ),
    ],
)
def test_near_duplicates_are_found_where_no_blanks_are_set(gold, copy, other):
    retriever = ranking(
        ("copy", 6.0),
        ("other", 5.0),
        ("gold", 9.0),
        texts={"gold": gold, "copy": copy, "other": other},
    )
    mined = mine(retriever, question(text=gold), num_neg=2)
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["other"]
    assert mined.stats.dropped["near_duplicate_of_gold"] == 1


def test_near_duplicates_of_a_better_negative_are_left_out_and_others_move_up():
    texts = {"gold": "g1 g2 g3", "a": "b1 b2 b3 b4", "b": "b1 b2 b3 b5", "c": "b1 c2 c3 c4"}
    retriever = ranking(("a", 9.0), ("b", 8.0), ("c", 7.0), ("gold", 6.0), texts=texts)
    mined = mine(
        retriever,
        question(text="g1 g2 g3"),
        num_neg=2,
        relative_margin=0,
        near_duplicate_threshold=0.75,
    )
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["a", "c"]
    assert mined.stats.dropped == {"near_duplicate_of_negative": 1}


def test_scenario_and_question_are_the_query_when_asked():
    retriever = ranking(("a", 3.0), ("gold", 2.0), query="A driver wonders. why")
    asked = question(scenario="A driver wonders.")
    assert negatives(retriever, asked, query="scenario_question", **PLAIN) == ["a"]
    assert negatives(retriever, asked, query="question", **PLAIN) == []


def test_a_query_without_hits_keeps_an_empty_row():
    mined = mine(ranking(("gold", 1.0)), question(query="unheard of"))
    assert mined.produced.rows.to_dicts() == [
        {
            "question_id": "q",
            "doc_id": "gold",
            "query": "unheard of",
            "hard_negatives": [],
            "hard_negative_titles": [],
            "negatives": [],
            "gold_score": 0.0,
            "gold_rank": None,
            "judged_relevant": [],
            "extra_positives": None,
            "extra_positive_ids": None,
        }
    ]
    assert mined.produced.rejects.is_empty()


def test_a_gold_beyond_range_max_has_its_exact_score_and_no_rank():
    scored = [(f"d{n:02}", 50.0 - n) for n in range(30)] + [("gold", 2.5)]
    [row] = mine(ranking(*scored), range_max=20, **PLAIN).produced.rows.to_dicts()
    assert (row["gold_score"], row["gold_rank"]) == (2.5, None)
    [row] = mine(ranking(*scored), range_max=31, **PLAIN).produced.rows.to_dicts()
    assert (row["gold_score"], row["gold_rank"]) == (2.5, 31)


def test_margins_do_not_apply_where_the_gold_shares_no_word_with_the_question():
    retriever = ranking(("a", 3.0), ("b", 2.0), texts={"gold": "onlygold"})
    mined = mine(retriever, relative_margin=0.05, absolute_margin=1.0)
    [row] = mined.produced.rows.to_dicts()
    assert (row["gold_score"], row["gold_rank"]) == (0.0, None)
    assert row["hard_negatives"] == ["onlya", "onlyb"]
    assert mined.stats.margin_not_applicable == 1
    assert mine(retriever, **PLAIN).stats.margin_not_applicable == 0


def test_a_gold_that_the_index_lacks_goes_to_the_rejects():
    retriever = ranking(("a", 3.0), ("b", 2.0))
    mined = mine(retriever, question("a", "q1"), question("lost", "q2"), question("b", "q3"))
    rows, rejects = mined.produced
    HardNegativesRejects.validate(rejects)
    assert rows["question_id"].to_list() == ["q1", "q3"]
    assert rejects.to_dicts() == [
        {
            "question_id": "q2",
            "doc_id": "lost",
            "reason": "gold_not_in_index",
            "detail": "the index holds no document 'lost'",
        }
    ]
    assert mined.stats.questions == 2


def test_an_index_that_loses_a_document_meanwhile_is_an_error():
    retriever = ranking(*FOUR)
    retriever.forgotten = frozenset({"b"})
    with pytest.raises(RuntimeError, match="document 'b'"):
        mine(retriever, **PLAIN)


def test_no_questions_give_empty_tables():
    mined = bm25_hard_neg(questions(), ranking(*FOUR))
    assert mined.produced.rows.schema == HardNegatives.create_empty().schema
    assert mined.produced.rejects.schema == HardNegativesRejects.create_empty().schema
    assert mined.stats.questions == 0
    assert mined.stats.gold_rank_mean is None
    assert mined.stats.score_gap == {}


def test_a_random_choice_depends_on_seed_and_question_alone():
    scored = [("gold", 99.0)] + [(f"d{n:02}", 50.0 - n) for n in range(40)]
    retriever = ranking(*scored)
    asked = [question(question_id=f"q{n}") for n in range(30)]
    options = {"sampling_strategy": "random", "seed": 7, "range_max": 30}

    together = mine(retriever, *asked, **options).produced.rows
    by_id = {row["question_id"]: row for row in together.to_dicts()}
    assert together["question_id"].to_list() == [f"q{n}" for n in range(30)]
    for backwards in mine(retriever, *reversed(asked), **options).produced.rows.to_dicts():
        assert backwards == by_id[backwards["question_id"]]
    [alone] = mine(retriever, asked[3], **options).produced.rows.to_dicts()
    assert alone == by_id["q3"]

    ranks = [[n["rank"] for n in row["negatives"]] for row in by_id.values()]
    assert all(own == sorted(own) and len(set(own)) == 3 for own in ranks)
    assert len({tuple(own) for own in ranks}) > 20
    # Ranks of the hits, of which the gold is the first: 30 candidates are ranks 2 to 31.
    drawn = {rank for own in ranks for rank in own}
    assert drawn <= set(range(2, 32))
    assert len(drawn) > 20

    other = mine(retriever, *asked, **(options | {"seed": 8})).produced.rows
    assert not other.equals(together)


def test_stats_say_what_was_found_and_what_each_rule_left_out():
    texts = {doc_id: f"only{doc_id}" for doc_id in ["g1", "g2", "g3", "a", "b", "c"]}
    retriever = GivenRanking(
        texts,
        {
            "one": {"g1": 10.0, "a": 9.0, "b": 8.0, "c": 7.0},
            "two": {"a": 10.0, "b": 9.9, "g2": 8.0, "c": 6.0},
            "three": {"a": 1.0},
        },
    )
    asked = [
        question("g1", "q1", "one"),
        question("g2", "q2", "two"),
        question("g3", "q3", "three"),
    ]
    stats = mine(retriever, *asked, num_neg=2, relative_margin=0.05).stats
    assert stats._replace(score_gap={}) == (
        3,
        0,
        {1: 2, 2: 1},
        2,
        1,
        {"relative_margin": 2},
        1,
        0,
        1,
        2.0,
        2.0,
        1,
        {},
    )
    # Gaps: (10 - 9) / 10 and (8 - 6) / 8.
    assert stats.score_gap == pytest.approx(
        {0.0: 0.1, 0.1: 0.115, 0.25: 0.1375, 0.5: 0.175, 0.75: 0.2125, 0.9: 0.235, 1.0: 0.25}
    )


def test_texts_are_fetched_once_and_only_where_they_are_needed():
    scored = [("gold", 50.0)] + [(f"d{n:02}", 40.0 - n) for n in range(30)]
    retriever = ranking(*scored)
    mine(retriever, question(question_id="q1"), question(question_id="q2"), **PLAIN)
    assert sorted(retriever.fetched) == ["d00", "d01", "d02"]

    retriever = ranking(*scored)
    mine(retriever, question(question_id="q1"), question(question_id="q2"))
    assert len(retriever.fetched) == len(set(retriever.fetched))
    assert set(retriever.fetched) == {"gold", "d00", "d01", "d02"}


def test_only_questions_that_lack_something_are_searched_deeper():
    documents = {f"d{n:02}": float(90 - n) for n in range(80)}
    retriever = GivenRanking(
        {doc_id: f"only{doc_id}" for doc_id in documents},
        {"easy": documents, "deep": documents},
    )
    asked = [question("d01", f"q{n}", "easy") for n in range(5)]
    asked.append(question("d60", "far", "deep"))
    rows = mine(retriever, *asked, **PLAIN).produced.rows
    assert retriever.depths == [(16, 6), (110, 1)]
    assert rows["gold_rank"].to_list() == [2, 2, 2, 2, 2, 61]


def test_progress_is_told_after_every_batch(monkeypatch):
    monkeypatch.setattr("rare_assets.operators.bm25_hard_neg.mining._BATCH", 2)
    asked = [question(question_id=f"q{n}") for n in range(4)] + [question("lost", "q4")]
    told = []
    mined = mine(ranking(*FOUR), *asked, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert len(mined.produced.rows) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_neg": 0}, "num_neg must be at least 1"),
        ({"range_min": 98}, "range_min=98 to range_max=100 must hold num_neg=3"),
        ({"range_min": -1}, "range_min=-1"),
        ({"range_max": 10_001}, "range_max=10001"),
        ({"relative_margin": 1.5}, "relative_margin must be between 0 and 1"),
        ({"fallback_range_min": -1}, "fallback_range_min must be at least 0, not -1"),
        ({"near_duplicate_threshold": -0.1}, "near_duplicate_threshold must be between 0 and 1"),
        ({"query": "scenario"}, "query must be"),
        ({"sampling_strategy": "best"}, "sampling_strategy must be"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        mine(ranking(*FOUR), **options)


def ranked(hits, origin, gold_score):
    """doc_id -> (origin, rank, score, the gold's score) of a ranking, best first."""
    order = sorted(hits, key=lambda doc_id: (-hits[doc_id], doc_id))
    return {d: (origin, rank, hits[d], gold_score) for rank, d in enumerate(order, start=1)}


def window_of(retriever, order, gold, options, seen):
    """Of a ranking what is considered, and what of it a fallback may take."""
    remaining = []
    for doc_id in order:
        text = retriever.texts_by_id[doc_id]
        if text not in seen and doc_id != gold:
            seen.add(text)
            remaining.append(doc_id)
    fallback = options["fallback_range_min"]
    low = set() if fallback is None else set(remaining[fallback:])
    seen.difference_update(retriever.texts_by_id[d] for d in remaining[options["range_max"] :])
    return remaining[options["range_min"] : options["range_max"]], low


def within_bounds(window, scored, options):
    for name, beyond in (("max_score", 1), ("min_score", -1)):
        bound = options[name]
        if bound is not None:
            window = [
                d
                for d in window
                if all((score - bound) * beyond <= 0 for _, _, score, _ in scored[d])
            ]
    return window


def within_margins(window, scored, options):
    def fits(score, gold_score):
        if not gold_score:
            return True
        absolute, relative = options["absolute_margin"], options["relative_margin"]
        return (absolute is None or score <= gold_score - absolute) and (
            not relative or score <= gold_score * (1 - relative)
        )

    return [d for d in window if all(fits(*one[2:]) for one in scored[d])]


def expected_row(retriever, asked, options, verdicts=None):
    """The same choice made the plain way: the whole rankings at once, one rule after the other."""
    gold, gold_text = asked["doc_id"], retriever.texts_by_id[asked["doc_id"]]
    hits = retriever.scores[asked["question"]]
    like = retriever.scores[f"like {gold_text}"]
    gold_score = hits.get(gold, 0.0)
    by_question = ranked(hits, "question", gold_score)
    by_gold = ranked(like, "gold", like.get(gold))
    gold_rank = by_question[gold][1] if gold in by_question else None
    if gold_rank is not None and gold_rank > options["range_max"]:
        gold_rank = None
    has_margin = options["absolute_margin"] is not None or options["relative_margin"]
    fills_up = options["fallback_range_min"] is not None and (has_margin or verdicts is not None)
    missed = fills_up and (gold_rank is None or not gold_score)
    first, rest = {}, {"question": by_question, "gold": by_gold}.get(options["query"])
    if missed and options["query"] != "gold":
        first = {d: one for d, one in by_gold.items() if 15 < one[1] <= options["range_max"]}
        rest = {d: one for d, one in by_question.items() if d not in first}
    scored = {d: [one] for d, one in {**(rest or {}), **first}.items()}
    if rest is None:  # fused, and the gold was found
        within = [
            {d: one for d, one in each.items() if one[1] <= options["range_max"]}
            for each in (by_question, by_gold)
        ]
        both = {d: [r[d] for r in within if d in r] for d in [*within[0], *within[1]]}
        order = sorted(both, key=lambda d: -sum(1 / (60 + one[1]) for one in both[d]))
        scored = {d: sorted(both[d], key=lambda one: one[1]) for d in order}
        rest = scored
    seen = {gold_text}
    first_window, _ = window_of(retriever, first, gold, options, seen)
    first_window = within_margins(within_bounds(first_window, scored, options), scored, options)
    bounded, low = window_of(retriever, rest, gold, options, seen)
    bounded = within_bounds(bounded, scored, options)
    window = within_margins(bounded, scored, options)
    filling = [d for d in bounded if d in low and d not in window]
    threshold = options["near_duplicate_threshold"]
    if threshold is None:
        threshold = 0.8 if options["relative_margin"] else 0
    if options["sampling_strategy"] == "random":
        draw = random.Random(f"{options['seed']}:{asked['question_id']}")
        for places in (first_window, window, filling):
            draw.shuffle(places)
    if has_margin and gold_score == 0:
        window = [d for d in window if d in low] + [d for d in window if d not in low]

    def near(one, other):
        a, b = set(re.findall(r"\w+", one)), set(re.findall(r"\w+", other))
        return len(a & b) / min(len(a), len(b)) >= threshold

    chosen, relevant = [], []
    for doc_id in first_window + window + filling:
        others = [gold, *chosen]
        text = retriever.texts_by_id[doc_id]
        if threshold and any(near(text, retriever.texts_by_id[other]) for other in others):
            continue
        if (verdict := verdicts(asked["question_id"], text) if verdicts else False) is not False:
            relevant += [doc_id] if verdict else []
            continue
        chosen.append(doc_id)
        if len(chosen) == options["num_neg"]:
            break
    places = [*first, *rest]
    chosen.sort(key=places.index)
    relevant.sort(key=places.index)
    best = {d: scored[d][0] for d in chosen}
    return {
        "question_id": asked["question_id"],
        "doc_id": gold,
        "query": asked["question"],
        "hard_negatives": [retriever.texts_by_id[d] for d in chosen],
        "hard_negative_titles": [None] * len(chosen),
        "negatives": [
            {"doc_id": d, "score": best[d][2], "rank": best[d][1], "origin": best[d][0]}
            for d in chosen
        ],
        "gold_score": gold_score,
        "gold_rank": gold_rank,
        "judged_relevant": relevant,
        "extra_positives": [retriever.texts_by_id[d] for d in relevant] if verdicts else None,
        "extra_positive_ids": relevant if verdicts else None,
    }


def random_corpus(rng):
    """Many twins, near-duplicates and ties, and rankings longer and shorter than any depth."""
    vocabulary = [f"w{n}" for n in range(12)]
    texts = {
        f"d{n:03}": " ".join(rng.sample(vocabulary, rng.randint(2, 6)))
        for n in range(rng.choice([5, 60, 200]))
    }
    for doc_id in rng.sample(sorted(texts), len(texts) // 2):
        texts[doc_id] = texts[rng.choice(sorted(texts))] if rng.random() < 0.7 else "same same"
    scores = {}
    for query in ("one", "two", "three", "four"):
        found = rng.sample(sorted(texts), rng.randint(0, len(texts)))
        by_text = {text: float(rng.randint(1, 40)) for text in texts.values()}
        scores[query] = {doc_id: by_text[texts[doc_id]] for doc_id in found}
    for text in sorted(set(texts.values())):
        found = rng.sample(sorted(texts), rng.choice([0, 3, len(texts)]))
        # A document is what its own best terms find first.
        found += [d for d in sorted(texts) if found and texts[d] == text]
        by_text = {text: float(rng.randint(1, 40)) for text in sorted(texts.values())} | {
            text: 41.0
        }
        scores[f"like {text}"] = {doc_id: by_text[texts[doc_id]] for doc_id in found}
    return texts, scores


class Judge:
    """Says of each pair what `verdict(row)` says, and keeps what it was asked, a list a call."""

    def __init__(self, verdict):
        self.verdict = verdict
        self.asked = []

    def __call__(self, pairs):
        assert pairs.columns == [
            "question_id",
            "query",
            "question",
            "scenario",
            "doc_id",
            "title",
            "text",
        ]
        self.asked.append(pairs.to_dicts())
        return [self.verdict(row) for row in self.asked[-1]]

    @property
    def doc_ids(self):
        return [[row["doc_id"] for row in rows] for rows in self.asked]


def hash_verdict(question_id, text):
    """Some pairs are relevant, some undecided, most neither; always the same ones."""
    return [True, None, *[False] * 5][zlib.crc32(f"{question_id} {text}".encode()) % 7]


def test_what_a_judge_finds_relevant_is_flagged_and_replaced_by_the_next_judged_in_its_turn():
    scored = [("a", 9.0), ("gold", 8.0), *((d, 7.0 - n) for n, d in enumerate("bcdefg"))]
    judge = Judge(lambda row: {"a": True, "c": None, "d": True}.get(row["doc_id"], False))
    mined = mine(ranking(*scored), is_relevant=judge, **PLAIN)
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["b", "e", "f"]
    assert row["hard_negatives"] == ["onlyb", "onlye", "onlyf"]
    assert row["judged_relevant"] == ["a", "d"]
    assert judge.doc_ids == [["a", "b", "c"], ["d", "e"], ["f"]]
    assert mined.stats.dropped == {"judged_relevant": 2, "judge_undecided": 1}
    assert mined.stats.found == {3: 1}


def test_a_judge_sees_question_query_and_text():
    retriever = ranking(("a", 9.0), ("gold", 8.0), query="A driver wonders. why")
    judge = Judge(lambda row: False)
    asked = question(scenario="A driver wonders.")
    mine(retriever, asked, query="scenario_question", is_relevant=judge, **PLAIN)
    assert judge.asked == [
        [
            {
                "question_id": "q",
                "query": "A driver wonders. why",
                "question": "why",
                "scenario": "A driver wonders.",
                "doc_id": "a",
                "title": None,
                "text": "onlya",
            }
        ]
    ]


def test_all_pairs_that_a_batch_needs_at_once_are_judged_in_one_call():
    documents = {f"d{n:02}": float(90 - n) for n in range(80)}
    retriever = GivenRanking(
        {doc_id: f"only{doc_id}" for doc_id in documents}, {"one": documents, "two": documents}
    )
    asked = [
        question("d79", "q1", "one"),
        question("d01", "q2", "two"),
        question("d00", "q3", "one"),
    ]
    judge = Judge(lambda row: row["doc_id"] in ("d00", "d21"))
    options = {"near_duplicate_threshold": 0.9, "fallback_range_min": 20, "relative_margin": 0.2}
    rows = mine(retriever, *asked, is_relevant=judge, **options).produced.rows
    # q1's gold scores too little for any to score less; the others take what scores 20 % less.
    assert [[n["doc_id"] for n in negatives] for negatives in rows["negatives"]] == [
        ["d20", "d22", "d23"],
        ["d19", "d20", "d22"],
        ["d18", "d19", "d20"],
    ]
    assert rows["judged_relevant"].to_list() == [["d21"], ["d21"], []]
    calls = [[(row["question_id"], row["doc_id"]) for row in rows] for rows in judge.asked]
    assert calls == [
        [
            *(("q1", "d20"), ("q1", "d21"), ("q1", "d22")),
            *(("q2", "d19"), ("q2", "d20"), ("q2", "d21")),
            *(("q3", "d18"), ("q3", "d19"), ("q3", "d20")),
        ],
        [("q1", "d23"), ("q2", "d22")],
    ]


def test_a_judge_that_leaves_too_few_makes_the_search_deeper_and_then_leaves_slots_empty():
    documents = {f"d{n:02}": float(90 - n) for n in range(30)}
    retriever = ranking(("gold", 99.0), *documents.items())
    judge = Judge(lambda row: row["doc_id"] < "d28")
    mined = mine(retriever, is_relevant=judge, **PLAIN)
    [row] = mined.produced.rows.to_dicts()
    assert [n["doc_id"] for n in row["negatives"]] == ["d28", "d29"]
    assert row["judged_relevant"] == sorted(documents)[:28]
    assert retriever.depths == [(16, 1), (110, 1)]
    assert sorted(doc_id for asked in judge.doc_ids for doc_id in asked) == sorted(documents)
    assert mined.stats.slots_unfilled == 1


def test_a_judge_is_not_asked_about_what_another_rule_leaves_out():
    judge = Judge(lambda row: False)
    mine(ranking(*FOUR), is_relevant=judge, **PLAIN | {"max_score": 6.0})
    assert judge.doc_ids == [["c", "d"]]
    mine(ranking(("gold", 1.0)), is_relevant=judge, **PLAIN)
    assert len(judge.asked) == 1


def test_a_judge_that_gives_too_few_verdicts_is_an_error():
    with pytest.raises(ValueError, match="is_relevant judged 1 of 3 pairs"):
        mine(ranking(*FOUR), is_relevant=lambda pairs: [False], **PLAIN)


def test_kept_rows_keep_what_was_judged_relevant_and_are_not_judged_again():
    judge = Judge(lambda row: row["doc_id"] == "a")
    before = mine(ranking(*FOUR), is_relevant=judge, **PLAIN).produced.rows
    mined = mine(ranking(("new", 9.5), *FOUR), earlier=before, is_relevant=judge, **PLAIN)
    assert mined.produced.rows.to_dicts() == before.to_dicts()
    assert before["judged_relevant"].to_list() == [["a"]]
    assert judge.doc_ids == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize("seed", range(150))
def test_the_depth_of_the_search_never_shows_in_the_result(seed):
    rng = random.Random(seed)
    texts, scores = random_corpus(rng)
    retriever = GivenRanking(texts, scores)
    range_min = rng.choice([0, 0, 2, 10])
    num_neg = rng.choice([1, 3, 5])
    options = {
        "num_neg": num_neg,
        "range_min": range_min,
        "range_max": range_min + num_neg + rng.choice([0, 3, 30, 120]),
        "max_score": rng.choice([None, None, 30.0]),
        "min_score": rng.choice([None, None, 5.0]),
        "absolute_margin": rng.choice([None, None, 0, 2.0]),
        "relative_margin": rng.choice([None, 0, 0.05, 0.5]),
        "sampling_strategy": rng.choice(["top", "top", "random"]),
        "seed": rng.randint(0, 3),
        "near_duplicate_threshold": rng.choice([None, 0, 0.5, 1.0]),
        "fallback_range_min": rng.choice([None, 0, 4, 20, 60]),
        "query": rng.choice(["question", "question", "gold", "fused"]),
    }
    asked = [
        question(doc_id, f"q{n}", rng.choice(["one", "two", "three", "four"]), texts[doc_id])
        for n, doc_id in enumerate(rng.choices(sorted(texts), k=8))
    ]
    judge = Judge(lambda row: hash_verdict(row["question_id"], row["text"]))
    for is_relevant, verdicts in ((None, None), (judge, hash_verdict)):
        relabel = is_relevant is not None
        mined = mine(retriever, *asked, **options, is_relevant=is_relevant, relabel=relabel)
        rows = mined.produced.rows
        expected = [expected_row(retriever, one, options, verdicts) for one in asked]
        assert rows.to_dicts() == pl.DataFrame(expected, schema=rows.schema).to_dicts()
        assert set(mined.stats.dropped) <= set(RULES)
    pairs = [(row["question_id"], row["doc_id"]) for frame in judge.asked for row in frame]
    assert len(pairs) == len(set(pairs))


def test_negatives_that_still_hold_are_kept_though_the_corpus_ranks_anew():
    before = mine(ranking(*FOUR), **PLAIN).produced.rows
    grown = ranking(("new", 9.5), *FOUR)
    mined = mine(grown, earlier=before, **PLAIN)
    assert mined.produced.rows.to_dicts() == before.to_dicts()
    assert (mined.stats.kept, grown.depths) == (1, [])


@pytest.mark.parametrize(
    "change",
    ["a negative left the corpus", "a negative has another text", "another question", "too few"],
)
def test_negatives_that_no_longer_hold_are_mined_anew(change):
    before = mine(ranking(*FOUR), **PLAIN).produced.rows
    asked, options, now = question(), PLAIN, ranking(("new", 9.5), *FOUR)
    if change == "a negative left the corpus":
        now = ranking(("new", 9.5), *[pair for pair in FOUR if pair[0] != "b"])
        now.forgotten = frozenset("b")
        now.texts_by_id["b"] = ""
    elif change == "a negative has another text":
        now.texts_by_id["b"] = "rewritten"
    elif change == "another question":
        asked = question(query="how")
        now.scores["how"] = now.scores["why"]
    else:
        options = PLAIN | {"num_neg": 4}
    mined = mine(now, asked, earlier=before, **options)
    assert mined.stats.kept == 0
    assert mined.produced.rows["negatives"][0][0]["doc_id"] == "new"


def test_kept_and_mined_rows_stand_in_the_order_of_the_questions():
    retriever = ranking(*FOUR)
    before = mine(retriever, question(question_id="q2"), **PLAIN).produced.rows
    asked = [question(question_id=q) for q in ("q1", "q2", "q3")]
    mined = mine(retriever, *asked, earlier=before, **PLAIN)
    assert mined.produced.rows["question_id"].to_list() == ["q1", "q2", "q3"]
    assert (mined.stats.kept, mined.stats.questions) == (1, 3)
