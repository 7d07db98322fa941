"""Rows that share text with an evaluation set are left out, and named with what they matched."""

import json

import polars as pl
import pytest

from rare_assets.exports.options import ExportError
from rare_assets_tests.exports.conftest import make
from rare_assets_tests.exports.corpus import document, question, write

ONE_SIDE = {"validation_share": 0.0, "test_share": 0.0}


def run_of(n, length):
    """So many words of a document's text, from its fifth."""
    return " ".join(document(n)["text"].split()[5 : 5 + length])


def rejected(out, shard="a.jsonl"):
    return pl.read_parquet(out / f"rejects/{shard}.parquet")


def ask(tables, doc_id, text):
    asked = tables.scan("questions", "a.jsonl").collect().to_dicts()
    for row in asked:
        if row["doc_id"] == doc_id:
            row["question"] = text
    write(tables, "questions", "a.jsonl", asked)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "passages.jsonl",
            json.dumps({"id": "1", "text": f"Unlike words {run_of(5, 13)} and more"}),
        ),
        ("corpus.json", json.dumps([{"contents": f"so {run_of(5, 14).upper()}!"}])),
        ("notes.txt", f"# A heading\n\n{run_of(5, 7)}\n{' '.join(run_of(5, 13).split()[7:])}\n"),
    ],
)
def test_thirteen_words_in_a_row_in_any_text_leave_a_row_out(tables, out, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    make(tables, str(out), ["cross-encoder"], exclude=[str(tmp_path / name)], **ONE_SIDE)
    # d5's own row, and those that have it as a negative.
    found = {row["question_id"]: row for row in rejected(out).to_dicts()}
    assert set(found) == {"d5-q0", "d4-q0", "d3-q0", "d2-q0"}
    own = found["d5-q0"]
    assert (own["field"], own["rule"]) == ("positive", "13 words in a row")
    assert own["matched"] == run_of(5, 13).lower()
    assert own["file"] == str(tmp_path / name)
    assert found["d4-q0"]["field"] == "negative"
    left = pl.read_parquet(out / "cross-encoder/train/a.jsonl.ids.parquet")["doc_id"].to_list()
    assert left == [f"d{n}" for n in range(20) if n not in (2, 3, 4, 5)]
    counts = json.loads((out / "manifest/cross-encoder/a.jsonl.json").read_text())["counts"]
    assert counts[0] == ["not in the evaluation texts", 20, 16]


def test_twelve_words_in_a_row_do_not(tables, out, tmp_path):
    file = tmp_path / "passages.jsonl"
    file.write_text(json.dumps({"text": f"{run_of(5, 12)} other"}))
    make(tables, str(out), ["cross-encoder"], exclude=[str(file)], **ONE_SIDE)
    assert rejected(out).is_empty()


def test_nearly_all_words_of_a_question_leave_a_row_out(tables, out, tmp_path):
    evaluated = "Which metal dissolves faster in warm salty water: zinc or plain carbon steel"
    ask(
        tables,
        "d3",
        "Zinc or carbon steel in plain warm salty water, which metal dissolves faster, then?",
    )
    ask(tables, "d4", "Which metal dissolves in water?")
    folder = tmp_path / "beir"
    folder.mkdir()
    lines = [{"_id": "q1", "text": "What is this"}, {"_id": "q2", "text": evaluated}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "corpus.jsonl").write_text(
        json.dumps({"_id": "c", "title": "", "text": "Nothing alike."})
    )
    make(tables, str(out), ["cross-encoder"], exclude=[str(folder)], **ONE_SIDE)
    [row] = rejected(out).to_dicts()
    assert (row["question_id"], row["rule"]) == ("d3-q0", "nearly all words of a question")
    assert (row["matched"], row["row"]) == (evaluated, 2)
    assert row["file"] == str(folder / "queries.jsonl")


def test_bright_parquet_is_read_by_its_columns(tables, out, tmp_path):
    file = tmp_path / "examples.parquet"
    query = question(document(7))["question"]
    pl.DataFrame(
        {"id": ["1"], "query": [f"{query} {run_of(7, 13)}"], "gold_ids": [["x"]]}
    ).write_parquet(file)
    make(tables, str(out), ["cross-encoder"], exclude=[str(file)], **ONE_SIDE)
    assert "d7-q0" in rejected(out)["question_id"].to_list()


def test_a_changed_evaluation_file_is_looked_for_anew(tables, out, tmp_path):
    file = tmp_path / "e.txt"
    file.write_text("Nothing alike here.")
    assert len(make(tables, str(out), ["verl"], exclude=[str(file)])) == 2
    assert make(tables, str(out), ["verl"], exclude=[str(file)]) == []
    file.write_text(run_of(5, 13))
    assert len(make(tables, str(out), ["verl"], exclude=[str(file)])) == 2


def test_a_url_is_refused_without_its_secrets(tables, out):
    with pytest.raises(ExportError) as refused:
        make(tables, str(out), ["verl"], exclude=["s3://key:SECRET@bucket/beir?token=SECRET"])
    assert "s3://bucket/beir is a URL; copy its files to a folder" in str(refused.value)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, None, "is not there"),
        ("x.docx", "...", "can be read"),
        ("x.jsonl", '{"id": "1"}', "none of the columns"),
        ("x.jsonl", '{"id": ', "can't be read"),
        ("x.txt", "\n\n", "no text"),
    ],
)
def test_files_that_can_not_be_used_are_refused(tables, out, tmp_path, name, content, said):
    file = tmp_path / (name or "missing.jsonl")
    if name:
        file.write_text(content)
    with pytest.raises(ExportError, match=said):
        make(tables, str(out), ["sentence-transformers"], exclude=[str(file)])
    assert not list(out.glob("sentence-transformers/**/*"))
