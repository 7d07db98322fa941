"""The page: everything side by side, nothing of it runs or loads, and every script reads right."""

import re

import pytest

from rare_assets.pilot.judging import Verdict
from rare_assets.pilot.page import Line, dollars, duration, page
from rare_assets.pilot.projection import Projection
from rare_assets.pilot.run import Judging, Pilot
from rare_assets.pilot.trial import StageUse, Trial
from rare_assets_tests.support.html_page import Page
from rare_assets_tests.support.pilot import a_trial
from rare_assets_tests.support.rows import rows

HOSTILE = "</div><script>alert('x')</script><img src=https://example.org/x.png> & more"
ARABIC = "لماذا يصدأ الحديد؟"


@pytest.fixture
def pilot(tmp_path, nothing_set):
    use = {"questions": StageUse(1, 1, 100, 10, 0.5, 0.25, [2.0])}
    one = a_trial(
        tmp_path,
        "a<b>",
        questions=[{"question": HOSTILE, "doc_id": "d1"}],
        reasoning=[{"question": HOSTILE, "reasoning": ARABIC}],
        use=use,
        ops={"hard_negatives": {"num_neg": 2}},
    )
    rejected = [{"reason": "refused", "detail": HOSTILE}]
    other = a_trial(tmp_path, "other", questions=[], reasoning=[], rejected=rejected)
    broken = Trial("broken", None, problem=f"no such model {HOSTILE}")
    verdict = Verdict("d1", "a<b>", "other", "tie", (HOSTILE, "Neither."))
    return Pilot(
        rows("documents", {"text": HOSTILE, "title": ARABIC}),
        1000,
        7,
        [one, other, broken],
        {
            "a<b>": Projection(2000, 5, 6, 1234.5, 0.5, 0.1, 7300.0, 64, 0),
            "other": None,
            "broken": None,
        },
        Judging("judge-1", [verdict], StageUse(2, 2, 9, 9, 0.01, 0.01, [1.0])),
    )


def test_nothing_in_a_text_runs_or_loads(pilot):
    html = page(pilot, {"source": HOSTILE})
    read = Page(html)
    assert HOSTILE not in html
    assert [attrs for tag, attrs in read.tags if tag == "script"] == [{}]
    assert not [tag for tag, _ in read.tags if tag in ("img", "link", "iframe", "b<b>")]
    loads = {"src", "href", "srcset", "data", "action"}
    assert not [(tag, attrs) for tag, attrs in read.tags if loads & attrs.keys()]
    assert "@import" not in html
    assert "url(" not in html


def test_every_text_takes_its_own_direction(pilot):
    html = page(pilot, {})
    assert f'<div class="text" dir="auto">{ARABIC}</div>' in html
    assert f'<h3 dir="auto">{ARABIC}</h3>' in html
    texts = re.findall(r'<div class="text[^>]*>', html)
    assert len(texts) > 5
    assert all('dir="auto"' in tag for tag in texts)


def test_configurations_stand_side_by_side(pilot):
    tables = Page(page(pilot, {})).tables
    assert tables["settings"][0] == ["", "a<b>", "other", "broken"]
    assert ["model", "gpt-4o-mini", "gpt-4o-mini", ""] in tables["settings"]
    assert ["hard_negatives.num_neg", "2", "default", ""] in tables["settings"]
    assert tables["whole"][1:4] == [
        ["cost", "$1,234.50 ± 10 %", "", ""],
        ["of it paid already", "$0.5000", "", ""],
        ["time", "2 h 2 min (64 requests in flight)", "", ""],
    ]
    assert ["cost", "$0.5000, $0.2500 of it now", "", ""] in tables["took"]
    assert ["rejects", "none", "1 refused", ""] in tables["measured"]
    # pair; wins; tie; orders disagree, no verdict, not compared
    assert tables["pairs"][1] == ["a<b> and other", "0", "0", "1", "0", "0", "0"]


def test_the_checks_figures_stand_there_too(pilot):
    tables = Page(page(pilot, {})).tables
    names = [tuple(row[0].split(" ")[:2]) for row in [*tables["rules"][1:], *tables["passing"][1:]]]
    assert len(set(names)) == len(names) > 30
    (short,) = [
        row
        for row in [*tables["rules"], *tables["passing"]]
        if row[0].startswith("schema_holds questions.")
    ]
    assert short[1].startswith("passed")
    assert short[2:] == ["no row", "no row"]


def test_what_failed_is_told_first(pilot):
    html = page(pilot, {})
    assert html.index("did not come to its end") < html.index("<h2>")
    assert "what its stored answers give" not in html
    pilot.trials[1].problem = "the budget is spent"
    assert page(pilot, {}).count("what its stored answers give") == 1


def test_what_differs_stands_out_and_a_missing_value_is_no_difference():
    assert [Line("", values).differs for values in (["1", "1", ""], ["1", "2"], ["", ""])] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (3500, "58 min"), (3600, "1 h 0 min"), (200_000, "2 days")],
)
def test_a_time_reads_as_people_say_it(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(None, "unknown, no price"), (0.0, "$0.0000"), (1234.5, "$1,234.50")]
)
def test_an_amount_reads_as_people_say_it(value, said):
    assert dollars(value) == said
