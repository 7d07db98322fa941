"""Every rule passes on a good shard and fails, with the measured value, where its property does not hold."""

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

import rare_assets_tests
from rare_assets.checks.by_table import CHECKS, RULES
from rare_assets.checks.judgement import StoredShard
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.rows import rejects, rows

ALL_RULES = [(table, rule.name) for table, rules in RULES.items() for rule in rules]


@pytest.mark.parametrize(("table", "name"), ALL_RULES)
def test_a_good_shard_passes(stored, table, name):
    judgement = stored.judge(table, name)
    assert judgement.passed, judgement.metadata


@pytest.mark.parametrize(("table", "name"), ALL_RULES)
def test_an_empty_shard_passes(stored, table, name):
    for each in CHECKS:
        stored.write(each)
    assert stored.judge(table, name).passed


def negatives(*scored, **more):
    """A row of hard_negatives with negatives of these scores and ranks."""
    return {
        "hard_negatives": [f"Text {rank}." for _, rank in scored],
        "negatives": [
            {"doc_id": f"d{rank}", "score": score, "rank": rank, "origin": "question"}
            for score, rank in scored
        ],
        **more,
    }


PASSAGE = (
    "Peukert found that a lead battery gives back less charge when it is drawn faster. Sulfuric acid "
    "is used up inside the pores of the plates, and diffusion can't replace it in time."
)
SHARED_NEGATIVE = "Copper plates and sulfuric acid make another battery, which gives less charge."

