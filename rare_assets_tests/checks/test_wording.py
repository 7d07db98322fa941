"""Words, stems, sentences and runs, in languages of several scripts."""

import polars as pl

from rare_assets.checks.wording import content_stems, runs, sentences, word_set


def of(expression, text):
    return pl.DataFrame({"text": [text]}).select(expression(pl.col("text"))).item().to_list()


def test_a_word_set_names_each_stem_once():
    assert of(word_set, "The battery, the batteries: the end") == ["the", "batte", "end"]


def test_content_stems_are_of_longer_words_alone():
    assert of(content_stems, "Why do batteries age? 12345") == ["batte"]
    assert of(content_stems, "电池的容量为什么会下降") == ["电池", "容量", "为什么", "下降"]
    assert of(content_stems, "แบตเตอรี่ไม่ดี") == ["แบตเต"]


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


def test_runs_stay_within_their_row():
    texts = pl.DataFrame({"row": [3, 5, 7], "words": [["a", "b", "c"], ["d"], ["e", "f"]]})
    assert runs(texts, 2).rows() == [(3, "a b"), (3, "b c"), (7, "e f")]
