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
    say_once,
    spread,
    words,
)
from rare_assets.checks.gate import refuse_if_blocked
from rare_assets.operators.doc2query import GIVEN, UNSUITABLE, doc2query, say_left_out
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.reason_distill import NoReferences, require_given_answers
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Storage, TeacherModel, teacher_of
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.stages.options import options_in
from rare_assets.stages.provenance import questions_from
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
    """A reasoning-intensive question and its scenario for each document, written by the teacher.

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
        refuse_if_blocked(context, dataset, storage.tables(), "documents")
        rows = documents.collect()
        templates = load_templates(teacher.prompts_folder)
        judging, teacher = teacher_of(teacher, "judge"), teacher_of(teacher, "questions")
        later = {
            stage: options_in(context.run.run_config, stage, dataset, configs)
            for stage in ("hard_negatives", "reasoning")
        }
        _refuse_sampling_without_answers(later["reasoning"], rows)
        # The window that reasoning will have to keep to, and the negatives that it shows.
        bounded, num_neg = (
            later["reasoning"]["max_context_tokens"] is not None,
            later["hard_negatives"]["num_neg"],
        )
        produced, usage = ask(
            context,
            teacher,
            lambda model, judge: doc2query(
                rows,
                model,
                templates=templates,
                judge=judge if config.judge_questions else None,
                **config.operator_options(teacher),
                progress=StepProgress(context, rows.height).ask,
            ),
            refresh=config.refresh,
            retry_rejects=config.retry_rejects,
            mode=config.mode,
            foresee=lambda window: foreseen(rows, None if bounded else window, num_neg),
            judge_at_once=False,
            judging=judging if config.judge_questions else None,
        )
        if said := say_left_out(produced.rows.height, produced.rejects):
            context.log.warning(f"Shard {context.partition_key!r}: {said}.")
        made_from = questions_from(
            storage.content_hash("documents", context.partition_key),
            config,
            templates,
            teacher.name,
            judging.name,
        )
        asked = produced.rows["question"]
        lengths = words(asked)
        made = materialized(
            "questions",
            produced,
            made_from,
            {
                **usage,
                "given": int((produced.rows["origin"] == GIVEN).sum()),
                "unsuitable_documents": int((produced.rejects["reason"] == UNSUITABLE).sum()),
                "duplicates": len(asked) - asked.n_unique(),
                **spread("question_words", lengths),
                "mean_attempts": mean_attempts(produced),
            },
            seconds=time.monotonic() - started,
            options=config,
            chart=histogram(lengths, "words in a question"),
            documents=documents,
        )
        return say_once(context, made)


def questions_asset(dataset: Dataset, configs: Configs, prompts: str | None) -> dg.AssetsDefinition:
    """Return the asset of a dataset's questions; `prompts` is the folder of templates of its own."""
    return dg.asset(
        key=dataset.key("questions"),
        partitions_def=dataset.partitions,
        ins={"documents": dg.AssetIn(key=dataset.key("documents"))},
        group_name=dataset.named("rare_data"),
        kinds={"parquet"},
        owners=OWNERS,
        tags={"cost": "teacher", "operator": "doc2query"},
        code_version=code_version("1", "doc2query", prompts),
        pool=dataset.pools["teacher"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=definition_metadata("questions", dataset) | code_reference(questions),
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
