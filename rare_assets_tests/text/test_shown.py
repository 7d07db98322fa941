"""Texts on pages: cut between characters, and each in its own direction."""

import polars as pl
import pytest

from rare_assets.catalog.metadata import preview
from rare_assets.catalog.worked_example import shortened, worked_example
from rare_assets.checks.judgement import EXAMPLE_CHARS
from rare_assets.checks.judgement import shortened as example
from rare_assets.corpus.formats import DETAIL_LENGTH, printable
from rare_assets.operators.read_documents import _shown
from rare_assets.text.shown import closed, cut, graphemes, isolated

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
# One character for a reader, of several code points each.
CHARACTERS = {
    "family": FAMILY,
    "flag": "\U0001f1eb\U0001f1f7",
    "accent": "e\u0301\u0323",
    "devanagari": "नि",
    "tamil": "நி",
    "thai": "ที่",
    "hangul": "\u1112\u1161\u11ab",
    "arabic": "بَّ",
}
ARABIC, HEBREW = "مرحبا بالعالم", "שלום עולם"


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
@pytest.mark.parametrize("offset", range(6))
def test_no_text_is_cut_within_a_character(character, offset):
    text = "a" * offset + character * 300
    whole = [text[: offset + len(character) * number] + "…" for number in range(301)]
    assert cut(text, 20) in whole
    assert len(cut(text, 20)) <= 20
    assert shortened(text, 90) in whole
    assert printable(text) in whole
    assert len(printable(text)) <= DETAIL_LENGTH
    if character.isprintable():  # else Python spells it out
        assert _shown(text)[1:-1] in whole
    examples = pl.DataFrame({"text": [text, "short"]}).select(example(pl.col("text")))["text"]
    assert examples[0] in whole
    assert len(examples[0]) <= EXAMPLE_CHARS
    assert examples[1] == "short"


def test_a_text_that_fits_is_not_cut():
    assert cut(FAMILY, len(FAMILY)) == FAMILY
    assert cut(FAMILY * 2, 6) == f"{FAMILY}…"
    assert cut(FAMILY, 4) == "…"
    assert list(graphemes(f"a{FAMILY}e\u0301")) == ["a", FAMILY, "e\u0301"]


def test_what_runs_from_right_to_left_is_isolated_and_nothing_else():
    assert isolated(ARABIC) == f"\u2068{ARABIC}\u2069"
    assert isolated(f"see {HEBREW}!") == f"\u2068see {HEBREW}!\u2069"
    for text in ("plain", "Größe", "日本", ""):
        assert isolated(text) == text


def test_an_isolate_that_a_text_leaves_open_ends_with_it():
    assert isolated("\u2067open") == "\u2068\u2067open\u2069\u2069"
    assert isolated("\u202eturned") == "\u2068\u202eturned\u2069"
    assert closed("\u2068cut of") == "\u2068cut of\u2069"
    assert closed("\u2068a\u2069") == "\u2068a\u2069"


def test_on_an_example_page_each_line_has_its_own_direction():
    rows = pl.DataFrame(
        {
            "doc_id": ["d-1"],
            "text": [f"{ARABIC}\nplain line (1)"],
            "title": [HEBREW],
            "answer": [None],
            "source": [f"{ARABIC}.jsonl:1"],
            "n_words": [4],
        },
        schema_overrides={"answer": pl.String},
    )
    page = worked_example("documents", rows).value
    assert f"d\\-1, \u2068{HEBREW}\u2069" in page
    assert f"> \u2068{ARABIC}\u2069\n> plain line \\(1\\)" in page
    assert f"From \u2068{ARABIC}\\.jsonl\\:1\u2069, 4 words." in page


def test_in_a_preview_neighbours_keep_their_direction():
    rows = pl.DataFrame(
        {
            "question_id": ["q"],
            "query": [ARABIC],
            "hard_negatives": [["plain", f"{HEBREW} " * 40, ARABIC]],
        }
    )
    [record] = preview("hard_negatives", rows).value.records
    assert record.data["query"] == f"\u2068{ARABIC}\u2069"
    listed = record.data["hard_negatives"]
    assert listed.startswith(f"3: plain | \u2068{HEBREW} {HEBREW}")
    assert listed.endswith("…\u2069")
    assert listed.count("\u2068") == listed.count("\u2069") == 1
