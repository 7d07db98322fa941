"""The reasoning: ReasonDistill, the teacher's way from the shuffled documents to the answer."""

import time
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.assets.asking import ask, code_version, mean_attempts
from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog.charts import histogram
from rare_assets.catalog.metadata import (
    FRESHNESS,
    OWNERS,
    definition_metadata,
    materialized,
    n_words,
    say_once,
    share,
    spread,
)
from rare_assets.checks.gate import refuse_if_blocked
from rare_assets.operators.gold_answers import NoReferences, require_references
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Storage, TeacherModel, teacher_of
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.schemas import Produced
from rare_assets.stages import reasoning as stage
from rare_assets.stages.asking import with_unanswered
from rare_assets.stages.reasoning import ReasoningConfig


def reasoning(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    config: ReasoningConfig,
    teacher: TeacherModel,
    storage: Storage,
    documents: pl.LazyFrame,
    questions: pl.LazyFrame,
    hard_negatives: pl.LazyFrame,
) -> dg.MaterializeResult[ShardTable]:
    """Have the teacher reason over the gold document, shuffled among the negatives, to each answer.

    **A row** is one example of RARE data: text, question, scenario, hard negatives, reasoning, and the
    documents in the order in which they were shown (`context`, `gold_position`), with those that the
    teacher says it used. Answers that are empty, refused, cut, copied or nothing but an answer are asked for again, then go to `reasoning_rejects` with the raw answer.

    **Cost:** one request a question and sample, the prompt holding all its documents. **Rerun**
    freely: every answer is stored, only what was never asked is paid for; `refresh` asks anew.
    **Resume** what was stopped, killed or met a limit by materializing the shard again.
    """
    with failures_told():
        started = time.monotonic()
        refuse_if_blocked(context, dataset, storage.tables(), *stage.UPSTREAMS)
        asked = questions.collect()
        templates = load_templates(teacher.prompts_folder)
        asking = stage.asking(config, teacher, templates)
        try:
            require_references(asked, config.rejection_samples, judges=config.judge_answers)
        except NoReferences as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        produced, usage = ask(
            context,
            asking,
            stage.operator(
                asked,
                documents.collect(),
                hard_negatives.collect(),
                config,
                asking,
                StepProgress(context, asked.height * config.n).ask,
            ),
            refresh=config.refresh,
            retry_rejects=config.retry_rejects,
            mode=config.mode,
        )
        made_from = stage.made_from(
            {name: storage.content_hash(name, context.partition_key) for name in stage.UPSTREAMS},
            config,
            templates,
            asking.teacher.name,
            teacher_of(teacher, "judge").name,
        )
        lengths = n_words(produced.rows["reasoning"])
        made = materialized(
            stage.NAME,
            produced,
            with_unanswered(made_from, usage),
            usage | _figures(produced, lengths),
            seconds=time.monotonic() - started,
            options=config,
            chart=histogram(lengths, "words in a chain of reasoning"),
        )
        return say_once(context, made)


def reasoning_asset(dataset: Dataset, configs: Configs, prompts: str | None) -> dg.AssetsDefinition:
    """Return the asset of a dataset's reasoning; `prompts` is the folder of templates of its own."""
    return dg.asset(
        key=dataset.key(stage.NAME),
        partitions_def=dataset.partitions,
        ins={name: dg.AssetIn(key=dataset.key(name)) for name in stage.UPSTREAMS},
        group_name=dataset.named("rare_data"),
        kinds={"parquet"},
        freshness_policy=FRESHNESS,
        owners=OWNERS,
        tags={"cost": "teacher", "operator": stage.PROMPT},
        code_version=code_version("1", stage.PROMPT, prompts),
        pool=dataset.pools["teacher"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=definition_metadata(stage.NAME, dataset) | code_reference(reasoning),
    )(bind(reasoning, dataset, configs))


def _figures(produced: Produced, lengths: pl.Series) -> dict[str, Any]:
    rows = produced.rows
    return {
        "gold_shown_first_rate": share((rows["gold_position"] == 0).fill_null(False)),
        "without_gold": rows["gold_position"].null_count(),
        "gold_used_rate": rows["gold_used"].mean(),
        "documents_named_rate": share(rows["used_doc_ids"].is_not_null()),
        "suspected_relevant": int(rows["suspected_relevant"].list.len().fill_null(0).sum()),
        "answer_correct_rate": rows["answer_correct"].mean(),
        **spread("reasoning_words", lengths),
        "mean_attempts": mean_attempts(produced),
    }
