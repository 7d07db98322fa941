"""The checks of each table, and how Dagster runs them: all of a table in one step per shard."""

import warnings
from collections.abc import Iterator

import dagster as dg
import polars as pl

from rare_assets.assets.documents import documents
from rare_assets.assets.hard_negatives import hard_negatives
from rare_assets.assets.questions import questions
from rare_assets.assets.reasoning import reasoning
from rare_assets.checks import negatives, question_quality, reasoning_quality, teacher_output
from rare_assets.checks.index import index_holds_every_shard, texts_distinct_across_shards
from rare_assets.checks.judgement import Check, StoredShard
from rare_assets.checks.structure import (
    Upstream,
    columns_have_text,
    every_row_accounted_for,
    key_is_unique,
    reject_rate_below_threshold,
    rows_as_stored,
    schema_holds,
)
from rare_assets.partitions import document_shards
from rare_assets.resources.configurable import Bm25Retriever, Storage

SCHEMA_HOLDS = Check(
    "schema_holds",
    "Every column is there, of its type, within its constraints. If not: the file was written by "
    "something else or another version; materialize this shard again.",
    True,
    schema_holds,
)
REJECT_RATE = Check(
    "reject_rate_below_threshold",
    "The share of rejects is small. If not: read the reasons in the rejects file beside the table. "
    "Thresholds: RARE_MAX_REJECT_RATE (warning), RARE_BLOCK_REJECT_RATE (error, stops what follows).",
    True,
    reject_rate_below_threshold,
)
CHECKS: dict[str, list[Check]] = {
    "documents": [
        SCHEMA_HOLDS,
        Check(
            "doc_ids_unique",
            "No doc_id stands twice in the shard. If not: materialize the shard again.",
            True,
            key_is_unique("doc_id"),
        ),
        Check(
            "text_not_empty",
            "No document is blank: each would be paid for. If not: materialize the shard again.",
            True,
            columns_have_text("text"),
        ),
        REJECT_RATE,
    ],
    "questions": [
        SCHEMA_HOLDS,
        Check(
            "question_ids_unique",
            "No question_id stands twice. If not: materialize the shard again (answers are stored, "
            "it costs nothing).",
            True,
            key_is_unique("question_id"),
        ),
        Check(
            "question_and_scenario_present",
            "Every row has a question and a scenario. If not: materialize the shard again.",
            True,
            columns_have_text("question", "scenario"),
        ),
        Check(
            "every_document_accounted_for",
            "Each document has a question or a reject. If not: documents were made anew since; "
            "materialize the shard's questions again (only new documents are asked about).",
            True,
            every_row_accounted_for("documents", "doc_id"),
        ),
        Check(
            "documents_as_stored",
            "Each question was made from its document as it is stored now. If not: documents were "
            "made anew since; materialize the shard's questions again (only changed documents are "
            "asked about).",
            True,
            rows_as_stored(Upstream("documents", "doc_id", {"text_hash": pl.col("text_hash")})),
        ),
        REJECT_RATE,
        Check(
            "questions_distinct",
            "Few questions repeat an earlier one of the shard: four fifths of their words in common. "
            "If not: remove near-duplicates from the source, ask for fewer questions a document or "
            "at a higher temperature. Threshold: RARE_MAX_NEAR_DUPLICATE_RATE.",
            False,
            question_quality.questions_distinct,
        ),
        Check(
            "questions_not_quoted",
            "Few questions or scenarios have eight words in a row from their document, which makes "
            "retrieval trivial. If not: take a better teacher, or say so in your own prompt "
            "(RARE_PROMPTS). Threshold: RARE_MAX_QUOTING_RATE.",
            False,
            question_quality.questions_not_quoted,
        ),
        Check(
            "questions_stand_alone",
            'Few questions or scenarios speak of "the text" or "the passage", which nobody who '
            "searches can see. If not: take a better teacher, or say so in your own prompt "
            "(RARE_PROMPTS). Threshold: RARE_MAX_REFERRING_RATE.",
            False,
            question_quality.questions_stand_alone,
        ),
        Check(
            "questions_need_more_than_lookup",
            "Few questions have most of their content words in one sentence of their document, so "
            "that looking it up answers them. If not: take a better teacher, or your own prompt "
            "(RARE_PROMPTS). Threshold: RARE_MAX_LOOKUP_RATE.",
            False,
            question_quality.questions_need_more_than_lookup,
        ),
        Check(
            "questions_in_language_of_document",
            "Few questions or scenarios are surely in another language than their document. If not: "
            "name the language in your own prompt (RARE_PROMPTS), or take a teacher that knows it. "
            "Threshold: RARE_MAX_OTHER_LANGUAGE_RATE.",
            False,
            question_quality.questions_in_language_of_document,
        ),
    ],
    "hard_negatives": [
        SCHEMA_HOLDS,
        Check(
            "gold_not_in_negatives",
            "No negative is the gold document or has its text: a model would be trained against the "
            "truth. If not: materialize corpus_index, then the shard again.",
            True,
            negatives.gold_not_in_negatives,
        ),
        Check(
            "negatives_distinct",
            "No text stands twice among a question's negatives. If not: materialize the shard again.",
            True,
            negatives.negatives_distinct,
        ),
        Check(
            "negatives_exist_in_corpus",
            "Every negative is a document of the index. If not: the corpus has changed since; "
            "materialize the shard again.",
            True,
            negatives.negatives_exist_in_corpus,
        ),
        Check(
            "negatives_best_first",
            "Texts and scores of the negatives go together, best first. If not: the file was changed "
            "by something else; materialize the shard again.",
            True,
            negatives.negatives_best_first,
        ),
        Check(
            "gold_rank_fits_score",
            "The gold document ranks above negatives that score less, and below those that score "
            "more. If not: materialize corpus_index, then the shard again.",
            True,
            negatives.gold_rank_fits_score,
        ),
        Check(
            "negatives_within_options",
            "Every negative keeps the margins and bounds of the run's options, or ranks where "
            "fallback_range_min lets it. If not: materialize the shard again with "
            "remine_after_growth 0.",
            True,
            negatives.negatives_within_options,
        ),
        Check(
            "every_question_accounted_for",
            "Each question has a row or a reject. If not: materialize the shard again.",
            True,
            every_row_accounted_for("questions", "question_id"),
        ),
        Check(
            "questions_as_stored",
            "Each row was searched with its question as it is stored now. If not: questions were "
            "made anew since; materialize the shard again.",
            True,
            negatives.questions_as_stored,
        ),
        Check(
            "num_negatives_found",
            "Questions have num_neg negatives. If not: the corpus is small, or range_max and "
            "relative_margin leave too few. Threshold: RARE_MAX_SHORT_OF_NEGATIVES_RATE.",
            False,
            negatives.num_negatives_found,
        ),
        REJECT_RATE,
    ],
    "reasoning": [
        SCHEMA_HOLDS,
        Check(
            "reasoning_present",
            "Every row has a reasoning. If not: materialize the shard again.",
            True,
            columns_have_text("reasoning"),
        ),
        Check(
            "inputs_as_stored",
            "text, question, scenario and hard_negatives are those of the tables upstream as they "
            "are stored now. If not: those were made anew since; materialize hard_negatives and "
            "reasoning of the shard again (only changed questions are asked).",
            True,
            rows_as_stored(
                Upstream("documents", "doc_id", {"text": pl.col("text")}),
                Upstream(
                    "questions",
                    "question_id",
                    {name: pl.col(name) for name in ("question", "scenario")},
                ),
                Upstream(
                    "hard_negatives", "question_id", {"hard_negatives": pl.col("hard_negatives")}
                ),
            ),
        ),
        Check(
            "gold_position_points_at_gold",
            "The gold document stands where gold_position says. If not: materialize the shard again.",
            True,
            teacher_output.gold_position_points_at_gold,
        ),
        Check(
            "context_is_gold_and_negatives",
            "The teacher saw the gold document and the question's negatives, each once. If not: "
            "hard_negatives were made anew since; materialize the shard again.",
            True,
            teacher_output.context_is_gold_and_negatives,
        ),
        Check(
            "answers_finished",
            "No answer was cut by a token limit or withheld by a filter. If not: materialize the "
            "shard again, with a higher max_tokens.",
            True,
            teacher_output.answers_finished,
        ),
        Check(
            "judged_by_gold_answer_alone",
            "answer_correct is null where the document has no gold answer. If not: materialize the "
            "shard again.",
            True,
            teacher_output.judged_by_gold_answer_alone,
        ),
        Check(
            "every_question_accounted_for",
            "Each question has a reasoning or a reject. If not: questions were made anew since; "
            "materialize hard_negatives and reasoning of the shard again.",
            True,
            every_row_accounted_for("questions", "question_id"),
        ),
        REJECT_RATE,
        Check(
            "reasoning_uses_gold",
            "Little reasoning is without any word that only the gold document brings in. If not: "
            "read the examples; a teacher that ignores its documents is too weak, or max_tokens "
            "too low for it to get to them. Threshold: RARE_MAX_GOLD_UNUSED_RATE.",
            False,
            reasoning_quality.reasoning_uses_gold,
        ),
        Check(
            "reasoning_in_language_of_document",
            "Little reasoning is surely in another language than its document. If not: name the "
            "language in your own prompt (RARE_PROMPTS), or, where the teacher may think in its own, "
            "raise the threshold. Threshold: RARE_MAX_OTHER_LANGUAGE_RATE.",
            False,
            reasoning_quality.reasoning_in_language_of_document,
        ),
    ],
}