# table, check, table -> what is stored instead of its good row, a part of the metadata to expect
BROKEN = [
    ("documents", "schema_holds", {"documents": [{"n_words": 0}]}, {"failed_rows": 1}),
    (
        "questions",
        "schema_holds",
        {"questions": [{"attempts": -1}]},
        {"failures_by_rule": {"attempts|min": 1}},
    ),
    ("hard_negatives", "schema_holds", {"hard_negatives": [{"gold_rank": 0}]}, {"failed_rows": 1}),
    ("reasoning", "schema_holds", {"reasoning": [{"gold_position": -1}]}, {"failed_rows": 1}),
    (
        "documents",
        "doc_ids_unique",
        {"documents": [{}, {"text_hash": "h2"}]},
        {"repeated": 1, "threshold": 0, "examples": ["d1"]},
    ),
    (
        "documents",
        "text_not_empty",
        {"documents": [{"text": " \n"}]},
        {"blank": {"text": 1}, "threshold": 0},
    ),
    (
        "documents",
        "few_repeated_lines",
        {
            "documents": [
                {
                    "doc_id": f"d{n}",
                    "parent_id": f"{n}.md",
                    "text": f"Page {n}.\n\nAll rights reserved",
                }
                for n in range(10)
            ]
        },
        {"repeated_lines": 1, "examples": ["All rights reserved (10 of 10 files)"]},
    ),
    ("questions", "question_ids_unique", {"questions": [{}, {}]}, {"repeated": 1}),
    (
        "questions",
        "question_and_scenario_present",
        {"questions": [{"scenario": " "}]},
        {"blank": {"question": 0, "scenario": 1}},
    ),
    (
        "questions",
        "every_document_accounted_for",
        {"questions": []},
        {"lost": 1, "threshold": 0, "examples": ["d1"]},
    ),
    (
        "questions",
        "documents_as_stored",
        {"documents": [{"text": "Cells store energy.", "text_hash": "h2"}]},
        {"differing": 1, "by_column": {"text_hash": 1}, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "questions",
        "documents_as_stored",
        {"questions": [{}, {"question_id": "d7-q0", "doc_id": "d7"}]},
        {"differing": 1, "examples": ["d7-q0"]},
    ),
    (
        "questions",
        "questions_distinct",
        {
            "questions": [
                {},
                {"question_id": "d1-q1", "question": "Why does a cell lose charge over the time?"},
                {"question_id": "d1-q2", "question": "What happens to a charge in a cell?"},
            ]
        },
        {
            "near_duplicates_rate": 1 / 3,
            "near_duplicates": 1,
            "judged": 3,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q1",
                    "question": "Why does a cell lose charge over the time?",
                    "repeats_id": "d1-q0",
                    "repeated": "Why does a cell lose charge over time?",
                }
            ],
        },
    ),
    (
        "questions",
        "questions_not_quoted",
        {
            "documents": [{"text": PASSAGE}],
            "questions": [
                {"question": "If acid is used up inside the pores of the plates, who cares?"}
            ],
        },
        {
            "quoting_rate": 1.0,
            "quoting": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {"question_id": "d1-q0", "quotation": "acid is used up inside the pores of"}
            ],
        },
    ),
    (
        "questions",
        "questions_stand_alone",
        {"questions": [{"scenario": "A student reads that, according to the text, cells age."}]},
        {
            "referring_rate": 1.0,
            "referring": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q0",
                    "question": "Why does a cell lose charge over time?",
                    "scenario": "A student reads that, according to the text, cells age.",
                }
            ],
        },
    ),
    (
        "questions",
        "questions_need_more_than_lookup",
        {
            "documents": [{"text": PASSAGE}],
            "questions": [{"question": "What did Peukert find about the charge of a battery?"}],
        },
        {
            # Content words: Peukert, about, charge, battery. The first sentence has all but "about".
            "lookup_rate": 1.0,
            "lookup": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q0",
                    "question": "What did Peukert find about the charge of a battery?",
                    "sentence": "Peukert found that a lead battery gives back less charge when it is "
                    "drawn faster.",
                    "overlap": 0.75,
                }
            ],
        },
    ),
    (
        "questions",
        "questions_ask_one_thing",
        {
            "questions": [
                {"question": "Why does a cell lose charge, and how long does that take?"},
                {"question_id": "d1-q1", "question": "Why? Does it leak?"},
                {"question_id": "d1-q2", "question": "Why do salt and what it melts both cool?"},
                {"question_id": "d1-q3", "question": "Why does it lose charge?"},
            ]
        },
        {"compound_rate": 0.5, "compound": 2, "judged": 4, "threshold": 0.1},
    ),
    (
        "questions",
        "answers_not_given_away",
        {
            "questions": [
                {
                    "question": "Why does sulfuric acid inside the pores limit the charge?",
                    "reference_answer": "Acid inside the pores: sulfuric, limiting.",
                },
                {
                    "question_id": "d1-q1",
                    "scenario": "Diffusion can't replace the acid in the pores of the plates in time.",
                    "reference_answer": "Diffusion can't replace acid in the pores of plates.",
                },
                {"question_id": "d1-q2", "reference_answer": "Yes."},
                {
                    "question_id": "d1-q3",
                    "reference_answer": "Because diffusion brings fresh electrolyte too slowly.",
                },
            ]
        },
        {"giveaway": 2, "judged": 3, "threshold": 0.1},
    ),
    (
        "questions",
        "questions_as_long_as_asked",
        {
            "questions": [
                {"question": "Why is that so? " * 10},
                {"question_id": "d1-q1", "length": "long"},
                {"question_id": "d1-q2"},
                {"question_id": "d1-q3", "length": None, "origin": "given"},
            ]
        },
        {"off_length_rate": 2 / 3, "off_length": 2, "judged": 3, "threshold": 0.5},
    ),
    (
        "questions",
        "questions_begin_differently",
        {
            "questions": [
                {
                    "question_id": f"d1-q{n}",
                    "question": f"What is number {n}?" if n % 4 else f"Why does {n} fall?",
                }
                for n in range(20)
            ]
        },
        {"same_opening_rate": 0.75, "same_opening": 15, "judged": 20, "threshold": 0.5},
    ),
    (
        "questions",
        "questions_in_language_of_document",
        {
            "documents": [{"text": PASSAGE}],
            "questions": [
                {"question": "Warum gibt der Akku bei hohem Strom weniger Ladung wieder her?"}
            ],
        },
        {
            # The scenario is too short to be sure of.
            "other_language_rate": 1.0,
            "other_language": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q0",
                    "text": "Warum gibt der Akku bei hohem Strom weniger Ladung wieder her?",
                    "language": "de",
                    "document_language": "en",
                }
            ],
        },
    ),
    (
        "hard_negatives",
        "gold_not_in_negatives",
        {
            "hard_negatives": [
                {"negatives": [{"doc_id": "d1", "score": 1.0, "rank": 1}], "hard_negatives": ["x"]}
            ]
        },
        {"leaks": 1, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "gold_not_in_negatives",
        {"hard_negatives": [{"hard_negatives": ["Cells divide.", "Cells store charge."]}]},
        {"leaks": 1},
    ),
    (
        "hard_negatives",
        "negatives_distinct",
        {"hard_negatives": [{"hard_negatives": ["x", "x"]}]},
        {"repeated": 1, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "negatives_exist_in_corpus",
        {
            "hard_negatives": [
                {
                    "hard_negatives": ["Cells divide.", "Nobody wrote this."],
                    "negatives": [
                        {"doc_id": "d2", "score": 2.0, "rank": 2},
                        {"doc_id": "d9", "score": 1.0, "rank": 3},
                    ],
                }
            ]
        },
        {"negatives": 2, "unknown": 1, "examples": ["d9"]},
    ),
    (
        "hard_negatives",
        "negatives_exist_in_corpus",
        {"hard_negatives": [{"hard_negatives": ["Changed since.", "Charge is conserved."]}]},
        {"unknown": 1, "examples": ["d2"]},
    ),
    (
        "hard_negatives",
        "negatives_best_first",
        {"hard_negatives": [negatives((2.0, 2), (1.0, 3)) | {"hard_negatives": ["Text 2."]}]},
        {"misordered": 1, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "negatives_best_first",
        {"hard_negatives": [negatives((1.0, 2), (2.0, 3))]},
        {"misordered": 1},
    ),
    (
        "hard_negatives",
        "negatives_best_first",
        {"hard_negatives": [negatives((2.0, 3), (2.0, 3))]},
        {"misordered": 1},
    ),
    (
        "hard_negatives",
        "gold_rank_fits_score",
        {"hard_negatives": [negatives((3.5, 2), gold_score=3.0, gold_rank=1)]},
        {"contradictory": 1, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "gold_rank_fits_score",
        {"hard_negatives": [negatives((2.5, 1), gold_score=3.0, gold_rank=2)]},
        {"contradictory": 1},
    ),
    (
        "hard_negatives",
        "gold_rank_fits_score",
        {"hard_negatives": [negatives((3.0, 2), gold_score=3.0, gold_rank=2)]},
        {"contradictory": 1},
    ),
    (
        "hard_negatives",
        "negatives_within_options",
        # By default a negative scores at most 0.8 of the gold, unless it ranks beyond 20.
        {
            "hard_negatives": [
                negatives((2.5, 2), (2.4, 3)),
                negatives((2.5, 20), (2.5, 21), question_id="d2-q0"),
            ]
        },
        {
            "questions_beyond": 2,
            "negatives_beyond": {"range_min": 0, "relative_margin": 2},
            "threshold": 0,
            "examples": ["d1-q0", "d2-q0"],
        },
    ),
    (
        "hard_negatives",
        "every_question_accounted_for",
        {"hard_negatives": []},
        {"lost": 1, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "questions_as_stored",
        {"questions": [{"question": "Why does a cell age?"}]},
        {"differing": 1, "by_column": {"doc_id": 0, "query": 1}, "examples": ["d1-q0"]},
    ),
    (
        "hard_negatives",
        "num_negatives_found",
        {"hard_negatives": [{}, negatives((1.0, 2), question_id="d2-q0")]},
        {
            "num_neg": 2,
            "questions_with_fewer": 1,
            "share_with_fewer": 0.5,
            "threshold": 0.1,
            "questions_by_number_found": {"1": 1, "2": 1},
            "examples": ["d2-q0"],
        },
    ),
    (
        "hard_negatives",
        "gold_not_always_first",
        {
            "hard_negatives": [
                negatives((2.0, 2), question_id=f"d{n}-q0", gold_rank=1 if n else 3)
                for n in range(20)
            ]
        },
        {"gold_first_rate": 0.95, "gold_first": 19, "judged": 20, "threshold": 0.9},
    ),
    (
        "hard_negatives",
        "questions_in_words_of_their_own",
        {
            "documents": [{"text": PASSAGE, "title": "Capacity"}],
            "hard_negatives": [
                negatives(
                    (2.0, 2),
                    question_id=f"d{n}-q0",
                    query="Less charge if a lead battery with plates is drawn faster?"
                    if n
                    else "Why does my golf buggy crawl uphill on cold mornings?",
                )
                for n in range(20)
            ],
        },
        {"shared_words_rate": 0.95, "shared_words": 19, "judged": 20, "threshold": 0.5},
    ),
    (
        "reasoning",
        "reasoning_present",
        {"reasoning": [{"reasoning": ""}]},
        {"blank": {"reasoning": 1}},
    ),
    (
        "reasoning",
        "inputs_as_stored",
        {"questions": [{"scenario": "A student writes an essay."}]},
        {
            "differing": 1,
            "by_column": {
                **{"text": 0, "question": 0, "scenario": 1, "reference_answer": 0},
                "hard_negatives": 0,
            },
            "threshold": 0,
            "examples": ["d1-q0"],
        },
    ),
    (
        "reasoning",
        "inputs_as_stored",
        {"documents": [], "hard_negatives": [negatives((2.0, 2), (1.0, 3))]},
        {
            "differing": 1,
            "by_column": {
                **{"text": 1, "question": 0, "scenario": 0, "reference_answer": 0},
                "hard_negatives": 1,
            },
        },
    ),
    (
        "reasoning",
        "gold_position_points_at_gold",
        {"reasoning": [{"gold_position": 0}]},
        {"wrong": 1, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "reasoning",
        "gold_position_points_at_gold",
        {"reasoning": [{"gold_position": 7}]},
        {"wrong": 1},
    ),
    (
        "reasoning",
        "context_is_gold_and_negatives",
        {"reasoning": [{"context_doc_ids": ["d2", "d1"]}]},
        {"differing": 1, "threshold": 0, "examples": ["d1-q0"]},
    ),
    (
        "reasoning",
        "context_is_gold_and_negatives",
        {"reasoning": [{"context_doc_ids": ["d2", "d1", "d3", "d3"]}]},
        {"differing": 1},
    ),
    (
        "reasoning",
        "answers_finished",
        {
            "reasoning": [
                {"finish_reason": "END_TURN"},
                {"question_id": "d2-q0", "finish_reason": "abort"},
            ]
        },
        {
            "unfinished": 1,
            "reasons": {"END_TURN": 1, "abort": 1},
            "threshold": 0,
            "examples": ["d2-q0"],
        },
    ),
    (
        "reasoning",
        "judged_by_reference_alone",
        {
            "reasoning": [
                {"reference_answer": None, "answer_correct": False},
                {"question_id": "d2-q0", "doc_id": "d2", "answer_correct": True},
            ],
        },
        {
            "judged_without_reference": 1,
            "answers_with_reference": 1,
            "answers_correct": 1,
        },
    ),
    ("reasoning", "every_question_accounted_for", {"reasoning": []}, {"lost": 1}),
    (
        "reasoning",
        "prompts_read_whole",
        {"reasoning": [{"text": "Brine freezes lower than water. " * 200, "prompt_tokens": 700}]},
        {"cut_prompts_rate": 1.0, "cut_prompts": 1, "judged": 1, "threshold": 0.0},
    ),
    (
        "reasoning",
        "reasoning_uses_gold",
        {
            "reasoning": [
                {
                    "text": PASSAGE,
                    "hard_negatives": [SHARED_NEGATIVE],
                    "reasoning": "Copper plates and sulfuric acid give less charge to a battery.",
                    "gold_used": None,
                }
            ]
        },
        {
            # Peukert, found, drawn, faster, inside, pores, diffusion, replace; the other words of five
            # letters stand in the negative, the question or the scenario.
            "gold_unused_rate": 1.0,
            "gold_unused": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q0",
                    "sample_index": 0,
                    "reasoning": "Copper plates and sulfuric acid give less charge to a battery.",
                    "used": 0,
                    "distinctive": 8,
                }
            ],
        },
    ),
    (
        "reasoning",
        "reasoning_in_language_of_document",
        {
            "reasoning": [
                {
                    "text": PASSAGE,
                    "reasoning": "Bei hohem Strom kommt die Säure nicht schnell genug in die Poren.",
                }
            ]
        },
        {
            "other_language_rate": 1.0,
            "other_language": 1,
            "judged": 1,
            "threshold": 0.1,
            "examples": [
                {
                    "question_id": "d1-q0",
                    "text": "Bei hohem Strom kommt die Säure nicht schnell genug in die Poren.",
                    "language": "de",
                    "document_language": "en",
                }
            ],
        },
    ),
]


@pytest.mark.parametrize(("table", "name", "changes", "measured"), BROKEN)
def test_a_broken_shard_fails(stored, table, name, changes, measured):
    for changed, rows_of in changes.items():
        stored.write(changed, *rows_of)
    judgement = stored.judge(table, name)
    assert not judgement.passed
    assert measured.items() <= judgement.metadata.items(), judgement.metadata


def test_every_rule_has_a_case_in_which_it_fails():
    # The rejects' own test is below: it takes rejects beside the rows; that of files that can't be
    # read is the asset's, which meets them.
    shown = {(table, name) for table, name, *_ in BROKEN} | {("documents", "file_readable")}
    shown |= {(table, "reject_rate_below_threshold") for table in CHECKS}
    assert shown == set(ALL_RULES)


@pytest.mark.parametrize("table", list(CHECKS))
def test_many_rejects_fail_and_most_rejects_block(stored, table):
    several = [{"question_id": f"d{i}-q0"} for i in range(4)]
    if table == "documents":
        several = [{"doc_id": f"d{i}"} for i in range(4)]
    tables = stored.tables
    tables.write(table, "a", rows(table, *several), rejects(table, {}))
    warned = stored.judge(table, "reject_rate_below_threshold")
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert (warned.metadata["reject_rate"], warned.metadata["threshold"]) == (0.2, 0.1)
    tables.write(table, "a", rows(table, {}), rejects(table, *[{}] * 4))
    few = stored.judge(table, "reject_rate_below_threshold")
    assert few.severity is dg.AssetCheckSeverity.WARN
    tables.write(table, "a", rows(table, {}), rejects(table, *[{}] * 5))
    blocked = stored.judge(table, "reject_rate_below_threshold")
    assert not blocked.passed
    assert blocked.severity is dg.AssetCheckSeverity.ERROR


def test_what_is_left_out_on_purpose_is_no_reject(stored):
    left_out = rejects("questions", {"reason": "too_short"}, {"reason": "wrong_answer_retried"})
    stored.tables.write("questions", "a", rows("questions", {}), left_out)
    judgement = stored.judge("questions", "reject_rate_below_threshold")
    assert judgement.passed
    assert judgement.metadata["reject_rate"] == 0
    assert judgement.metadata["reasons"] == {"too_short": 1, "wrong_answer_retried": 1}


def test_a_file_with_other_columns_fails_the_schema_check(stored):
    # As a version whose footers had no checksum yet, and whose table had other columns.
    path = stored.tables.path("documents", "a")
    footer = json.loads(pl.read_parquet_metadata(path)["rare_assets"])
    del footer["checksum"]
    frame = rows("documents", {}).drop("source").with_columns(n_words=pl.lit("three"))
    frame.write_parquet(path, metadata={"rare_assets": json.dumps(footer)})
    judgement = stored.judge("documents", "schema_holds")
    assert not judgement.passed
    assert judgement.metadata == {
        "missing_columns": ["source"],
        "wrong_types": {"n_words": "String"},
    }


def test_a_file_that_is_not_what_was_written_fails_the_contract_in_its_own_words(stored):
    path = stored.tables.path("documents", "a")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    found = check_of("documents", "contract").judge(stored.shard("documents"))
    assert [rule.name for rule, _ in found.judged] == ["schema_holds"]
    assert f"{path} is damaged" in found.sentence
    assert found.is_error


# The setting of each rate, and the check that goes by it; each fails in BROKEN with these rates.
RATES = [
    ("RARE_MAX_NEAR_DUPLICATE_RATE", "questions", "questions_distinct", 1 / 3),
    ("RARE_MAX_QUOTING_RATE", "questions", "questions_not_quoted", 1.0),
    ("RARE_MAX_REFERRING_RATE", "questions", "questions_stand_alone", 1.0),
    ("RARE_MAX_COMPOUND_RATE", "questions", "questions_ask_one_thing", 0.5),
    ("RARE_MAX_GIVEAWAY_RATE", "questions", "answers_not_given_away", 2 / 3),
    ("RARE_MAX_SAME_SHAPE_RATE", "questions", "questions_as_long_as_asked", 2 / 3),
    ("RARE_MAX_SAME_SHAPE_RATE", "questions", "questions_begin_differently", 0.75),
    ("RARE_MAX_GOLD_FIRST_RATE", "hard_negatives", "gold_not_always_first", 0.95),
    ("RARE_MAX_SHARED_WORDS_RATE", "hard_negatives", "questions_in_words_of_their_own", 0.95),
    ("RARE_MAX_LOOKUP_RATE", "questions", "questions_need_more_than_lookup", 1.0),
    ("RARE_MAX_OTHER_LANGUAGE_RATE", "questions", "questions_in_language_of_document", 1.0),
    ("RARE_MAX_OTHER_LANGUAGE_RATE", "reasoning", "reasoning_in_language_of_document", 1.0),
    ("RARE_MAX_GOLD_UNUSED_RATE", "reasoning", "reasoning_uses_gold", 1.0),
    ("RARE_MAX_SHORT_OF_NEGATIVES_RATE", "hard_negatives", "num_negatives_found", 0.5),
]


@pytest.mark.parametrize(("variable", "table", "name", "rate"), RATES)
def test_a_rate_warns_only_above_its_setting(stored, monkeypatch, variable, table, name, rate):
    changes = next(changes for t, n, changes, _ in BROKEN if (t, n) == (table, name))
    for changed, rows_of in changes.items():
        stored.write(changed, *rows_of)
    monkeypatch.setenv(variable, str(rate - 0.01))
    judgement = stored.judge(table, name)
    assert not judgement.passed
    assert judgement.severity is dg.AssetCheckSeverity.WARN
    monkeypatch.setenv(variable, str(rate))
    allowed = stored.judge(table, name)
    assert allowed.passed
    assert allowed.metadata["threshold"] == rate


def test_reject_thresholds_are_settings(stored, monkeypatch):
    stored.tables.write("questions", "a", rows("questions", {}), rejects("questions", {}))
    monkeypatch.setenv("RARE_MAX_REJECT_RATE", "0.5")
    assert stored.judge("questions", "reject_rate_below_threshold").passed
    monkeypatch.setenv("RARE_MAX_REJECT_RATE", "0.4")
    assert not stored.judge("questions", "reject_rate_below_threshold").passed


def test_a_check_names_five_examples_and_shortens_their_texts(stored):
    question = f"According to the text, what follows? {'So it goes. ' * 50}"
    stored.write(
        "questions", *({"question_id": f"d1-q{i}", "question": question} for i in range(7))
    )
    judgement = stored.judge("questions", "questions_stand_alone")
    assert judgement.metadata["referring"] == 7
    examples = judgement.metadata["examples"]
    assert [example["question_id"] for example in examples] == [f"d1-q{i}" for i in range(5)]
    assert examples[0]["question"] == f"{question[:199]}…"


def test_a_table_has_two_to_four_checks_and_no_rule_twice():
    for table, checks in CHECKS.items():
        assert 2 <= len(checks) <= 4
        assert {"contract", "rejects"} <= {check.name for check in checks}
        names = [rule.name for rule in RULES[table]]
        assert len(set(names)) == len(names)


def test_every_rule_says_what_holds_what_to_do_and_which_setting_it_goes_by():
    for rules in RULES.values():
        for rule in rules:
            assert rule.holds.endswith(".")
            assert rule.otherwise.endswith(".")
    for variable, table, name, _ in RATES:
        rule = next(rule for rule in RULES[table] if rule.name == name)
        assert rule.setting == variable
        assert rule.description.endswith(f"Threshold: {variable}.")


def check_of(table, name):
    return next(check for check in CHECKS[table] if check.name == name)


def test_a_check_names_the_rules_that_fail_and_is_as_severe_as_the_worst_of_them(stored):
    stored.write("questions", {}, {"scenario": " "})
    found = check_of("questions", "contract").judge(stored.shard("questions"))
    failing = ["schema_holds", "question_ids_unique", "question_and_scenario_present"]
    assert [rule.name for rule, _ in found.failing] == failing
    assert found.is_error
    first, *_, last = found.sentence.splitlines()
    assert first.startswith("schema_holds does not hold (failed_rows 2, failures_by_rule (")
    assert last == (
        "question_and_scenario_present does not hold (blank (scenario 1)). "
        "Materialize the shard again."
    )


def test_what_a_table_without_a_column_cannot_be_judged_by_is_left_out(stored):
    frame = rows("questions", {}).drop("scenario")
    stored.tables.write_file(frame, stored.tables.path("questions", "a"))
    found = check_of("questions", "contract").judge(stored.shard("questions"))
    assert [rule.name for rule, _ in found.failing] == ["schema_holds"]
    assert "question_and_scenario_present" not in [rule.name for rule, _ in found.judged]


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("documents", {}, "5 of 6 rows of the source could not be used (5 no_text)"),
        ("questions", {}, "5 of 6 documents have no usable question (5 refusal)"),
        ("questions", {"num_questions": 2}, "5 of 6 questions could not be used (5 refusal)"),
        (
            "hard_negatives",
            {},
            "5 of 6 questions could not be given negatives (5 gold_not_in_index)",
        ),
        ("reasoning", {}, "5 of 6 questions have no usable reasoning (5 refusal)"),
        ("reasoning", {"n": 2}, "5 of 6 answers could not be used (5 refusal)"),
    ],
)
def test_rejects_are_told_in_one_sentence_with_limit_and_path(stored, table, options, said):
    made_from = {"options": json.dumps(options)}
    stored.tables.write(table, "a", rows(table, {}), rejects(table, *[{}] * 5), made_from)
    judgement = stored.judge(table, "reject_rate_below_threshold")
    path = stored.tables.rejects_path(table, "a")
    assert judgement.sentence == f"{said}, limit 50 %; see {path}"
    first = judgement.shown["first_rejects"].records[0].data
    assert list(first) == ["place", "reason", "detail"]
    assert first["place"] == ("a.jsonl:2" if table == "documents" else "d9-q0")


def test_a_rule_reads_another_table_with_the_columns_that_came_after_it_was_written():
    """The storage that is checked in was written before documents had a number of their passage."""
    tables = ParquetTables(
        str(Path(rare_assets_tests.__file__).parent / "stored/first_round/storage")
    )
    shard = next(path.stem for path in (Path(tables.root) / "documents").glob("*.parquet"))
    assert "passage" not in tables.scan("documents", shard).collect_schema()
    other = StoredShard("questions", shard, tables).other("documents").collect()
    assert other["passage"].null_count() == other.height > 0
