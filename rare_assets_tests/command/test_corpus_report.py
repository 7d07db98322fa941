"""`rare-assets report`, as a user types it."""

import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.storage.tables import ParquetTables, TableDamaged
from rare_assets_tests.exports.corpus import document, store


@pytest.fixture
def report(nothing_set, tmp_path):
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return lambda *arguments: CliRunner().invoke(main, ["report", *arguments])


def test_it_writes_the_page_where_it_says(report, tmp_path):
    tables = ParquetTables(str(tmp_path / "storage"))
    store(tables, {"a.jsonl": [document(n) for n in range(20)]})
    done = report()
    assert done.exit_code == 0, done.output
    page = tmp_path / "storage/corpus_report/report.html"
    assert f"The report on 1 shards: {page}" in done.output
    assert "Corpus report" in page.read_text()
    out = tmp_path / "elsewhere" / "r.html"
    out.parent.mkdir()
    # The second time over the first.
    assert [report("--out", str(out)).exit_code for _ in range(2)] == [0, 0]
    assert "Corpus report" in out.read_text()


@pytest.mark.parametrize("end", [0, 400, None])
def test_tables_that_can_not_be_read_are_named_and_marked(report, tmp_path, end):
    tables = ParquetTables(str(tmp_path / "storage"))
    store(tables, {"a.jsonl": [document(n) for n in range(20)]})
    path = tables.path("reasoning", "a.jsonl")
    content = path.read_bytes()
    # Where the end stays, pages are spoiled and the footer is whole.
    path.write_bytes(content[:4] + bytes(2000) + content[2004:] if end is None else content[:end])
    done = report()
    assert done.exit_code == 0, done.output
    assert (
        "warning Tables could not be read and are not in it: reasoning, shard a.jsonl. "
        "`rare-assets run` makes damaged tables again." in " ".join(done.output.split())
    )
    with pytest.raises(TableDamaged):
        tables.provenance("reasoning", "a.jsonl")


def test_a_file_of_somebody_else_is_left_alone(report, tmp_path):
    tables = ParquetTables(str(tmp_path / "storage"))
    store(tables, {"a.jsonl": [document(n) for n in range(4)]})
    (tmp_path / "notes.html").write_text("mine")
    done = report("--out", str(tmp_path / "notes.html"))
    assert done.exit_code == 1
    assert "was not written by rare-assets" in done.output
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_a_page_that_can_not_be_written_leaves_nothing(report, tmp_path):
    tables = ParquetTables(str(tmp_path / "storage"))
    store(tables, {"a.jsonl": [document(n) for n in range(4)]})
    (tmp_path / "taken").write_text("a file")
    done = report("--out", str(tmp_path / "taken" / "r.html"))
    assert done.exit_code == 1
    assert "can't be" in done.output
    assert (tmp_path / "taken").read_text() == "a file"


def test_without_anything_stored_it_says_what_to_do(report, tmp_path):
    done = report("--out", str(tmp_path / "r.html"))
    assert done.exit_code == 1
    assert "holds no documents. Make them first with 'rare-assets run'" in done.output
    assert not (tmp_path / "r.html").exists()
