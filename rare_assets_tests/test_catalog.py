"""How a table shows in the UI: constraints, preview, figures."""

import dagster as dg
import dataframely as dy
import polars as pl

from rare_assets.catalog import PREVIEW_CHARS, counted, preview, spread, table_schema
from rare_assets_tests.rows import rows


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


def test_counts_are_a_table_most_first_whatever_was_counted():
    table = counted("reason", [("cut", 1), ("refused", 3), ("blank", 1)])
    assert [tuple(record.data.values()) for record in table.records] == [
        ("refused", 3),
        ("blank", 1),
        ("cut", 1),
    ]
    assert [column.name for column in counted("reason", []).schema.columns] == ["reason", "count"]


def test_a_spread_is_mean_median_and_95th_percentile_and_null_without_values():
    assert spread("words", pl.Series(range(1, 102))) == {
        "mean_words": 51.0,
        "words_p50": 51.0,
        "words_p95": 96.0,
    }
    assert set(spread("words", pl.Series([], dtype=pl.Int64)).values()) == {None}
