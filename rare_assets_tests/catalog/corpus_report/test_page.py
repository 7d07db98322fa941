import datetime
import re
from xml.etree import ElementTree

import pytest

from rare_assets.catalog.corpus_report.figures import Distribution, gather
from rare_assets.catalog.corpus_report.page import DayCost, Exported, StageCost, chart, page
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.html_page import Page
from rare_assets_tests.support.rows import rejects, rows

DAY = datetime.date(2026, 3, 1)
# What a document or a teacher may write, and must not run.
HOSTILE = "</div><script>alert('x')</script><img src=https://example.org/x.png> & more"


@pytest.fixture
def html(tmp_path):
    tables = ParquetTables(str(tmp_path))
    tables.write("questions", "a", rows("questions", {}), rejects("questions", {"reason": "cut"}))
    tables.write("reasoning", "a", rows("reasoning", {"question": HOSTILE, "text": HOSTILE}))
    return page(
        gather(tables, ["a"]),
        [StageCost("questions", 1_000_000, 20, 1.5), StageCost("reasoning", 3, 4, None)],
        [
            DayCost(DAY, "questions", 1.0),
            DayCost(DAY, "questions", 0.5),
            DayCost(DAY - datetime.timedelta(1), "reasoning", 2.0),
        ],
        [Exported("verl", 7)],
        {"storage": "/data", "teacher": "m"},
    )


def test_the_tables_say_what_was_counted(html):
    tables = Page(html).tables
    assert ["questions", "1", "1", "1", "1 cut"] in tables["funnel"]
    assert ["exports/verl", "", "7", "", ""] in tables["funnel"]
    assert tables["cost"][1:] == [
        ["questions", "1,000,000", "20", "$1.5000"],
        ["reasoning", "3", "4", "unknown, no price"],
    ]
    assert tables["days"][1:] == [
        ["2026-02-28", "$0.0000", "$2.0000"],
        ["2026-03-01", "$1.5000", "$0.0000"],
    ]
    assert tables["worst"][1] == ["a", "2", "1", "33.3 %", "1 cut"]


def test_what_documents_hold_is_text_and_nothing_is_loaded_from_afar(html):
    assert "<img" not in html
    assert html.count("<script>") == 1
    assert "&lt;img src=https://example.org/x.png&gt;" in html
    # Namespaces and comments are no requests.
    assert re.findall(r"""(?:src|href)\s*=\s*["']|@import|url\(|<link|<iframe""", html) == []


def test_a_chart_is_svg_with_every_part_and_its_count():
    svg = ElementTree.fromstring(chart(Distribution("Ranks", {"1": 1200, "2 <": 30})))
    texts = ["".join(node.itertext()) for node in svg.iter() if node.tag.endswith("text")]
    assert {"1", "2 <", "1,200", "30"} <= set(texts)


def test_a_page_of_nothing_says_so(tmp_path):
    empty = page(gather(ParquetTables(str(tmp_path)), []), [], [], [], {})
    assert "No row of reasoning is stored yet." in empty
    assert "No question and no reasoning was rejected." in empty


def test_the_page_stays_small_whatever_the_texts_are(tmp_path):
    tables = ParquetTables(str(tmp_path))
    # A character of four bytes, and more negatives than anybody reads.
    long = "🔋 leaks. 电池漏电。" * 5_000
    texts = dict.fromkeys(("text", "question", "scenario", "reasoning", "answer"), long)
    made = ({"question_id": f"q{n}", "hard_negatives": [long] * 60, **texts} for n in range(60))
    tables.write("reasoning", "a", rows("reasoning", *made))
    html = page(gather(tables, ["a"]), [], [], [], {})
    assert len(html.encode()) < 5_000_000
    assert html.count("and 55 more") == 50


def test_a_day_tells_what_a_judge_of_negatives_cost(tmp_path):
    days = [DayCost(DAY, "hard_negatives", 0.25), DayCost(DAY, "questions", 1.0)]
    html = page(
        gather(ParquetTables(str(tmp_path)), []), [StageCost("questions", 1, 1, 1.0)], days, [], {}
    )
    assert Page(html).tables["days"] == [
        ["day", "questions", "hard_negatives"],
        ["2026-03-01", "$1.0000", "$0.2500"],
    ]
