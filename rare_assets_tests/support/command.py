"""The `rare-assets` command as a process of its own, with a home, a source and an environment of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import dagster as dg

from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.graph import API_KEY, MODEL, clean_environment

COMMAND = [sys.executable, "-m", "rare_assets.command.cli"]
# Ends a command that hangs; no run of these tests takes a tenth of it.
TOO_LONG = 240


class Command:
    """Runs `rare-assets` in `folder`, with `folder/corpus` as its source unless told otherwise.

    What it has printed so far, whatever the run, is in `printed`.
    """

    def __init__(self, folder: Path, endpoint: str, **settings: str) -> None:
        self.folder = folder
        self.corpus = folder / "corpus"
        self.corpus.mkdir(parents=True, exist_ok=True)
        self.printed = ""
        self.environment = {
            **clean_environment(),
            "RARE_SOURCE": "corpus",
            "RARE_MODEL": MODEL,
            "OPENAI_BASE_URL": endpoint,
            "OPENAI_API_KEY": API_KEY,
            "RARE_MAX_CONCURRENCY": "8",
            # Each shard more at once is a process more to start.
            "RARE_SHARDS_AT_ONCE": "2",
            "PYTHONFAULTHANDLER": "1",
            **settings,
        }

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; stdout and stderr come together in `stdout`."""
        with self.start(*arguments, **settings) as process:
            try:
                printed, _ = process.communicate(timeout=TOO_LONG)
            except BaseException:
                process.kill()
                raise
        self.printed += printed
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def run_on_terminal(self, *arguments: str, columns: int = 100) -> tuple[int, str]:
        """Run on a terminal of that width. Returns the exit code and all that was shown."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self.environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        # A terminal whose last program has gone reads as an error.
        with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
            while part := terminal.read(65536):
                shown += part
        return process.wait(TOO_LONG), shown.decode()

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start it as the leader of a process group, as a shell does."""
        return Forked(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def tables(self) -> ParquetTables:
        storage = self.environment.get("RARE_STORAGE", ".rare/storage")
        return ParquetTables(storage if "://" in storage else str(self.folder / storage))

    @property
    def home(self) -> Path:
        return self.folder / ".rare" / "dagster"

    def runs(self) -> list[dg.DagsterRun]:
        """The runs that the instance knows, the latest first."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return list(instance.get_runs())

    def n_rows(self, table: str) -> dict[str, int]:
        """Rows of each shard of a table, by the name of its file."""
        folder = self.folder / os.fspath(self.tables.root) / table
        return {
            path.stem: stored.n_rows
            for path in sorted(folder.glob("*.parquet"))
            if (stored := self.tables.provenance(table, path.stem)) is not None
        }
