"""Words, stems, sentences and runs, in languages of several scripts."""

import polars as pl
import pytest

from rare_assets.checks.wording import (
    content_stems,
    has_no_blanks,
    runs,
    sentences,
    word_set,
    words,
)


def of(expression, text):
    return pl.DataFrame({"text": [text]}).select(expression(pl.col("text"))).item().to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Why doesn't a 12-volt cell age?",
            ["why", "doesn", "t", "a", "12", "volt", "cell", "age"],
        ),
        ("Größe, Élan & naïveté", ["größe", "élan", "naïveté"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("电池有电", ["电", "池", "有", "电"]),
        ("배터리의 수명", ["배터리의", "수명"]),
        ("...", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert of(words, text) == expected


def test_a_word_set_names_each_stem_once():
    assert of(word_set, "The battery, the batteries: the end") == ["the", "batte", "end"]


def test_content_stems_are_of_longer_words_alone_and_of_no_script_without_blanks():
    assert of(content_stems, "Why do batteries age? 电池为什么老化 12345") == ["batte"]


def test_sentences_end_at_marks_and_lines():
    text = "A cell is 1.5 volts. Is it? Yes!\n\n# Title\n电池老了。为什么\uff1f ..."
    assert of(sentences, text) == [
        "A cell is 1.5 volts.",
        "Is it?",
        "Yes!",
        "# Title",
        "电池老了。",
        "为什么\uff1f",
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("电池 cell 为什么老化", True), ("A cell (电池)", False), ("", False)]
)
def test_scripts_without_blanks(text, expected):
    assert pl.DataFrame({"t": [text]}).select(has_no_blanks(pl.col("t"))).item() is expected


def test_runs_stay_within_their_row():
    texts = pl.DataFrame({"row": [3, 5, 7], "words": [["a", "b", "c"], ["d"], ["e", "f"]]})
    assert runs(texts, 2).rows() == [(3, "a b"), (3, "b c"), (7, "e f")]
