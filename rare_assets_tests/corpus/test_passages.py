"""Where a long text is cut, and that an edit moves no other cut."""

import random
from itertools import pairwise

import pytest

from rare_assets.corpus.passages import cut, first_heading, front_title


def sentence(rng, n_words=12):
    words = (
        "".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(2, 9))) for _ in range(n_words)
    )
    return " ".join(words).capitalize() + "."


def paragraphs(rng, n, sentences=5):
    return [" ".join(sentence(rng) for _ in range(sentences)) for _ in range(n)]


def pieces(text, max_words, markdown=True):
    return [(p.title, text[p.start : p.end]) for p in cut(text, max_words, markdown=markdown)]


def n_words(text):
    return len(text.split())


@pytest.fixture
def rng():
    return random.Random(5)


def test_a_text_that_fits_is_not_cut(rng):
    text = " ".join(["word"] * 300)
    assert cut(text, 300, markdown=False) == []
    assert len(cut(text + " more", 300, markdown=False)) == 2


def test_sections_are_passages_with_their_path(rng):
    body = {name: "\n\n".join(paragraphs(rng, 2)) for name in "abcd"}
    text = (
        f"# Deployment\n\n{body['a']}\n\n## Rollback ##\n\n{body['b']}\n\n### By hand\n\n{body['c']}\n\n"
        f"Monitoring\n----------\n\n{body['d']}\n"
    )
    assert pieces(text, 150) == [
        ("Deployment", f"# Deployment\n\n{body['a']}"),
        ("Deployment > Rollback", f"## Rollback ##\n\n{body['b']}"),
        ("Deployment > Rollback > By hand", f"### By hand\n\n{body['c']}"),
        ("Deployment > Monitoring", f"Monitoring\n----------\n\n{body['d']}"),
    ]
    whole = pieces(text, 300)
    assert [title for title, _ in whole] == [
        "Deployment",
        "Deployment > Rollback",
        "Deployment > Monitoring",
    ]


def test_deeper_headings_before_a_higher_one_are_not_its_children(rng):
    one, two = paragraphs(rng, 2)
    text = f"## Before\n\n{one}\n\n# Top\n\n{two}"
    assert [title for title, _ in pieces(text, 80)] == ["Before", "Top"]


def test_nothing_is_lost_and_nothing_stands_twice(rng):
    text = "\n\n".join(["# T", *paragraphs(rng, 30), "## S", *paragraphs(rng, 30, sentences=40)])
    found = cut(text, 100, markdown=True)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert "".join(text[p.start : p.end] for p in found).split() != []
    assert "".join(" " + text[p.start : p.end] for p in found).split() == text.split()
    assert all(text[p.start : p.end] == text[p.start : p.end].strip() for p in found)
    assert all(n_words(text[p.start : p.end]) <= 100 for p in found)


def test_paragraphs_stay_whole_where_they_fit(rng):
    whole = paragraphs(rng, 40)
    for _, text in pieces("\n\n".join(whole), 150, markdown=False):
        assert set(text.split("\n\n")) <= set(whole)


def test_sentences_stay_whole_where_they_fit(rng):
    sentences = [sentence(rng, 25) for _ in range(60)]
    sentences[7] = "Dr. Smith et al. measured it, e.g. Thursday, at 3.5 bar in the U.S. plant."
    wrapped = " ".join(sentences).replace(" a", "\na")
    for _, text in pieces(wrapped, 80, markdown=False):
        assert text.replace("\n", " ").endswith(tuple(sentences))


def test_a_sentence_that_is_too_long_is_cut_between_words():
    text = "word " * 1000
    assert {n_words(text) <= 100 for _, text in pieces(text, 100)} == {True}
    assert "".join(text for _, text in pieces("x" * 10 + " " + text, 100)).count("word") == 1000


