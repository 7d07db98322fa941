"""The README says what is true: settings, files, commands and columns that it names exist."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.schemas import TABLES
from rare_assets.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_each_setting_stands_in_the_table_with_its_default_and_meaning(name):
    field = Settings.model_fields[name]
    [row] = [
        line for line in README.splitlines() if line.startswith(f"| `{field.validation_alias}`")
    ]
    _, _, default, meaning, _ = (cell.strip() for cell in row.split("|"))
    assert meaning == field.description
    if name != "source":
        assert default == ("" if field.default is None else f"`{field.default}`")


def test_the_table_has_no_setting_that_does_not_exist():
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", README, flags=re.MULTILINE))
    assert named == {field.validation_alias for field in Settings.model_fields.values()}


@pytest.mark.parametrize("marker", ["main", "test"])
def test_the_two_commands_are_one_line_each(marker):
    block = README.split(f"<!-- {marker} command -->")[1].split("<!-- end -->")[0]
    lines = [line for line in block.strip().splitlines() if not line.startswith("```")]
    assert len(lines) == 1


@pytest.mark.parametrize("picture", re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README))
def test_pictures_exist(picture):
    assert (ROOT / picture).is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(rare_assets/[\w./]+)`", README))))
def test_files_named_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"rare-assets (\w+)", README))))
def test_commands_named_exist_and_explain_themselves(command):
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output


def test_columns_named_exist():
    for table in TABLES.values():
        [row] = [line for line in README.splitlines() if line.startswith(f"| `{table.name}` |")]
        columns = re.sub(r"\{.*?\}", "", row.split("|")[3].strip(" `"))
        assert set(columns.split(", ")) <= set(table.schema.column_names())