def table_checks(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """All checks of one table as one step per shard, so that the shard is read once."""
    table = asset.key.path[-1]
    checks = {check.name: check for check in CHECKS[table]}
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this Dagster; without them a check of one shard would
        # load all shards, and the UI would show one status for all.
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                check.name,
                asset=asset,
                description=check.description,
                blocking=check.blocking,
                partitions_def=document_shards,
            )
            for check in checks.values()
        ]

    @dg.multi_asset_check(
        name=f"{table}_checks",
        specs=specs,
        can_subset=True,
    )
    def judge_table(
        context: dg.AssetCheckExecutionContext, storage: Storage, retriever: Bm25Retriever
    ) -> Iterator[dg.AssetCheckResult]:
        stored = StoredShard(table, context.partition_key, storage.tables(), retriever)
        # In the table's order: what the schema check found is told before another one trips over it.
        for check in checks.values():
            key = dg.AssetCheckKey(asset.key, check.name)
            if key not in context.selected_asset_check_keys:
                continue
            judgement = check.judge(stored)
            yield dg.AssetCheckResult(
                passed=judgement.passed,
                asset_key=key.asset_key,
                check_name=key.name,
                severity=judgement.severity,
                metadata=judgement.metadata,
            )

    return judge_table


asset_checks = [
    *(table_checks(asset) for asset in (documents, questions, hard_negatives, reasoning)),
    index_holds_every_shard,
    texts_distinct_across_shards,
]
