from collections import Counter

import polars as pl
import pytest

from rare_assets.catalog.corpus_report.figures import EXAMPLES, MEASURES, gather
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.rows import rejects, rows

# Shard -> gold rank and words of the document, a row each.
RANKS = {"a": [1, 1, 3], "b": [None, 12], "c": [101]}


@pytest.fixture
def tables(tmp_path):
    tables = ParquetTables(str(tmp_path))
    for shard, ranks in RANKS.items():
        numbers = [
            {"doc_id": f"{shard}{n}", "question_id": f"{shard}{n}-q0"} for n in range(len(ranks))
        ]
        words = [{**number, "n_words": 60} for number in numbers]
        del_id = [{k: v for k, v in each.items() if k != "question_id"} for each in words]
        tables.write("documents", shard, rows("documents", *del_id))
        tables.write(
            "questions",
            shard,
            rows("questions", *numbers),
            rejects("questions", {"reason": "cut"}, {"reason": "cut"}, {"reason": "refused"})
            if shard == "b"
            else None,
        )
        ranked = [
            {**number, "gold_rank": rank, "gold_score": None if rank is None else 4.0}
            for number, rank in zip(numbers, ranks, strict=True)
        ]
        tables.write("hard_negatives", shard, rows("hard_negatives", *ranked))
        tables.write("reasoning", shard, rows("reasoning", *numbers))
    return tables


def distribution(figures, title):
    (found,) = [each.counts for each in figures.distributions if each.title == title]
    return {part: count for part, count in found.items() if count}


def test_rows_and_rejects_are_summed_over_all_shards(tables):
    figures = gather(tables, list(RANKS))
    assert [(stage.table, stage.shards, stage.rows) for stage in figures.stages] == [
        (table, 3, 6) for table in TABLES
    ]
    assert figures.stages[1].rejects == {"cut": 2, "refused": 1}
    assert figures.unreadable == []


def test_every_row_is_counted_in_the_part_it_falls_into(tables):
    figures = gather(tables, list(RANKS))
    ranks = distribution(figures, "BM25 rank of the gold document")
    assert ranks == {"1": 2, "3": 1, "11 to 20": 1, "101 or more": 1, "none": 1}
    # 4.0 of the gold, 2.0 of the best negative.
    gaps = distribution(figures, "Best negative's score below the gold's, in percent")
    assert gaps == {"50 to 59": 5, "none": 1}
    assert distribution(figures, "Words in a document") == {"50 to 99": 6}
    assert distribution(figures, "Hard negatives of a question") == {"2": 6}


def test_parts_stand_in_order_and_leave_no_gap():
    for measure in MEASURES:
        assert list(measure.edges) == sorted(set(measure.edges))
        assert measure.lowest is None or measure.lowest < measure.edges[0]


def test_the_shards_with_the_largest_shares_of_rejects_come_first(tables):
    tables.write("reasoning", "c", rows("reasoning"), rejects("reasoning", {"reason": "cut"}))
    worst = gather(tables, list(RANKS)).worst
    assert [(each.shard, each.rows, each.rejects) for each in worst] == [("c", 1, 1), ("b", 4, 3)]
    assert worst[1].reasons == "2 cut, 1 refused"


def test_a_damaged_table_is_named_and_counts_nowhere(tables):
    path = tables.path("questions", "b")
    path.write_bytes(path.read_bytes()[:-40])
    figures = gather(tables, list(RANKS))
    assert figures.unreadable == ["questions, shard b"]
    assert [stage.rows for stage in figures.stages] == [6, 4, 6, 6]


def test_examples_are_the_same_however_the_rows_are_cut_into_shards(tmp_path):
    ids = [f"d{n}-q0" for n in range(4 * EXAMPLES)]
    chosen = []
    for cut in (1, 7):
        tables = ParquetTables(str(tmp_path / str(cut)))
        for shard in range(cut):
            made = rows("reasoning", *({"question_id": each} for each in ids[shard::cut]))
            tables.write("reasoning", str(shard), made)
        figures = gather(tables, [str(shard) for shard in range(cut)])
        chosen.append([row["question_id"] for row in figures.examples])
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == EXAMPLES
    assert set(chosen[0]) != set(ids[:EXAMPLES])


def test_several_samples_of_a_question_are_one_example(tmp_path):
    tables = ParquetTables(str(tmp_path))
    made = rows("reasoning", {"sample_index": 0}, {"sample_index": 1})
    tables.write("reasoning", "a", made)
    assert len(gather(tables, ["a"]).examples) == 1


def test_languages_are_told_of_a_sample(tmp_path):
    tables = ParquetTables(str(tmp_path))
    german = (
        "Warum verliert eine Zelle im Lager über die Zeit ihre Ladung, obwohl sie niemand nutzt?"
    )
    texts = ["Why does a stored cell lose its charge over time, though nobody uses it?", german]
    made = rows("questions", *({"question_id": t[:5], "question": t} for t in texts))
    tables.write("questions", "a", made)
    assert Counter(gather(tables, ["a"]).languages) == Counter({"en": 1, "de": 1})


def test_languages_are_told_of_every_shard(tmp_path):
    tables = ParquetTables(str(tmp_path))
    english = "Why does a stored cell lose its charge over time, though nobody uses it?"
    german = (
        "Warum verliert eine Zelle im Lager über die Zeit ihre Ladung, obwohl sie keiner nutzt?"
    )
    shards = [f"s{number}" for number in range(3)]
    for shard in shards:
        text = german if shard == "s2" else english
        made = ({"question_id": f"{shard}-{n}", "question": text} for n in range(900))
        tables.write("questions", shard, rows("questions", *made))
    # 2,000 in three shards are 666 each.
    assert gather(tables, shards).languages == {"en": 2 * 666, "de": 666}


def test_of_many_free_words_the_most_common_stand_by_themselves(tmp_path):
    tables = ParquetTables(str(tmp_path))
    made = ({"question_id": f"q{n}", "question_type": f"type {n % 30}"} for n in range(300))
    tables.write("questions", "a", rows("questions", *made))
    (types,) = [d for d in gather(tables, ["a"]).distributions if d.title == "Type of question"]
    assert len(types.counts) == 21
    assert types.counts["others"] == 100


def test_tables_of_before_a_column_are_counted_for_what_they_have(tables):
    figures = gather(tables, list(RANKS))
    there = set(pl.scan_parquet(str(tables.path("questions", "a"))).collect_schema().names())
    shown = {each.title for each in figures.distributions}
    for measure in MEASURES:
        if measure.table == "questions" and not there.issuperset(measure.columns):
            assert measure.title not in shown


def test_nothing_stored_is_nothing_counted(tmp_path):
    figures = gather(ParquetTables(str(tmp_path)), ["a"])
    assert [stage.rows for stage in figures.stages] == [0, 0, 0, 0]
    assert (figures.distributions, figures.examples, figures.worst) == ([], [], [])
