"""The hard negatives: BM25HardNeg, passages that look relevant to a question and are not its gold document."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.assets.asking import Sample, ask
from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog.charts import histogram
from rare_assets.catalog.metadata import OWNERS, definition_metadata, materialized, say_once, spread
from rare_assets.checks.gate import refuse_if_blocked
from rare_assets.checks.negatives import words_shared
from rare_assets.operators.bm25_hard_neg import (
    GAP_QUANTILES,
    RULES,
    MinedNegatives,
    MiningStats,
    score_gaps,
)
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import Bm25Retriever, Storage, TeacherModel
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.retriever import IndexState
from rare_assets.stages import hard_negatives as stage
from rare_assets.stages.asking import UNANSWERED, Asking, with_unanswered
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.provenance import MINED_FROM, completed, options_of
from rare_assets.stages.standing import is_within_growth
from rare_assets.storage.tables import ParquetTables, TableDamaged


def require_shard(state: IndexState, shard: str, content_hash: str) -> None:
    """Refuse an index that lacks the shard as it is stored. Raises dg.Failure with the remedy."""
    held = state.shards.get(shard)
    if held == content_hash:
        return
    problem = (
        f"The index does not hold shard {shard!r}"
        if held is None
        else f"The index holds an older content of shard {shard!r} ({held}, stored is {content_hash})"
    )
    raise dg.Failure(f"{problem}. Materialize corpus_index, then this again.", allow_retries=False)


def mining_metadata(stats: MiningStats) -> dict[str, Any]:
    """Return how mining came out, with the same keys on every run."""
    found = sum(n * questions for n, questions in stats.found.items())
    return {
        "negatives_found": found,
        "negatives_per_question": round(found / stats.questions, 3) if stats.questions else 0.0,
        "negatives_kept": stats.kept,
        "slots_unfilled": stats.slots_unfilled,
        "filled_beyond_margin": stats.filled_beyond_margin,
        "questions_without_negatives": stats.found.get(0, 0),
        "gold_not_found": stats.gold_not_found,
        "margin_not_applicable": stats.margin_not_applicable,
        "negatives_by_gold": stats.by_gold,
        "gold_first_rate": round(stats.gold_first / stats.questions, 4)
        if stats.questions
        else None,
        "candidates_dropped": sum(stats.dropped.values()),
        **{f"dropped/{rule}": stats.dropped.get(rule, 0) for rule in RULES},
        "mean_gold_rank": stats.gold_rank_mean,
        "median_gold_rank": stats.gold_rank_median,
        **{
            f"score_gap/p{quantile * 100:.0f}": round(stats.score_gap[quantile], 4)
            if stats.score_gap
            else None
            for quantile in GAP_QUANTILES
        },
    }


class Earlier(NamedTuple):
    """Negatives mined before, and how many documents the corpus had then."""

    rows: pl.DataFrame
    mined_from: str


def earlier_negatives(
    tables: ParquetTables, shard: str, config: HardNegativesConfig, state: IndexState
) -> Earlier | None:
    """Return the shard's stored negatives, if they were mined with the same options and the same
    ranking from a corpus of about the same size; else None."""
    stored = tables.provenance_if_whole(stage.NAME, shard)
    if stored is None:
        return None
    made_from = completed(stored.made_from, HardNegativesConfig)
    if made_from.get("options") != options_of(config):
        return None
    if made_from.get("bm25") != state.bm25.fingerprint or UNANSWERED in made_from:
        return None
    if not is_within_growth(made_from, state, config.remine_after_growth):
        return None
    try:
        return Earlier(tables.load(stage.NAME, shard).collect(), made_from[MINED_FROM])
    except TableDamaged:
        # It is replaced by what is mined now.
        return None


def hard_negatives(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    config: HardNegativesConfig,
    retriever: Bm25Retriever,
    teacher: TeacherModel,
    storage: Storage,
    questions: pl.LazyFrame,
) -> dg.MaterializeResult[ShardTable]:
    """Mine the corpus for passages that BM25 ranks high for a question, its gold document left out.

    **A row** is one question with its negatives, best first. Left out are the gold document, every
    passage of the same text, and what the options say (`relative_margin`, `range_min`, ...).
    Where fewer than `num_neg` are found, the row keeps what there is.

    **Cost:** none, no model is asked, unless `judge_relevance` has the teacher look for negatives that
    answer the question all the same. **Rerun** freely: negatives that still hold are kept, since
    changed ones are a new prompt to pay for in `reasoning` (`remine_after_growth=0` mines all anew).
    **Resume** a run that was stopped by materializing the shard again.
    """
    with failures_told():
        started = time.monotonic()
        asking = stage.asking(teacher, load_templates(teacher.prompts_folder))
        refuse_if_blocked(context, dataset, storage.tables(), *stage.UPSTREAMS)
        documents_hash, questions_hash = (
            storage.content_hash(table, context.partition_key) for table in stage.UPSTREAMS
        )
        with retriever.open() as engine:
            state = engine.state()
            require_shard(state, context.partition_key, documents_hash)
            earlier = earlier_negatives(storage.tables(), context.partition_key, config, state)
            asked = questions.collect()
            documents = storage.tables().load(stage.UPSTREAMS[0], context.partition_key)
            passages = documents.select("doc_id", "parent_id", "title", "text").collect()
            mining = partial(
                stage.mining,
                engine=engine,
                passages=passages,
                config=config,
                earlier=earlier.rows if earlier else None,
            )
            mined, usage = _mine(context, config, asking, mining, asked)
        shared = words_shared(mined.produced.rows, passages)
        made_from = stage.made_from(
            questions_hash, config, state, asking.templates, asking.teacher.name
        )
        if earlier and mined.stats.kept:
            # Small growths must not add up unnoticed.
            made_from[MINED_FROM] = earlier.mined_from
        made = materialized(
            stage.NAME,
            mined.produced,
            with_unanswered(made_from, usage),
            {
                "engine": state.engine,
                "index_state": state.fingerprint,
                **mining_metadata(mined.stats),
                # How much of a question its gold document says itself.
                **spread("gold_words_shared", shared["shared"]),
                **usage,
            },
            seconds=time.monotonic() - started,
            options=config,
            chart=histogram(
                100 * score_gaps(mined.produced.rows),
                "score of the best negative below the gold's",
                " %",
            ),
            documents=documents,
        )
        return say_once(context, made)


def _mine(
    context: dg.AssetExecutionContext,
    config: HardNegativesConfig,
    asking: Asking,
    mining: Callable[..., Callable[..., MinedNegatives]],
    asked: pl.DataFrame,
) -> tuple[MinedNegatives, dict[str, Any]]:
    """Mine all questions. Where a judge looks at the negatives, estimate it by some of them first."""
    mine = mining(asked, progress=StepProgress(context, asked.height).count)
    if not config.judge_relevance:
        return mine(), {}
    some = stage.estimated(asked)
    sample = Sample(stage.operator(mining(some)), f"{some.height:,} of {asked.height:,} questions")
    return ask(context, asking, stage.operator(mine), sample=None if some is asked else sample)


def hard_negatives_asset(dataset: Dataset, configs: Configs) -> dg.AssetsDefinition:
    """Return the asset of a dataset's hard negatives."""
    return dg.asset(
        key=dataset.key(stage.NAME),
        partitions_def=dataset.partitions,
        ins={"questions": dg.AssetIn(key=dataset.key("questions"))},
        deps=[dataset.key("corpus_index")],
        group_name=dataset.named("rare_data"),
        kinds={"parquet"},
        owners=OWNERS,
        tags={"cost": "none", "operator": "bm25_hard_neg"},
        code_version="1",
        pool=dataset.pools["index"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=definition_metadata(stage.NAME, dataset) | code_reference(hard_negatives),
    )(bind(hard_negatives, dataset, configs))
