"""`rare-assets dev` where it can't start; where it can, the browser's tests start it."""

import re
from pathlib import Path

from click.testing import CliRunner

import rare_assets
from rare_assets.command import cli

CONSTRAINTS = Path(rare_assets.__file__).parent / "deploy" / "constraints.txt"


def test_without_the_ui_it_says_what_to_install(nothing_set, tmp_path):
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    nothing_set.setattr(cli, "find_spec", lambda name: None)
    done = CliRunner().invoke(cli.main, ["dev"])
    assert done.exit_code == 1
    assert "pip install 'rare-assets[ui]'" in done.output
    assert not (tmp_path / "home").exists()


def test_the_constraints_name_one_release_of_all_of_dagsters_packages():
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines()[1:])
    release = re.fullmatch(r"1\.(\d+)\.(\d+)", pinned["dagster"])
    # Their integrations count from 0.16 where Dagster counts from 1.0.
    integrations = f"0.{int(release[1]) + 16}.{release[2]}"
    of_dagster = {name: version for name, version in pinned.items() if name.startswith("dagster")}
    assert set(of_dagster) >= {"dagster-webserver", "dagster-postgres", "dagster-celery"}
    assert set(of_dagster.values()) == {pinned["dagster"], integrations}
