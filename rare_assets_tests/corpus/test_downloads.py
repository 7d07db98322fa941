"""Sources as people download them: what comes beside the documents, and files that are not what their name says."""

import json

import polars as pl
import pytest

from rare_assets.corpus.formats import SourceError
from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pl.DataFrame({"text": [name]}).write_parquet(path)
        else:
            path.write_text(json.dumps({"text": name}))


def files(folder):
    return [file.path for file in CorpusSource(str(folder), 10).files()]


@pytest.mark.parametrize(
    ("names", "documents"),
    [
        (
            ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels/dev.tsv"],
            ["corpus.jsonl"],
        ),
        (
            [
                "nq/corpus.jsonl.gz",
                "nq/queries.jsonl.gz",
                "nq/qrels/test.tsv",
                "mine/queries.jsonl",
            ],
            ["mine/queries.jsonl", "nq/corpus.jsonl.gz"],
        ),
        (
            ["README.md", "dataset_infos.json", ".gitattributes", "LICENSE", "data/a.parquet"],
            ["data/a.parquet"],
        ),
        (["train/data.arrow", "train/state.json", "train/dataset_info.json"], ["train/data.arrow"]),
        (["README.md", "guide.md", "LICENSE", "CITATION.cff"], ["README.md", "guide.md"]),
        (["README.md", "LICENSE.txt", "CHANGELOG.md", "b.csv.gz"], ["b.csv.gz"]),
        (["README.md", "notes.txt", "a.jsonl"], ["README.md", "a.jsonl", "notes.txt"]),
        (["queries.jsonl", "state.json"], ["queries.jsonl"]),
        (["state.json"], ["state.json"]),
    ],
)
def test_what_comes_beside_the_documents_is_none(tmp_path, names, documents):
    make(tmp_path, *names)
    assert files(tmp_path) == documents


def test_a_file_that_is_named_itself_is_read_whatever_its_name(tmp_path):
    make(tmp_path, "README.md")
    assert files(tmp_path / "README.md") == ["README.md"]


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("Delta Lake", "_delta_log/00000000000000000000.json"),
        ("Iceberg", "metadata/v1.metadata.json"),
        ("Hudi", ".hoodie/hoodie.properties"),
    ],
)
@pytest.mark.parametrize("place", ["", "sales/"])
def test_a_table_that_keeps_deleted_rows_is_refused_with_a_way(tmp_path, name, log, place):
    make(tmp_path, f"{place}data/a.parquet", f"{place}{log}")
    where = "the folder sales" if place else "this"
    with pytest.raises(SourceError, match=f"{where} is a {name} table.*set RARE_SOURCE"):
        files(tmp_path)


ROWS = [{"id": n, "text": f'Text {n} of {{many}} [here], "so"'} for n in range(5)]


@pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS),
        "\n\n".join(json.dumps(row, indent=1) for row in ROWS) + "\n",
    ],
)
def test_other_layouts_of_json_under_jsonl_are_read(tmp_path, content, rows_per_shard):
    (tmp_path / "a.jsonl").write_text(content)
    source = CorpusSource(str(tmp_path), rows_per_shard)
    rows = [row for shard in source.shards() for row in source.read(shard)]
    assert [(row.row, row.value) for row in rows] == list(enumerate(ROWS, 1))


def broken_parquet(path, **options):
    """Strings of which the second is no UTF-8, written by another program."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    texts = pa.array([b"one", b"caf\xe9", "drei ü".encode()], pa.binary())
    strings = pa.StringArray.from_buffers(3, texts.buffers()[1], texts.buffers()[2])
    table = {"text": strings, "title": ["a", "b", "ü"], "n": [1, 2, 3]}
    if options.pop("nested", False):
        table["doc"] = pa.StructArray.from_arrays([table.pop("text")], ["text"])
    pyarrow.parquet.write_table(pa.table(table), path, **options)


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"store_schema": False}, {"nested": True}]
)
@pytest.mark.parametrize("rows_per_shard", [1, 100])
def test_a_broken_string_of_parquet_costs_its_row(tmp_path, options, rows_per_shard):
    broken_parquet(tmp_path / "a.parquet", **options)
    columns = "text=doc.text" if options.get("nested") else None
    source = CorpusSource(str(tmp_path), rows_per_shard, columns=columns)
    rows = [row for shard in source.shards() for row in source.read(shard)]
    produced = read_documents(rows, file="a.parquet", columns=source.columns)
    assert produced.rows.select("text", "title").rows() == [("one", "a"), ("drei ü", "ü")]
    assert produced.rejects.select("row", "reason").rows() == [(2, "not_utf8")]
    assert "caf\\udce9" in produced.rejects["detail"][0]


def test_binary_text_of_parquet_is_read_as_utf8(tmp_path):
    pl.DataFrame(
        {"text": [b"one", b"caf\xe9", "ü".encode()], "id": [b"a", b"\xff", b"c"]}
    ).write_parquet(tmp_path / "a.parquet")
    source = CorpusSource(str(tmp_path), 10)
    produced = read_documents(source.read(source.shards()[0]), file="a.parquet")
    assert produced.rows.select("doc_id", "text").rows() == [("a", "one"), ("c", "ü")]
    assert produced.rejects["reason"].to_list() == ["not_utf8"]


@pytest.mark.parametrize(
    "name", ["with a space", "new\nline", "Ünïcode 日本", "x" * 240, "quote\"'`$(x)", "a%2Fb"]
)
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "html"])
def test_names_of_any_kind_are_read_and_told(tmp_path, name, suffix):
    content = {"txt": "words", "jsonl": '{"text": "words"}', "html": "<p>words"}[suffix]
    (tmp_path / f"{name}.{suffix}").write_text(content)
    source = CorpusSource(str(tmp_path), 10)
    (shard,) = source.shards()
    produced = read_documents(source.read(shard), file=shard.file)
    assert produced.rows["text"].to_list() == ["words"]
    assert produced.rows["source"].to_list() == [f"{name}.{suffix}:1"]
