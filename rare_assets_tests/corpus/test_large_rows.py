"""A row of more than MAX_ROW_BYTES is a reject, is never held in memory, and harms no row beside it."""

import csv
import io
import json
import random
import subprocess
import sys

import polars as pl
import pytest

from rare_assets.corpus.formats import UnreadableFile
from rare_assets.corpus.formats import base as source_formats
from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents

LIMIT = 300
SUFFIXES = ["jsonl", "json", "csv", "parquet"]


@pytest.fixture
def limit(monkeypatch):
    """Rows of 300 bytes, read in parts that end anywhere in what is passed over."""
    monkeypatch.setattr(source_formats, "MAX_ROW_BYTES", LIMIT)
    monkeypatch.setattr(source_formats, "CHUNK", 64)


def write(path, texts):
    if path.suffix == ".parquet":
        pl.DataFrame({"text": texts}).write_parquet(path)
    elif path.suffix == ".csv":
        file = io.StringIO()
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
        path.write_text(file.getvalue(), newline="")
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"text": text} for text in texts]))
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def read(path, rows_per_shard=1000):
    """All rows in order: the text, or the reason for which there is none."""
    source = CorpusSource(str(path), rows_per_shard)
    rows = [
        row for shard in sorted(source.shards(), key=lambda s: s.part) for row in source.read(shard)
    ]
    assert [row.row for row in rows] == list(range(1, len(rows) + 1))
    return [row.problem or row.value["text"] for row in rows]


HARD = ['say "no" \\ {[}],', "two\nlines,\r\n", '\\\\"', "é€\u2028", "}]", '""""', "plain "]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows_per_shard", [1, 2, 1000])
def test_only_large_rows_are_left_out_wherever_they_stand(limit, tmp_path, suffix, rows_per_shard):
    rng = random.Random(7)
    texts = [rng.choice(HARD) * rng.choice([1, 2, 3, 555, 777]) + str(n) for n in range(60)]
    large = {n for n, text in enumerate(texts) if len(text) > LIMIT}
    assert 10 < len(large) < 50
    path = tmp_path / f"a.{suffix}"
    write(path, texts)
    assert read(path, rows_per_shard) == [
        "too_large" if n in large else text for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "texts", [["x" * 999], ["x" * 999, "b"], ["a", '"' * 999], ["", "\n" * 999]]
)
def test_the_first_and_the_last_row_may_be_large(limit, tmp_path, suffix, texts):
    path = tmp_path / f"a.{suffix}"
    write(path, texts)
    assert read(path) == ["too_large" if len(text) > LIMIT else text for text in texts]


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2, LIMIT + 3])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_of_just_so_many_bytes_is_read(limit, tmp_path, size, end):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "x" * (size - len('{"text": ""}') - len(end))}) + end
    assert len(line) == size
    path.write_text('{"text": "b"}\n' + line)
    assert (read(path)[1] == "too_large") == (size > LIMIT)


def test_the_reject_says_how_large_it_is(limit, tmp_path):
    write(tmp_path / "a.jsonl", ["a small one", "x" * 1000])
    source = CorpusSource(str(tmp_path), 10)
    (shard,) = source.shards()
    produced = read_documents(source.read(shard), file=shard.file)
    assert produced.rows["text"].to_list() == ["a small one"]
    assert produced.rejects.rows() == [
        ("a.jsonl", 2, "too_large", "1,013 bytes; a row of more than 300 is not read")
    ]


def test_a_large_text_file_is_a_reject(limit, tmp_path):
    (tmp_path / "a.md").write_text("# T\n" + "x" * 996)
    assert read(tmp_path / "a.md") == ["too_large"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"text": "a"}, {"text" "b"}, ' + '{"text": "c"}, ' * 99 + '{"text": "d"}]'),
        ("a.json", '[{"text": "' + "x" * 999 + '"}'),
        ("a.json", '[{"text": "' + "x" * 999),
        ("a.json", '[{"text": "' + "x" * 999 + '"}}]'),
    ],
)
def test_a_broken_file_is_no_large_row(limit, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableFile):
        CorpusSource(str(tmp_path / name), 10).shard(name)


READ = """
import resource, sys
from rare_assets.corpus.source import CorpusSource
source = CorpusSource(sys.argv[1], 1000)
(shard,) = source.shards()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
problems = [row.problem for row in source.read(shard)]
assert problems == [None, "too_large", None], problems
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(("suffix", "share"), [("jsonl", 0.8), ("parquet", 2.6)])
def test_a_large_row_takes_no_more_memory_than_its_format_needs(tmp_path, suffix, share):
    path = tmp_path / f"a.{suffix}"
    megabytes = 200
    write(path, ["a small one", "é" * (megabytes << 19), "another one"])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < share * megabytes