def test_a_passage_tells_its_words_where_blanks_are_set(rng):
    text = "\n\n".join(["# Überschrift", *paragraphs(rng, 20, sentences=40)]).replace(". ", "!")
    found = cut(text.replace(" a", "\u2003a"), 100, markdown=True)
    assert [p.words for p in found] == [
        n_words(text.replace(" a", "\u2003a")[p.start : p.end]) for p in found
    ]
    assert {p.words for p in cut("水锤是一种压力波动现象。" * 60, 300, markdown=True)} == {None}


@pytest.mark.parametrize("block", ["```python\n{}\n```", "~~~\n{}\n~~~", "{}"])
def test_code_and_tables_stay_whole_where_they_fit(rng, block):
    lines = "\n".join(f"| row {n} | # no heading |" for n in range(20))
    table = block.format(lines.replace("row 9", "row 9 |\n\n| more") if block != "{}" else lines)
    text = "\n\n".join(["# T", *paragraphs(rng, 9), table, *paragraphs(rng, 9)])
    assert sum(table in text for _, text in pieces(text, 200)) == 1


def test_a_table_that_is_too_long_is_cut_at_its_lines():
    lines = [f"| row {n} | cell |" for n in range(100)]
    for _, text in pieces("\n".join(lines), 60):
        assert set(text.split("\n")) <= set(lines)


def test_short_passages_join_a_neighbour(rng):
    long = ["\n\n".join(paragraphs(rng, 2)) for _ in range(3)]
    text = f"# Title\n\n## One\n\n{long[0]}\n\n## Two\n\n{long[1]}\n\n## See also\n\nNothing.\n"
    assert [title for title, _ in pieces(text, 200)] == ["Title > One", "Title > Two"]
    assert pieces(text, 200)[1][1].endswith("## See also\n\nNothing.")


def test_scripts_without_blanks_are_counted_by_characters():
    text = "水锤是一种压力波动现象。" * 60 + "\n\n" + "คลื่นความดันในท่อ" * 40
    found = [text for _, text in pieces(text, 300, markdown=False)]
    assert len(found) > 3
    assert all(len(piece) <= 300 for piece in found)
    assert "".join(found) == text.replace("\n\n", "")


@pytest.mark.parametrize("markdown", [True, False])
def test_an_edit_changes_the_passages_that_it_touches(rng, markdown):
    parts = [p for n in range(6) for p in (f"## Section {n}", *paragraphs(rng, 30))]
    text = "\n\n".join(["# T", *parts])
    before = {text for _, text in pieces(text, 300, markdown)}
    changed = []
    for _ in range(100):
        sentences = text.split(". ")
        at = rng.randrange(len(sentences))
        sentences[at] += " with a few more words"
        after = {text for _, text in pieces(". ".join(sentences), 300, markdown)}
        changed.append(len(after - before))
    assert max(changed) <= 2
    assert changed.count(1) >= 80


def test_the_first_heading_of_the_first_level_is_the_title():
    assert first_heading("## two\n\n```\n# code\n```\n\n# One #\n\n# later") == "One"
    assert first_heading("#tag\n\n## two") is None


def test_a_row_of_spaces_in_a_heading_takes_no_longer_than_its_words():
    row = " " * 500_000
    assert first_heading(f"# One{row}two {row}## {row}\n\n# later") == f"One{row}two"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["word ", "| a | b |\n", "INFO: done again\n", "漢字"])
def test_what_stands_there_again_and_again_takes_no_longer_than_other_text(part):
    text = part * 300_000
    found = [piece for _, piece in pieces(text, 300, markdown=False)]
    assert len(found) > 1000
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_may_end_in_either_way(rng, end):
    body = ["\n\n".join(paragraphs(rng, 2)) for _ in range(3)]
    text = f"Top\n===\n\n{body[0]}\n\n```sh\n# no\n```\n\n## A\n\n{body[1]}\n\n## B\n\n{body[2]}"
    found = pieces(text.replace("\n", end), 200)
    assert [title for title, _ in found] == ["Top", "Top > A", "Top > B"]


