"""`rare-assets export`, as a user types it."""

import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.exports.options import ExportOptions
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.exports.corpus import document, store


@pytest.fixture
def export(nothing_set, tmp_path):
    """Runs the command on a stored corpus of 20 documents."""
    tables = ParquetTables(str(tmp_path / "storage"))
    store(tables, {"a.jsonl": [document(n) for n in range(20)]})
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    nothing_set.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(main, ["export", *arguments])


def test_it_writes_prints_and_proves(export, tmp_path):
    done = export("--format", "verl", "--format", "messages", "--test-share", "0.3")
    assert done.exit_code == 0, done.output
    assert "10 no gold answer" in done.output
    assert "1 of 1 shards written" in done.output
    assert "No document, twin or near-duplicate is on two sides" in done.output
    assert (tmp_path / "storage/exports/README.md").exists()
    again = export("--format", "verl", "--format", "messages", "--test-share", "0.3")
    assert "0 of 1 shards written" in again.output


def test_a_format_that_no_row_fits_is_an_error_that_counts(export, tmp_path):
    done = export("--format", "verl", "--min-score-gap", "0.9", "--out", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "score gap at least 0.9: 0 of 20" in done.output
    assert not (tmp_path / "out/verl").exists()
    assert not (tmp_path / "out/README.md").exists()


def test_a_corpus_of_empty_shards_has_no_row_that_fits(nothing_set, tmp_path):
    tables = ParquetTables(str(tmp_path / "storage"))
    for table in TABLES:
        tables.write(table, "a.jsonl", TABLES[table].schema.create_empty())
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    done = CliRunner().invoke(main, ["export"])
    assert done.exit_code == 1
    assert "No row fits.\nsentence-transformers: no question has negatives." in done.output
    assert not (tmp_path / "storage/exports/README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--format", "alpaca"], "There is no format 'alpaca'", 1),
        (["--shard", "z"], "No hard negatives are stored for z", 1),
        (["--test-share", "0.6", "--validation-share", "0.5"], "something to train on", 2),
        (
            ["--out", "nope://user:secretpw@bucket/out"],
            "Error: nope://bucket/out can't be opened",
            1,
        ),
        (["--thinking", "aloud"], "'aloud' is not one of", 2),
    ],
)
def test_what_can_not_be_done_says_so(export, arguments, said, code):
    done = export(*arguments)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_config_file_gives_options_and_the_command_line_goes_over_it(export, tmp_path):
    import json

    config = tmp_path / "rare.yaml"
    config.write_text("ops: {exports: {config: {split_seed: 7, data_source: mine}}}")
    done = export("--format", "verl", "--config", str(config), "--data-source", "ours")
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "storage/exports/manifest/verl/a.jsonl.json").read_text())
    options = json.loads(manifest["made_from"]["options"])
    assert (options["split_seed"], options["data_source"]) == (7, "ours")


def test_every_option_of_an_export_is_one_of_the_command(export):
    shown = export("--help").output
    for name in ExportOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in shown
