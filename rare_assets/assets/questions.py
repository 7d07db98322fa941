"""The questions: Doc2Query, a teacher's question and scenario for each document."""

import time
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.assets.asking import ask, code_version, mean_attempts
from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog.charts import histogram
from rare_assets.catalog.metadata import OWNERS, definition_metadata, materialized, spread, words
from rare_assets.checks.gate import refuse_if_blocked
from rare_assets.operators.doc2query import GIVEN, UNSUITABLE, doc2query, say_left_out
from rare_assets.operators.fitting import foreseen
from rare_assets.operators.reason_distill import NoReferences, require_given_answers
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.resources.partitions import document_shards
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.provenance import questions_from
from rare_assets.stages.questions import QuestionsConfig


@dg.asset(
    partitions_def=document_shards,
    group_name="rare_data",
    kinds={"parquet"},
    owners=OWNERS,
    tags={"cost": "teacher", "operator": "doc2query"},
    code_version=code_version("1", "doc2query"),
    pool="teacher",
    metadata=definition_metadata("questions"),
)
def questions(
    context: dg.AssetExecutionContext,
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
        refuse_if_blocked(context, storage.tables(), "documents")
        rows = documents.collect()
        templates = load_templates(teacher.prompts_folder)
        _refuse_sampling_without_answers(context, rows)
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
            foresee=lambda window: foreseen(rows, *_reasoning_bounds(context, window)),
            judge_at_once=False,
        )
        if said := say_left_out(produced.rows.height, produced.rejects):
            context.log.warning(f"Shard {context.partition_key!r}: {said}.")
        made_from = questions_from(
            storage.content_hash("documents", context.partition_key),
            config,
            templates,
            teacher.name,
        )
        asked = produced.rows["question"]
        lengths = words(asked)
        return materialized(
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


def _refuse_sampling_without_answers(
    context: dg.AssetExecutionContext, documents: pl.DataFrame
) -> None:
    """Refuse what the run's reasoning would refuse, before questions are paid for. Raises dg.Failure."""
    ops: dict[str, Any] = dict(context.run.run_config).get("ops") or {}  # type: ignore[assignment]
    given = (ops.get("reasoning") or {}).get("config") or {}
    samples = given.get("rejection_samples") or 0
    try:
        if isinstance(samples, int):
            judges = bool(given.get("judge_answers"))
            require_given_answers(documents, samples, judges=judges)
    except NoReferences as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _reasoning_bounds(
    context: dg.AssetExecutionContext, window: int | None
) -> tuple[int | None, int]:
    """The window that reasoning will have to keep to, None if it need not, and its negatives."""
    ops: dict[str, Any] = dict(context.run.run_config).get("ops") or {}  # type: ignore[assignment]
    given = {
        name: (ops.get(name) or {}).get("config") or {} for name in ("hard_negatives", "reasoning")
    }
    bounded = given["reasoning"].get("max_context_tokens") is not None
    num_neg = given["hard_negatives"].get(
        "num_neg", HardNegativesConfig.model_fields["num_neg"].default
    )
    return None if bounded else window, num_neg
