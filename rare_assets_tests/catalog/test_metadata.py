"""How a table shows in the UI: constraints, preview, figures."""

import dagster as dg
import dataframely as dy
import polars as pl

from rare_assets.catalog.metadata import (
    PREVIEW_CHARS,
    arranged,
    first_rejects,
    preview,
    reasons,
    spread,
    table_schema,
)
from rare_assets_tests.support.rows import rejects, rows


class Things(dy.Schema):
    name = dy.String(
        primary_key=True,
        min_length=2,
        description="Its name.",
        metadata={"from": ["documents.doc_id"]},
    )
    weight = dy.Float64(nullable=True, min=0, description="In kg.")
    tags = dy.List(
        dy.String(nullable=False),
        nullable=False,
        check={"not_all_alike": lambda c: c.list.n_unique() > 1},
        description="Words.",
    )


def test_a_column_shows_its_constraints_with_their_bounds_and_where_it_comes_from():
    name, weight, tags = table_schema(Things).columns
    assert name.description == "Its name. (from `documents.doc_id`)"
    assert name.constraints == dg.TableColumnConstraints(
        nullable=False, unique=True, other=["min length 2"]
    )
    assert weight.constraints == dg.TableColumnConstraints(nullable=True, other=["min 0"])
    assert tags.constraints == dg.TableColumnConstraints(nullable=False, other=["not all alike"])


def test_a_preview_shows_five_rows_shortened_and_how_long_a_list_is():
    frame = rows("hard_negatives", *({"query": "why " * 100} for _ in range(7)))
    records = preview("hard_negatives", frame).records
    assert len(records) == 5
    assert records[0].data["query"] == ("why " * 100)[:PREVIEW_CHARS] + "…"
    assert records[0].data["hard_negatives"] == "2: Cells divide. | Charge is conserved."


def test_reasons_are_counted_most_first_in_one_line():
    several = rejects(
        "questions", *({"reason": reason} for reason in ("cut", "refused", "blank", "refused"))
    )
    assert reasons(several) == "2 refused, 1 blank, 1 cut"
    assert reasons(several.clear()) == "none"


def test_the_first_rejects_are_shown_with_their_place_and_how_the_answer_begins():
    several = rejects("questions", *({"detail": "I can't. " * 100} for _ in range(7)))
    records = [record.data for record in first_rejects("questions", several).records]
    assert len(records) == 5
    assert records[0] == {
        "place": "d9-q0",
        "reason": "refusal",
        "detail": ("I can't. " * 100)[:PREVIEW_CHARS] + "…",
    }
    (read,) = first_rejects("documents", rejects("documents", {})).records
    assert read.data == {"place": "a.jsonl:2", "reason": "no_text", "detail": None}


def test_metadata_begins_with_the_headlines_and_the_rest_is_one_table():
    figures = {"seconds": 1.23456, "odd": 2 / 3, "rows": 3, "cost_usd": 0.00012345}
    made = arranged(("rows", "cost_usd", "rejects"), figures, {"chart": "a picture"})
    assert list(made) == ["rows", "cost_usd", "chart", "details"]
    assert (made["rows"], made["cost_usd"]) == (3, 0.000123)
    assert [record.data for record in made["details"].records] == [
        {"figure": "seconds", "value": 1.2346},
        {"figure": "odd", "value": 0.6667},
    ]


def test_a_spread_is_mean_median_and_95th_percentile_and_null_without_values():
    assert spread("words", pl.Series(range(1, 102))) == {
        "mean_words": 51.0,
        "words_p50": 51.0,
        "words_p95": 96.0,
    }
    assert set(spread("words", pl.Series([], dtype=pl.Int64)).values()) == {None}
