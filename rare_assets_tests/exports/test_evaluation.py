"""Rows that share text with an evaluation set are left out, and named with what they matched."""

import codecs
import gzip
import json

import polars as pl
import pytest

from rare_assets.corpus.formats.streams import zstd
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


def asked_of(n):
    return question(document(n))["question"]


CASES = {
    "a packed one beside": lambda q: {
        "corpus.jsonl": '{"text": "Nothing alike here."}',
        "queries.jsonl.gz": gzip.compress(json.dumps({"text": q}).encode()),
    },
    "zstd": lambda q: {"q.ndjson.zst": zstd.compress(json.dumps({"query": q}).encode())},
    "csv": lambda q: {"a.txt": "Nothing alike here.", "test.csv": f"question\n{q}\n"},
    "tsv without a header": lambda q: {"test.tsv": f"1\t{q}\n2\tNothing alike here, not at all\n"},
    "a column named twice": lambda q: {"test.csv": f"x,question,question\n1,{q},none\n"},
    "a name in capitals": lambda q: {
        "r.txt": "Nothing alike here.",
        "Q.JSONL": json.dumps({"question": q}),
    },
    "problem": lambda q: {"math.jsonl": json.dumps({"problem": q, "answer": "42"})},
    "Question": lambda q: {"q.jsonl": json.dumps({"Question": q})},
    "query_text": lambda q: {"q.jsonl": json.dumps({"query_text": q, "text": "Nothing alike."})},
    "a struct": lambda q: {"q.jsonl": json.dumps({"question": {"text": q}})},
    "context": lambda q: {"q.jsonl": json.dumps({"question": "What is it?", "context": q})},
    "messages": lambda q: {
        "q.jsonl": json.dumps({"messages": [{"role": "user", "content": q}], "text": "None."})
    },
    "one JSON value": lambda q: {
        "q.json": json.dumps({"data": [{"qas": [{"asks": q}]}]}, indent=1)
    },
    "a byte order mark": lambda q: {
        "q.jsonl": codecs.BOM_UTF8 + json.dumps({"question": q}).encode(),
        "r.json": codecs.BOM_UTF8 + b'[{"question": "What is it?"}]',
    },
    "types that differ": lambda q: {"q.jsonl": f'{{"a": 1}}\n{{"a": {{"b": [{json.dumps(q)}]}}}}'},
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_of_every_file_is_looked_for(tables, out, tmp_path, case):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for name, content in CASES[case](asked_of(3)).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    make(tables, str(out), ["cross-encoder"], exclude=[str(folder)], **ONE_SIDE)
    [row] = rejected(out).to_dicts()
    assert (row["question_id"], row["rule"]) == ("d3-q0", "nearly all words of a question")
    assert row["matched"] == asked_of(3)


def test_every_text_of_parquet_is_looked_for(tables, out, tmp_path):
    file = tmp_path / "q.PARQUET"
    rows = {"id": [1, 2], "turns": [[{"value": "None"}], [{"value": asked_of(3)}]]}
    pl.DataFrame(rows).write_parquet(file)
    make(tables, str(out), ["cross-encoder"], exclude=[str(file)], **ONE_SIDE)
    [row] = rejected(out).to_dicts()
    assert (row["question_id"], row["row"], row["file"]) == ("d3-q0", 2, str(file))


def test_ids_labels_and_short_answers_leave_no_row_out(tables, out, tmp_path):
    file = tmp_path / "q.jsonl"
    row = {"uid": "d3-q0", "label": "d3", "solution": "follow from d3", "topic": "Why does it?"}
    file.write_text(json.dumps({**row, "problem": "What melts ice on a cold road in winter?"}))
    make(tables, str(out), ["cross-encoder"], exclude=[str(file)], **ONE_SIDE)
    assert rejected(out).is_empty()


def test_what_is_no_data_is_passed_over(tables, out, tmp_path):
    folder = tmp_path / "beir"
    q = json.dumps({"text": asked_of(3)})
    for name in (
        ".git/a.bin",
        ".cache/queries.jsonl",
        "qrels/test.tsv",
        "load.py",
        "LICENSE",
        "a.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(q)
    (folder / "queries.jsonl").write_text('{"text": "What melts ice on a cold road?"}')
    make(tables, str(out), ["cross-encoder"], exclude=[str(folder)], **ONE_SIDE)
    assert rejected(out).is_empty()


def test_a_folder_with_data_that_can_not_be_read_is_refused(tables, out, tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for name in ("queries.jsonl", "a.arrow", "b.xlsx", "queries"):
        (folder / name).write_text('{"text": "What melts ice on a cold road?"}')
    with pytest.raises(ExportError) as refused:
        make(tables, str(out), ["verl"], exclude=[str(folder)])
    named = ", ".join(str(folder / name) for name in ("a.arrow", "b.xlsx", "queries"))
    assert f"{named} can't be read, and may hold what is to be left out" in str(refused.value)


def test_a_broken_row_is_named_with_what_to_do(tables, out, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "What melts ice?"}\n\n{"question": "What\n')
    with pytest.raises(ExportError) as refused:
        make(tables, str(out), ["verl"], exclude=[str(file)])
    assert f"{file}, row 3 can't be read: Invalid control character" in str(refused.value)
    assert "Repair the row or take it out" in str(refused.value)


@pytest.mark.parametrize("name", ["q.jsonl.gz", "q.jsonl.zst", "q.csv.gz", "q.txt.gz", "q.parquet"])
def test_a_file_that_is_cut_off_is_refused(tables, out, tmp_path, name):
    line = json.dumps({"question": "What melts ice on a cold road?"}).encode()
    packed = zstd.compress(line) if name.endswith(".zst") else gzip.compress(line)
    (tmp_path / name).write_bytes(packed[:-9])
    with pytest.raises(ExportError, match="can't be read"):
        make(tables, str(out), ["verl"], exclude=[str(tmp_path / name)])


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
