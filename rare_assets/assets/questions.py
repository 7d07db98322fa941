"""The questions: Doc2Query, a teacher's question and scenario for each document."""

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.assets.asking import ask, code_version, mean_attempts
from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog.charts import histogram
from rare_assets.catalog.metadata import (
    OWNERS,
    definition_metadata,
    materialized,
    n_words,
    say_once,
    spread,
)
from rare_assets.checks.gate import refuse_if_blocked
from rare_assets.operators.doc2query import GIVEN, UNSUITABLE, say_left_out
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.gold_answers import NoReferences, require_given_answers
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Storage, TeacherModel, teacher_of
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.schemas import Produced
from rare_assets.stages import hard_negatives, reasoning
from rare_assets.stages import questions as stage
from rare_assets.stages.options import options_in
from rare_assets.stages.questions import QuestionsConfig


def questions(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    configs: Configs,
    config: QuestionsConfig,
    teacher: TeacherModel,
    storage: Storage,
    documents: pl.LazyFrame,
) -> dg.MaterializeResult[ShardTable]:
    """Have the teacher write a reasoning-intensive question and its scenario for each document.

    **A row** is one question that needs the document's knowledge and several steps of reasoning,
    a situation in which somebody would ask it, and a short answer to compare with. Where the source has
    a `question`, the row is that one, and nothing is asked. Documents without a usable answer after
    `max_attempts`, and those that hold nothing to ask about, are in `questions_rejects`.

    **Cost:** one request a document (and one for each answer that could not be used). **Rerun**
    freely: every answer is stored, only what was never asked is paid for; `refresh` asks anew.
    **Resume** what was stopped, killed or met a limit by materializing the shard again.
    """
    with failures_told():
        started = time.monotonic()
        refuse_if_blocked(context, dataset, storage.tables(), *stage.UPSTREAMS)
        rows = documents.collect()
        templates = load_templates(teacher.prompts_folder)
        asking = stage.asking(config, teacher, templates)
        later = {
            name: options_in(context.run.run_config, name, dataset, configs)
            for name in (hard_negatives.NAME, reasoning.NAME)
        }
        _refuse_sampling_without_answers(later[reasoning.NAME], rows)
        # The window that reasoning will have to keep to, and the negatives that it shows.
        bounded = later[reasoning.NAME]["max_context_tokens"] is not None
        num_neg = later[hard_negatives.NAME]["num_neg"]
        produced, usage = ask(
            context,
            asking,
            stage.operator(rows, config, asking, StepProgress(context, rows.height).ask),
            refresh=config.refresh,
            retry_rejects=config.retry_rejects,
            mode=config.mode,
            foresee=lambda window: foreseen(rows, None if bounded else window, num_neg),
        )
        if said := say_left_out(produced.rows.height, produced.rejects):
            context.log.warning(f"Shard {context.partition_key!r}: {said}.")
        made_from = stage.made_from(
            storage.content_hash(stage.UPSTREAMS[0], context.partition_key),
            config,
            templates,
            asking.teacher.name,
            teacher_of(teacher, "judge").name,
        )
        lengths = n_words(produced.rows["question"])
        made = materialized(
            stage.NAME,
            produced,
            made_from,
            usage | _figures(produced, lengths),
            seconds=time.monotonic() - started,
            options=config,
            chart=histogram(lengths, "words in a question"),
            documents=documents,
        )
        return say_once(context, made)


def questions_asset(dataset: Dataset, configs: Configs, prompts: str | None) -> dg.AssetsDefinition:
    """Return the asset of a dataset's questions; `prompts` is the folder of templates of its own."""
    return dg.asset(
        key=dataset.key(stage.NAME),
        partitions_def=dataset.partitions,
        ins={name: dg.AssetIn(key=dataset.key(name)) for name in stage.UPSTREAMS},
        group_name=dataset.named("rare_data"),
        kinds={"parquet"},
        owners=OWNERS,
        tags={"cost": "teacher", "operator": stage.PROMPT},
        code_version=code_version("1", stage.PROMPT, prompts),
        pool=dataset.pools["teacher"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=definition_metadata(stage.NAME, dataset) | code_reference(questions),
    )(bind(questions, dataset, configs))


def _refuse_sampling_without_answers(given: Mapping[str, Any], documents: pl.DataFrame) -> None:
    """Refuse what the run's reasoning, with these options, would refuse, before questions are paid for.
    Raises dg.Failure."""
    samples = given["rejection_samples"]
    try:
        if isinstance(samples, int):
            judges = bool(given["judge_answers"])
            require_given_answers(documents, samples, judges=judges)
    except NoReferences as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _figures(produced: Produced, lengths: pl.Series) -> dict[str, Any]:
    asked = produced.rows["question"]
    return {
        "given": int((produced.rows["origin"] == GIVEN).sum()),
        "unsuitable_documents": int((produced.rejects["reason"] == UNSUITABLE).sum()),
        "duplicates": len(asked) - asked.n_unique(),
        **spread("question_words", lengths),
        "mean_attempts": mean_attempts(produced),
    }