@pytest.mark.parametrize(
    "line", ["```code``` within a text", "```", "~~~", "####### seven", "```sh"]
)
def test_no_line_is_lost(rng, line):
    text = "\n\n".join([f"# T\n\n{line}", *paragraphs(rng, 9), f"## S\n\n{line}"])
    found = pieces(text, 200)
    assert " ".join(piece for _, piece in found).split() == text.split()


@pytest.mark.parametrize(
    "code",
    [
        "1. Run this:\n\n    ```sh\n    # no heading\n    a\n\n    b\n    ```",
        "- ```sh\n  # no heading\n\n  a\n  ```",
        "> ```\n> # no heading\n> ```",
        "-\t~~~\n\t# no heading\n\n\ta\n\t~~~",
    ],
)
def test_code_within_a_list_or_a_quotation_is_code(rng, code):
    one, two, three = ("\n\n".join(paragraphs(rng, 2)) for _ in range(3))
    text = f"# T\n\n{one}\n\n{code}\n\n## A\n\n{two}\n\n## B\n\n{three}"
    found = pieces(text, 150)
    assert [title for title, _ in found] == ["T", "T > A", "T > B"]
    assert found[0][1] == f"# T\n\n{one}\n\n{code}"


@pytest.mark.parametrize(
    "hidden",
    [
        "---\ntitle: Own\n\n# a remark\nkey: value\n---",
        "+++\n# a remark\nkey = 1\n+++",
        "<!--\n# hidden\n\n## too\n-->",
    ],
)
def test_lines_of_front_matter_and_comments_are_no_headings(rng, hidden):
    one, two = ("\n\n".join(paragraphs(rng, 2)) for _ in range(2))
    text = f"{hidden}\n\n{one}\n\n## A\n\n{two}"
    assert pieces(text, 150) == [(None, f"{hidden}\n\n{one}"), ("A", f"## A\n\n{two}")]
    assert first_heading(text) is None


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: Ice: a primer\ntags: [a]\n---\n\ntext", "Ice: a primer"),
        ("---\r\ntitle: 'Ice'\r\n---\r\n\r\ntext", "Ice"),
        ('+++\ntitle = "Ice"\n+++\n', "Ice"),
        ("---\nsubtitle: Ice\n---\n", None),
        ("---\n\ntext\n\n---\n\ntitle: Ice\n", None),
        ("text\n\n---\ntitle: Ice\n---\n", None),
    ],
)
def test_the_title_in_the_data_before_a_text(text, title):
    assert front_title(text) == title


def test_a_heading_stands_with_what_follows(rng):
    one, two, three = ("\n\n".join(paragraphs(rng, 2)) for _ in range(3))
    long = " ".join(sentence(rng) for _ in range(30))
    text = f"# A\n\n{one}\n\n# B\n\n## B1\n\n{two}\n\n# C\n\n{long}\n\n# D\n\n{three}"
    found = pieces(text, 150)
    begins = {title: piece.split("\n")[0] for title, piece in reversed(found)}
    assert begins == {"A": "# A", "B": "# B", "C": "# C", "D": "# D"}
    assert all(piece.endswith(".") for _, piece in found)


@pytest.mark.parametrize(
    "whole",
    [
        "As shown in Sec. 4.2 and on pp. 3 of it, by Mme. Durand in Jan. 2020 with care.",
        "Am 3. Mai kam Frau Dr. Wolf, die z. B. ca. 5 Euro hatte, vgl. Abb. 3 im Anhang.",
        "「他说水在零度结冰。」",
    ],
)
def test_abbreviations_dates_and_brackets_end_no_sentence(whole):
    before, after = (
        ("水" * 20 + "。", "冰" * 20 + "。") if whole[0] == "「" else ("Yes. ", " No it is.")
    )
    most = len(whole) if whole[0] == "「" else n_words(whole)
    found = [text for _, text in pieces(f"{before}{whole}{after}", most + 3, markdown=False)]
    assert any(whole in text for text in found)
