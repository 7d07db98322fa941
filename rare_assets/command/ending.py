"""How a command ends that can't go on."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rare_assets.command.stops import STOPS, interrupt, silence_pool


@contextmanager
def one_message(makes_runs: bool = False) -> Iterator[None]:
    """End a command with one message for a stop, and for what a user can mend; all else is a bug.

    Args:
        makes_runs: whether the command will make runs in processes of its own.
    """
    from rare_assets.resources.processes import imports_uncollected

    with imports_uncollected():
        if makes_runs:
            from rare_assets.resources.fork_server import fork_server

            fork_server()
        # What all commands go on to import.
        from rare_assets.automation.instance import home_error
        from rare_assets.command.explain import UnknownQuestion
        from rare_assets.command.queue import NoQueue
        from rare_assets.command.run import NothingToDo
        from rare_assets.command.target import TargetError
        from rare_assets.corpus.formats import SourceError
        from rare_assets.exports.options import ExportError
        from rare_assets.files.stored_bytes import StorageError
        from rare_assets.operators.templates import TemplateError
        from rare_assets.pilot.corpus import PilotError
        from rare_assets.resources.dagster_internals import keep_migrations
        from rare_assets.retriever import ElasticsearchError, IndexConflict
        from rare_assets.stages.options import OptionsError
        from rare_assets.teacher import PriceError, TeacherStopped

        keep_migrations()
    silence_pool()

    # A service manager's stop ends the runs in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as stopped:
        # All is ended in order by now: another stop would only break off the interpreter's own end.
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        click.echo(
            "\nStopped. What was made and every answer received is stored: run the same command "
            "again to go on.",
            err=True,
        )
        sys.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))
    except (
        ElasticsearchError,
        ExportError,
        IndexConflict,
        NoQueue,
        NothingToDo,
        OptionsError,
        PilotError,
        PriceError,
        SourceError,
        TeacherStopped,
        StorageError,
        TargetError,
        TemplateError,
        UnknownQuestion,
    ) as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        if said := home_error(error) or files_error(error):
            raise click.ClickException(said) from error
        raise


def files_error(error: BaseException) -> str | None:
    """Return what to tell a user of a process that may have no more files open, or for whose temporary files there
    is no room; None for any other error."""
    from rare_assets.automation.instance import causes

    kept = "What was made and every answer received is stored."
    for cause in causes(error):
        if not isinstance(cause, OSError):
            continue
        if cause.errno in (errno.EMFILE, errno.ENFILE):
            return (
                f"{cause.strerror}: raise the limit (`ulimit -n 1024`), or lower RARE_SHARDS_AT_ONCE and "
                f"RARE_MAX_CONCURRENCY. {kept}"
            )
        # A file of storage, exports or DAGSTER_HOME is named before.
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({cause.filename})" if cause.filename else ""
            return (
                f"{cause.strerror}{where}: make room for temporary files, or set RARE_CACHE to a folder with room. "
                f"{kept}"
            )
    return None
