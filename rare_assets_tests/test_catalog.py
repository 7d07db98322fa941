"""How a table shows in the UI: constraints, preview and example of a row."""

import dagster as dg
import dataframely as dy

from rare_assets.catalog import PREVIEW_CHARS, example, preview, table_schema
from rare_assets.schemas import TABLES
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
    assert records[0].data["query"] == ("why " * 100)[: PREVIEW_CHARS - 1] + "…"
    assert records[0].data["hard_negatives"] == "2: Cells divide. | Charge is conserved."


def test_an_example_has_every_column_and_renders_nothing_of_a_text():
    text = "![pixel](http://example.org/p.png)\n# Not a heading\n\n" + "long " * 1000
    shown = example(rows("documents", {"text": text})).md_str
    rendered = [line for line in shown.splitlines() if line and not line.startswith("    ")]
    assert rendered == [f"**{column}**" for column in TABLES["documents"].schema.column_names()]
    assert "    ![pixel](http://example.org/p.png)" in shown
    assert len(shown) < 2500


def test_an_empty_table_has_an_example_too():
    assert example(rows("documents").clear()).md_str == "No rows."
