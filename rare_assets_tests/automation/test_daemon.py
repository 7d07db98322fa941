"""The daemon that looks after backfills every 2 seconds, on a Dagster that has what it changes or not."""

import subprocess
import sys

import pytest
from dagster._cli import dev
from dagster._daemon import cli, controller

from rare_assets.resources import dagster_internals
from rare_assets.resources.dagster_internals import run_daemon, run_dev


@pytest.mark.processes
def test_it_takes_the_commands_of_dagsters_own():
    command = [sys.executable, "-m", "rare_assets.automation.daemon", "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--workspace" in done.stdout


@pytest.fixture(autouse=True)
def dagsters_own(monkeypatch):
    """What a daemon in this process changes is as before after each test."""
    for module, name in (
        (cli, "daemon_controller_from_instance"),
        (controller, "DEFAULT_DAEMON_INTERVAL_SECONDS"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))


def test_it_asks_its_instance_over_kept_connections(monkeypatch, tmp_path):
    asked = []

    def look(instance, **_):
        storages = (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
        asked.append([{"_connect", "connect"} & vars(each).keys() for each in storages])
        raise KeyboardInterrupt

    (tmp_path / "defs.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(cli, "daemon_controller_from_instance", look)
    with pytest.raises(SystemExit, match="0"):
        run_daemon(["run", "-f", str(tmp_path / "defs.py")])
    assert asked == [[{"_connect"}, {"connect"}, {"connect"}]]


def test_backfills_are_looked_after_every_two_seconds(monkeypatch):
    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", 30)
    with pytest.raises(SystemExit, match="0"):
        run_daemon(["run", "--help"])
    assert controller.DEFAULT_DAEMON_INTERVAL_SECONDS == 2


def test_without_an_interval_to_set_it_is_dagsters_daemon(monkeypatch, caplog):
    monkeypatch.delattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS")
    with pytest.raises(SystemExit, match="0"):
        run_daemon(["run", "--help"])
    assert "no interval to set" in caplog.text


@pytest.fixture
def started(monkeypatch):
    """The processes that `dagster dev` would start."""
    commands = []

    def start(command, **_):
        commands.append(command)

    def command(args, standalone_mode):
        dev.open_ipc_subprocess([sys.executable, "-m", "dagster_webserver", *args])
        dev.open_ipc_subprocess([sys.executable, "-m", "dagster._daemon", "run", *args])

    monkeypatch.setattr(dev, "open_ipc_subprocess", start)
    monkeypatch.setattr(dev, "dev_command", command)
    return commands


def test_dagster_dev_starts_ours_in_place_of_its_own(started):
    run_dev(["-p", "1"])
    modules = [command[2] for command in started]
    assert modules == ["dagster_webserver", "rare_assets.automation.daemon"]


def test_a_dagster_dev_that_starts_it_in_another_way_is_left_alone(monkeypatch, caplog):
    ran = []
    monkeypatch.delattr(dev, "open_ipc_subprocess")
    monkeypatch.setattr(dev, "dev_command", lambda args, standalone_mode: ran.append(args))
    dagster_internals.run_dev(["-p", "1"])
    assert ran == [["-p", "1"]]
    assert "in another way" in caplog.text
