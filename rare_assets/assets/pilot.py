"""The pilot in the UI: configurations tried on a sample of the corpus, on one page side by side."""

import time
from typing import Any

import dagster as dg

from rare_assets.assets.asking import ledger_in, once, wait_for
from rare_assets.catalog.metadata import OWNERS
from rare_assets.corpus.formats import SourceError
from rare_assets.exports.folder import OutFolder
from rare_assets.exports.options import ExportError
from rare_assets.pilot.corpus import PilotCorpus, PilotError
from rare_assets.pilot.page import dollars, duration, page
from rare_assets.pilot.run import Pilot, PilotRun
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.dataset import SHIPPED, UNNAMED, Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.tags import BACKFILL_TAG
from rare_assets.stages.order import ASKING
from rare_assets.stages.pilot import PilotConfig
from rare_assets.text.shown_url import shown

FOLDER, FILE = "pilot", "pilot.html"


def pilot(
    context: dg.AssetExecutionContext,
    config: PilotConfig,
    corpus: Corpus,
    storage: Storage,
    retriever: Bm25Retriever,
    teacher: TeacherModel,
    dataset: Dataset = UNNAMED,
    configs: Configs = SHIPPED,
) -> dg.MaterializeResult:
    """Send a sample of the corpus through up to four configurations, side by side on one page.

    `<storage>/pilot/pilot.html` opens from disk and loads nothing from anywhere: questions, negatives,
    reasoning, the checks' figures, tokens, cost and time, and what the whole corpus would take with each.
    Nothing is written to the tables.

    **A row** of the table below is a configuration. **Cost:** two requests a document of the sample and
    configuration, and with `judge` two more a document and pair; no other asset asks for it. **Rerun** freely: every answer is
    stored, and a later run of the whole corpus pays only for the rest. **Resume** by materializing it again.
    """
    started = time.monotonic()
    say = once(context.log.info)
    source = corpus.source()
    out = OutFolder(str(storage.tables().root / FOLDER))
    scope = context.run.tags.get(BACKFILL_TAG) or context.run.run_id
    try:
        with (
            failures_told(),
            PilotCorpus(source, storage.tables(), retriever, say) as opened,
        ):
            # Before anything is paid for.
            out.require_page(FILE)
            trying = PilotRun(
                config.configurations,
                opened,
                teacher,
                documents=config.documents,
                seed=config.seed,
                ledger=lambda what: ledger_in(context.instance, scope, what),
                say=say,
                dataset=dataset,
                configs=configs,
            )
            plan = wait_for(trying.plan(judge=config.judge))
            for name, each in plan.foreseen.items():
                said = each if isinstance(each, str) else each.sentence
                context.log.info(f"{name}: {said}")
            made = wait_for(trying.run(judge=config.judge))
            place = out.write_page(FILE, page(made, {"source": source.url}))
    except (ExportError, PilotError, SourceError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    problems = made.problems
    for name, problem in problems.items():
        context.log.error(f"{name}: {problem}")
    if len(problems) == len(made.trials):
        raise dg.Failure(next(iter(problems.values())), allow_retries=False)
    return dg.MaterializeResult(metadata=_metadata(made, place, time.monotonic() - started))


def pilot_asset(dataset: Dataset, configs: Configs) -> dg.AssetsDefinition:
    """Return the asset of a dataset's pilot."""
    return dg.asset(
        key=dataset.key("pilot"),
        deps=[dataset.key("corpus_files")],
        group_name=dataset.named("pilot"),
        kinds={"html"},
        owners=OWNERS,
        tags={"cost": "teacher"},
        code_version="1",
        pool=dataset.pools["teacher"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=code_reference(pilot),
    )(bind(pilot, dataset, configs))


def _metadata(made: Pilot, place: str, seconds: float) -> dict[str, Any]:
    """Return the same keys on every run. A cost of unknown price is null: zero would be wrong."""
    records, paid = [], []
    for trial in made.trials:
        whole = made.projections[trial.name]
        paid += [use.paid_usd for use in trial.use.values()]
        records.append(
            dg.TableRecord(
                {
                    "configuration": trial.name,
                    "model": trial.configuration.teacher.name if trial.configuration else "",
                    **{
                        stage: trial.produced[stage].rows.height if stage in trial.produced else 0
                        for stage in ASKING
                    },
                    "whole corpus": dollars(whole.cost_usd) if whole else "",
                    "time": duration(whole.seconds) if whole else "",
                    "problem": trial.problem or "",
                }
            )
        )
    if made.judging is not None:
        paid.append(made.judging.use.paid_usd)
    texts = ("configuration", "model", "whole corpus", "time", "problem")
    columns = [
        dg.TableColumn(name, "string" if name in texts else "int") for name in records[0].data
    ]
    return {
        "path": dg.MetadataValue.path(shown(place)),
        "configurations": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
        "documents": made.documents.height,
        "corpus_documents": made.n_documents,
        "requests": sum(use.requests for trial in made.trials for use in trial.use.values()),
        "cost_usd": None if None in paid else sum(each for each in paid if each is not None),
        "failed": len(made.problems),
        "seconds": round(seconds, 3),
    }
