"""The `rare-assets` command: the main job and the UI on one instance, from a terminal."""

from __future__ import annotations

import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from rare_assets.command.ending import one_message
from rare_assets.command.export_options import export_options, read_options
from rare_assets.settings import Settings
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from rare_assets.command.target import Target

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="rare-assets")
@click.option(
    "-m",
    "--module",
    metavar="MODULE",
    help="Module of your own definitions, which hold a RareDataset; its resources and options are used.",
)
@click.option(
    "--dataset", metavar="NAME", help="Which dataset of that module, where there are several."
)
@click.pass_context
def main(context: click.Context, module: str | None, dataset: str | None) -> None:
    """RARE data from a corpus: documents -> questions -> BM25 hard negatives -> reasoning.

    Settings come from the environment (RARE_SOURCE, RARE_STORAGE, RARE_MODEL, ...; see the README).
    With nothing set, the bundled sample corpus, an embedded teacher and an embedded index are used.

    \b
    Examples:
      rare-assets pilot --source ./corpus              a small sample first, on one page
      rare-assets run --source ./corpus --dry-run      what it would ask, and what that costs
      rare-assets run --source ./corpus                make it; again goes on where it was
      rare-assets status --source ./corpus             what is made, what it has cost
      rare-assets dev --source ./corpus                the same runs in the Dagster UI
      rare-assets -m my_project.definitions --dataset legal run     a dataset of your own project
    """
    context.obj = (module, dataset)
    for printed in (sys.stdout, sys.stderr):
        # A corpus has letters that a terminal may not have.
        if isinstance(printed, io.TextIOWrapper):
            printed.reconfigure(errors="replace")


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the tables go.")
@click.option(
    "--shard", "shards", multiple=True, metavar="KEY", help="Only this shard; repeatable."
)
@click.option(
    "--all", "redo_all", is_flag=True, help="Materialize everything anew, changed or not."
)
@click.option(
    "--retry-rejects",
    is_flag=True,
    help="Ask again where no stored answer of the teacher can be used, and only there.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML of Dagster run config, as in the Launchpad (ops: {questions: {config: {...}}}).",
)
@click.option(
    "--submit",
    is_flag=True,
    help="Hand the runs to the queue of the Dagster instance, so that all its workers execute them.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be made, with requests, tokens and cost."
)
def run(
    source: str | None,
    storage: str | None,
    shards: tuple[str, ...],
    redo_all: bool,
    retry_rejects: bool,
    config: Path | None,
    submit: bool,
    dry_run: bool,
) -> None:
    """Register shards and materialize what is missing or has changed, in the right order.

    \b
    Examples:
      rare-assets run                                  the sample corpus, no key, no server
      rare-assets run --source ./corpus --storage s3://bucket/rare
      rare-assets run --shard biology.jsonl            one shard (documents and index: all)
      rare-assets run --all                            everything anew; stored answers are free
      rare-assets run --retry-rejects                  ask again for rejects, of a mended teacher
      rare-assets run --dry-run                        what it would ask, and what that costs
      rare-assets run --submit                         by the workers of a deployment

    Every answer of the teacher is stored: a run that was stopped goes on where it was.
    On a terminal it shows what is done of all, the rate, the time left and the dollars so far; in a
    log file the same as plain lines. Exits 1 if anything failed, 2 on wrong usage, 130 if it was
    interrupted, 143 if it was terminated. Runs that were submitted go on; the same command follows them.
    """
    if submit and (source or storage):
        raise click.UsageError(
            "The workers of a deployment read their own RARE_SOURCE and RARE_STORAGE: start this command where "
            "they are set alike, without --source and --storage."
        )
    _set(RARE_SOURCE=source, RARE_STORAGE=storage)
    with one_message(makes_runs=not (submit or dry_run)):
        from rare_assets.command.run import RunCommand

        run_config = _read_config(config)
        if retry_rejects:
            _retry_rejects(run_config)
        target = _target(source, storage)
        job = RunCommand(run_config, shards, redo_all, submit, target)
        succeeded = job.estimate() if dry_run else job.execute()
    sys.exit(0 if succeeded else 1)


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the answers are stored.")
@click.option(
    "--documents",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Documents of the sample.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--config",
    "configs",
    multiple=True,
    metavar="FILE.yaml",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A configuration: YAML of Dagster run config; repeatable. Default: the deployment's own.",
)
@click.option(
    "--judge",
    is_flag=True,
    help="Have the deployment's own teacher compare every two configurations, in both orders.",
)
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: pilot/pilot.html in the storage.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be asked, and what that costs.")
def pilot(
    source: str | None,
    storage: str | None,
    documents: int,
    seed: int,
    configs: tuple[Path, ...],
    judge: bool,
    out: Path | None,
    dry_run: bool,
) -> None:
    """Try up to four configurations on a sample of documents, and show them side by side on one page.

    \b
    Examples:
      rare-assets pilot --source ./corpus              what the deployment's own settings make
      rare-assets pilot --config small.yaml --config large.yaml --judge
      rare-assets pilot --config a.yaml --config b.yaml --documents 50 --out pilot.html

    A configuration holds options (ops: {questions: {config: {...}}}) and, where they differ, model and
    prompts (resources: {teacher: {config: {model: ..., prompts: ...}}}), as `rare-assets run --config`
    takes it. Writes no table; answers are stored, so that a run pays only for the rest. Exits 1 if a
    configuration did not come to its end.
    """
    _set(RARE_SOURCE=source, RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.pilot import run_pilot
        from rare_assets.pilot.configuration import names_of

        run_configs = dict(
            zip(names_of([str(path) for path in configs]), map(_read_config, configs), strict=True)
        )
        succeeded = run_pilot(
            _target(source, storage),
            run_configs,
            documents=documents,
            seed=seed,
            judge=judge,
            out=out,
            dry_run=dry_run,
        )
    sys.exit(0 if succeeded else 1)


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the tables go.")
def register(source: str | None, storage: str | None) -> None:
    """Register the source's shards as partitions, and make nothing. Costs nothing.

    Shards whose files are gone are told, and removed where RARE_REMOVE_DELETED_SHARDS is set.

    \b
    Example:
      rare-assets register --source ./corpus
    """
    _set(RARE_SOURCE=source, RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.run import register_shards

        register_shards(_target(source, storage))


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the tables go.")
def status(source: str | None, storage: str | None) -> None:
    """Show what is made, what is missing or has changed, and what the teacher has cost so far.

    \b
    Example:
      rare-assets status --storage s3://bucket/rare
    """
    _print_status(source, storage, each_shard=False)


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the tables go.")
def shards(source: str | None, storage: str | None) -> None:
    """List each shard of the source: rows, rejects and state of every stage, and its cost so far.

    \b
    Example:
      rare-assets shards --source ./corpus
    """
    _print_status(source, storage, each_shard=True)


@main.command(context_settings=CONTEXT)
@click.option("--storage", metavar="T", help="Folder or URL where the tables are.")
@click.option(
    "--format", "formats", multiple=True, metavar="F", help="Only this format; repeatable."
)
@click.option("--out", metavar="DIR", help="Folder or URL. Default: exports/ in the storage.")
@click.option(
    "--shard", "shards", multiple=True, metavar="KEY", help="Only this shard; repeatable."
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML of Dagster run config: options in ops: {exports: {config: {...}}}.",
)
@export_options
def export(
    storage: str | None,
    formats: tuple[str, ...],
    out: str | None,
    shards: tuple[str, ...],
    config: Path | None,
    **options: Any,
) -> None:
    """Write what is stored as training files, split for validation and test, with a data card.

    \b
    Examples:
      rare-assets export                               all formats, to exports/ in the storage
      rare-assets export --format sentence-transformers --num-neg 3
      rare-assets export --format messages --answer-correct correct --thinking reasoning_content
      rare-assets export --exclude ./eval/nfcorpus --out s3://bucket/training

    Formats: sentence-transformers, cross-encoder, flag-embedding, tevatron, reasonir, messages,
    prompt-completion, llama-factory, verl, rare, dataflow, beir. Costs nothing, asks no model; only
    shards that changed are written again. Exits 1 if a format that was named has no row.
    """
    _set(RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.export import run_export

        target = _target(None, storage)
        chosen = read_options(options, _read_config(config), target)
        holds = run_export(target, formats, out, shards, chosen)
    sys.exit(0 if holds else 1)


@main.command(context_settings=CONTEXT)
@click.argument("question_id")
@click.option("--storage", metavar="T", help="Folder or URL where the tables are.")
def explain(question_id: str, storage: str | None) -> None:
    """Print everything that made a row: source, question, candidates, order shown, raw answers, versions.

    \b
    Example:
      rare-assets explain 4f2a9c1e-q0

    QUESTION_ID stands in the tables and in the .ids.parquet files beside training files; one that was
    rejected is explained, too. Costs nothing, asks no model: the corpus is ranked once more for it.
    """
    _set(RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.explain import run_explain

        run_explain(_target(None, storage), question_id)


@main.command(context_settings=CONTEXT)
@click.option("--storage", metavar="T", help="Folder or URL where the tables are.")
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: corpus_report/report.html in the storage.",
)
def report(storage: str | None, out: Path | None) -> None:
    """Write one self-contained page on all that is stored: totals, rejects, cost, plots, examples.

    \b
    Examples:
      rare-assets report
      rare-assets report --out report.html

    Costs nothing, asks no model. The page opens from disk, without a network.
    """
    _set(RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.corpus_report import run_report

        run_report(_target(None, storage), out)


@main.command(context_settings=CONTEXT)
@click.option("--source", metavar="S", help="Folder, file, pattern or URL of the corpus.")
@click.option("--storage", metavar="T", help="Folder or URL where the tables go.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
def dev(source: str | None, storage: str | None, host: str, port: int) -> None:
    """Register the shards and open the Dagster UI on the instance that `rare-assets run` uses.

    \b
    Example:
      rare-assets dev --port 3333
    """
    if find_spec("dagster_webserver") is None:
        raise click.ClickException(
            "The Dagster UI is not installed here: pip install 'rare-assets[ui]' brings it."
        )
    _set(RARE_SOURCE=source, RARE_STORAGE=storage)
    with one_message():
        from rare_assets.automation.instance import graph_page, workspace_of
        from rare_assets.command.run import register_shards
        from rare_assets.corpus.formats import SourceError
        from rare_assets.resources.dagster_internals import run_dev

        target = _target(source, storage)
        place = target.place
        try:
            register_shards(target)
        except SourceError as error:
            click.echo(f"No shard was registered: {error}", err=True)
        os.environ.setdefault("RARE_UI_URL", f"http://{host}:{port}")
        # Dagster's own start page folds every group of assets.
        page = graph_page(place.location, place.dataset.named("rare_data"))
        click.echo(f"The graph:  http://{host}:{port}{page}")
        workspace = workspace_of(place.module, place.location)
        run_dev(["-w", str(workspace), "-h", host, "-p", str(port)])


@main.command(context_settings=CONTEXT)
@click.argument("kind", type=click.Choice(["docker-compose", "helm", "celery"]))
@click.option(
    "--out",
    metavar="DIR",
    default=".",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.",
)
def deploy(kind: str, out: Path) -> None:
    """Write the files of a deployment: images, Dagster instance, services. They hold no secret.

    \b
    Examples:
      rare-assets deploy docker-compose --out deployment
      rare-assets deploy helm                          values for Dagster's chart
      rare-assets deploy celery                        as docker-compose, with Redis and workers

    Files that somebody has changed are never overwritten. What to do with them stands at the head of
    compose.yaml and values.yaml.
    """
    from rare_assets.command.deploy import DeployError, write_deployment

    try:
        for path, is_new in write_deployment(kind, out):
            click.echo(f"{path}{'' if is_new else ' (as it was)'}")
    except DeployError as error:
        raise click.ClickException(str(error)) from error


def _print_status(source: str | None, storage: str | None, *, each_shard: bool) -> None:
    _set(RARE_SOURCE=source, RARE_STORAGE=storage)
    with one_message():
        from rare_assets.command.run import RunCommand

        RunCommand({}, target=_target(source, storage)).print_status(each_shard)


def _target(source: str | None, storage: str | None) -> Target:
    """Open what the command is for. Options that it can't follow are refused.

    Raises:
        TargetError, OptionsError: see `open_target`.
    """
    from rare_assets.command.target import TargetError, open_target

    target = open_target(*click.get_current_context().find_root().obj)
    for option, given, role, field in (
        ("--source", source, "corpus", "url"),
        ("--storage", storage, "storage", "root"),
    ):
        own = getattr(target.resources[role], field, None)
        if given is not None and own is not None:
            raise TargetError(
                f"{option}: the dataset {target.dataset.name or ''} has one of its own ({shown(own)}), which its "
                "definitions say; change it there."
            )
    return target


def _set(**values: str | None) -> None:
    """Make options settings of this process and of the runs that it starts."""
    for name, value in values.items():
        if value is not None:
            os.environ[name] = value
    # Runs may have another working directory: a local folder is made absolute once.
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise click.ClickException(problems) from error
    for name, value in (("RARE_SOURCE", settings.source), ("RARE_STORAGE", settings.storage)):
        if "://" not in value:
            os.environ[name] = str(Path(value).expanduser().absolute())


def _retry_rejects(run_config: dict[str, Any]) -> None:
    """Set the option of that name for both assets that ask the teacher."""
    from rare_assets.stages.order import ASKING

    ops = run_config["ops"] = dict(run_config.get("ops") or {})
    for asset in ASKING:
        given = ops.get(asset) or {}
        ops[asset] = {**given, "config": {**(given.get("config") or {}), "retry_rejects": True}}


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from rare_assets.stages.options import OptionsError, read_run_config

    try:
        return read_run_config(path)
    except OptionsError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
