"""Checks of hard negatives on what the operator really mines, with every kind of option."""

import json

import dagster as dg
import pytest

from rare_assets.checks.gate import why_blocked
from rare_assets.stages.provenance import MINED_FROM
from rare_assets_tests.checks.test_by_table import negatives
from rare_assets_tests.support.graph import Graph, failed_checks
from rare_assets_tests.support.passages import SHARED, passage, write_jsonl
from rare_assets_tests.support.rows import rows

SHARD = "a.jsonl"
NUMBERS = range(40)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """An index over 40 passages, some of them with a twin, and a question on each."""
    graph = Graph(tmp_path_factory.mktemp("graph"))
    write_jsonl(graph.source / SHARD, NUMBERS)
    twins = (f'{{"id": "twin{number}", "text": "{passage(number)}"}}\n' for number in (0, 7, 8))
    (graph.source / "twins.jsonl").write_text("".join(twins))
    graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert graph.make("corpus_index_job").success
    documents = graph.tables.scan("documents", SHARD).collect()
    words = SHARED.split()
    asked = [
        {
            "question_id": f"{doc_id}-q0",
            "doc_id": doc_id,
            "text_hash": text_hash,
            # Some near to their document, some far, some without any word in common with it.
            "question": ("Why?", f"{text[20:60]}?", " ".join(words[place % 9 :: 5]))[place % 3],
        }
        for place, (doc_id, text, text_hash) in enumerate(
            documents.select("doc_id", "text", "text_hash").iter_rows()
        )
    ]
    graph.tables.write("questions", SHARD, rows("questions", *asked), made_from={"options": "{}"})
    return graph


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relative_margin": 0},
        {"relative_margin": 0.5, "fallback_range_min": None},
        {"relative_margin": 0.3, "fallback_range_min": 5, "num_neg": 5},
        {"absolute_margin": 0.5, "range_min": 2},
        {"max_score": 6.0, "min_score": 1.0},
        {"sampling_strategy": "random", "seed": 3, "range_max": 30},
        {"query": "scenario_question"},
    ],
)
def test_what_is_mined_with_any_options_keeps_every_promise(graph, options):
    result = graph.make("rare_job", SHARD, "hard_negatives", hard_negatives=options)
    assert result.success
    assert set(failed_checks(result)) <= {"hard_negatives/negatives_found"}
    found = graph.tables.scan("hard_negatives", SHARD).collect()["negatives"].list.len()
    assert found.sum() > 20


# option -> value, and two negatives (score, rank) of a gold that scores 3: one within, one beyond.
BOUNDS = [
    ({"relative_margin": 0.5}, (1.5, 4), (1.6, 4)),
    ({"relative_margin": 0.5, "fallback_range_min": 9}, (2.9, 10), (2.9, 9)),
    ({"relative_margin": 0.5, "fallback_range_min": None}, (1.5, 99), (1.6, 99)),
    ({"relative_margin": 0, "absolute_margin": 1.0}, (2.0, 4), (2.1, 4)),
    ({"relative_margin": 0, "max_score": 2.5}, (2.5, 4), (2.6, 4)),
    ({"relative_margin": 0, "min_score": 2.5}, (2.5, 4), (2.4, 4)),
    ({"relative_margin": 0, "range_min": 3}, (2.5, 4), (2.5, 3)),
]


@pytest.mark.parametrize(("options", "within", "beyond"), BOUNDS)
def test_the_bounds_are_those_of_the_run_s_options(stored, options, within, beyond):
    stored.write("hard_negatives", negatives(within), **options)
    assert stored.judge("hard_negatives", "negatives_within_options").passed
    stored.write("hard_negatives", negatives(beyond), **options)
    judgement = stored.judge("hard_negatives", "negatives_within_options")
    assert not judgement.passed
    assert sum(judgement.metadata["negatives_beyond"].values()) == 1


def test_no_margin_bounds_the_negatives_of_a_gold_that_scores_nothing(stored):
    stored.write("hard_negatives", negatives((2.0, 1), gold_score=0.0, gold_rank=None))
    assert stored.judge("hard_negatives", "negatives_within_options").passed
    assert stored.judge("hard_negatives", "gold_rank_fits_score").passed


def test_scores_that_are_equal_to_five_digits_may_stand_in_either_order(stored):
    row = negatives((2.00001, 2), (2.00002, 3), gold_score=2.00000, gold_rank=1)
    stored.write("hard_negatives", row, relative_margin=0)
    for name in ("negatives_best_first", "gold_rank_fits_score", "negatives_within_options"):
        assert stored.judge("hard_negatives", name).passed


def test_a_file_that_tells_no_options_is_judged_by_the_defaults(stored):
    stored.tables.write("hard_negatives", "a", rows("hard_negatives", negatives((2.9, 4))))
    assert not stored.judge("hard_negatives", "negatives_within_options").passed
    assert stored.judge("hard_negatives", "num_negatives_found").metadata["num_neg"] == 3


def test_the_query_is_compared_as_the_options_say(stored):
    question = "Why does a cell lose charge over time?"
    scenario = "An engineer sees a stored battery go flat."
    stored.write("hard_negatives", {"query": f"{scenario} {question}"}, query="scenario_question")
    assert stored.judge("hard_negatives", "questions_as_stored").passed
    stored.write("hard_negatives", {}, query="scenario_question")
    assert not stored.judge("hard_negatives", "questions_as_stored").passed


@pytest.mark.parametrize(
    ("without", "documents", "options", "error"),
    [
        (3, 100, {}, True),  # an index that finds nothing
        (2, 100, {}, True),
        (1, 100, {}, False),
        (3, 2, {}, False),  # a corpus of two documents has none to offer
        (3, 20, {}, False),
        (3, 21, {}, True),
        (2, 50, {}, False),  # questions in other words skip the nearest ranks, too
        (2, 51, {}, True),
        (3, 100, {"range_min": 99}, False),
    ],
)
def test_most_questions_without_any_negative_are_an_error_in_a_corpus_of_many_documents(
    stored, without, documents, options, error
):
    made_from = {"options": json.dumps(options), MINED_FROM: str(documents)}
    none = {"hard_negatives": [], "negatives": []}
    each = [{"question_id": f"q{i}", **(none if i < without else {})} for i in range(3)]
    stored.tables.write("hard_negatives", "a", rows("hard_negatives", *each), made_from=made_from)
    judgement = stored.judge("hard_negatives", "num_negatives_found")
    assert not judgement.passed  # fewer than num_neg is at least a warning
    assert (judgement.severity is dg.AssetCheckSeverity.ERROR) == error
    assert judgement.metadata["questions_without_negatives"] == without
    assert judgement.metadata["documents_in_index"] == documents
    why = why_blocked(stored.shard("hard_negatives"), "negatives_found")
    assert (why is not None) == error
    if error:
        assert f"{without} of 3 questions have no negative at all" in why


@pytest.mark.parametrize(
    ("n_questions", "documents", "error"),
    [(1, 30, False), (2, 30, False), (3, 30, True), (1, 51, True)],
)
def test_one_or_two_questions_without_negatives_say_nothing_of_a_small_index(
    stored, n_questions, documents, error
):
    none = [
        {"question_id": f"q{i}", "hard_negatives": [], "negatives": []} for i in range(n_questions)
    ]
    made_from = {MINED_FROM: str(documents)}
    stored.tables.write("hard_negatives", "a", rows("hard_negatives", *none), made_from=made_from)
    assert (why_blocked(stored.shard("hard_negatives"), "negatives_found") is not None) == error
