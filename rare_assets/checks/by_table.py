"""The checks of each table: which rules there are, and which of them are shown as one check.

A new rule is one record here.
"""

import polars as pl

from rare_assets.checks import negatives, question_quality, reasoning_quality, teacher_output
from rare_assets.checks.boilerplate import BOILERPLATE
from rare_assets.checks.judgement import Check, Rule
from rare_assets.checks.source import FILE_READABLE
from rare_assets.checks.structure import (
    Upstream,
    columns_have_text,
    every_row_accounted_for,
    key_is_unique,
    reject_rate_below_threshold,
    rows_as_stored,
    schema_holds,
)


def contract(*rules: Rule) -> Check:
    """Return the check of what a table promises: its schema first, then these rules."""
    return Check(
        "contract",
        "All that the table promises holds in every row.",
        True,
        (
            Rule(
                "schema_holds",
                "Every column is there, of its type, within its constraints.",
                "the file was written by something else or another version; materialize this "
                "shard again.",
                schema_holds,
            ),
            *rules,
        ),
    )


REJECTS = Check(
    "rejects",
    "Few rows could not be used. Above RARE_MAX_REJECT_RATE a warning; above RARE_BLOCK_REJECT_RATE "
    "an error, and nothing that follows starts.",
    True,
    (
        Rule(
            "reject_rate_below_threshold",
            "The share of rejects is small.",
            "read the first rejects, and the file beside the table that has them all.",
            reject_rate_below_threshold,
            "RARE_MAX_REJECT_RATE",
        ),
    ),
)


def quality(what: str, *rules: Rule) -> Check:
    """Return the check of how good rows are: it only warns."""
    return Check("quality", f"Few {what} look poor. A warning, never more.", False, rules)


CHECKS: dict[str, list[Check]] = {
    "documents": [
        FILE_READABLE,
        contract(
            Rule(
                "doc_ids_unique",
                "No doc_id stands twice in the shard.",
                "materialize the shard again.",
                key_is_unique("doc_id"),
            ),
            Rule(
                "text_not_empty",
                "No document is blank: each would be paid for.",
                "materialize the shard again.",
                columns_have_text("text"),
            ),
        ),
        REJECTS,
        BOILERPLATE,
    ],
    "questions": [
        contract(
            Rule(
                "question_ids_unique",
                "No question_id stands twice.",
                "materialize the shard again (answers are stored, it costs nothing).",
                key_is_unique("question_id"),
            ),
            Rule(
                "question_and_scenario_present",
                "Every row has a question, and a scenario unless the source gave the question without "
                "one.",
                "materialize the shard again.",
                question_quality.question_and_scenario_present,
            ),
            Rule(
                "every_document_accounted_for",
                "Each document has a question or a reject.",
                "documents were made anew since; materialize the shard's questions again (only new "
                "documents are asked about).",
                every_row_accounted_for("documents", "doc_id"),
            ),
            Rule(
                "documents_as_stored",
                "Each question was made from its document as it is stored now.",
                "documents were made anew since; materialize the shard's questions again (only "
                "changed documents are asked about).",
                rows_as_stored(Upstream("documents", "doc_id", {"text_hash": pl.col("text_hash")})),
            ),
        ),
        REJECTS,
        quality(
            "questions",
            Rule(
                "questions_distinct",
                "Few questions repeat an earlier one of the shard: four fifths of their words in "
                "common.",
                "remove near-duplicates from the source, ask for fewer questions a document or at "
                "a higher temperature.",
                question_quality.questions_distinct,
                "RARE_MAX_NEAR_DUPLICATE_RATE",
            ),
            Rule(
                "questions_ask_one_thing",
                "Few questions ask several things at once, so that no short answer settles them.",
                "take a better teacher, or your own prompt (RARE_PROMPTS).",
                question_quality.questions_ask_one_thing,
                "RARE_MAX_COMPOUND_RATE",
            ),
            Rule(
                "answers_not_given_away",
                "Few questions or scenarios have nearly all words of their reference answer.",
                "take a better teacher, or your own prompt (RARE_PROMPTS).",
                question_quality.answers_not_given_away,
                "RARE_MAX_GIVEAWAY_RATE",
            ),
            Rule(
                "questions_as_long_as_asked",
                "Most questions have about the length that was asked for.",
                "the teacher does not keep to it: ask for fewer kinds (`lengths`), or take a better one.",
                question_quality.questions_as_long_as_asked,
                "RARE_MAX_SAME_SHAPE_RATE",
            ),
            Rule(
                "questions_begin_differently",
                "The same two words do not begin most of the questions.",
                "ask for more `question_types` and `wordings`, or at a higher temperature.",
                question_quality.questions_begin_differently,
                "RARE_MAX_SAME_SHAPE_RATE",
            ),
            Rule(
                "questions_not_quoted",
                "Few questions or scenarios have eight words in a row from their document, which "
                "makes retrieval trivial.",
                "take a better teacher, or say so in your own prompt (RARE_PROMPTS).",
                question_quality.questions_not_quoted,
                "RARE_MAX_QUOTING_RATE",
            ),
            Rule(
                "questions_stand_alone",
                'Few questions or scenarios speak of "the text" or "the study", which nobody who '
                "searches can see. A list of phrases: it misses some.",
                "read the examples; judge_questions: true decides on each.",
                question_quality.questions_stand_alone,
                "RARE_MAX_REFERRING_RATE",
            ),
            Rule(
                "questions_need_more_than_lookup",
                "Few questions have most of their content words in one sentence of their document, "
                "so that looking it up answers them.",
                "take a better teacher, or your own prompt (RARE_PROMPTS).",
                question_quality.questions_need_more_than_lookup,
                "RARE_MAX_LOOKUP_RATE",
            ),
            Rule(
                "questions_in_language_of_document",
                "Few questions or scenarios are surely in another language than their document.",
                "name the language in your own prompt (RARE_PROMPTS), or take a teacher that knows "
                "it.",
                question_quality.questions_in_language_of_document,
                "RARE_MAX_OTHER_LANGUAGE_RATE",
            ),
        ),
    ],
    "hard_negatives": [
        contract(
            Rule(
                "gold_not_in_negatives",
                "No negative is the gold document or has its text: a model would be trained against "
                "the truth.",
                "materialize corpus_index, then the shard again.",
                negatives.gold_not_in_negatives,
            ),
            Rule(
                "negatives_distinct",
                "No text stands twice among a question's negatives.",
                "materialize the shard again.",
                negatives.negatives_distinct,
            ),
            Rule(
                "negatives_exist_in_corpus",
                "Every negative is a document of the index.",
                "the corpus has changed since; materialize the shard again.",
                negatives.negatives_exist_in_corpus,
                needs_index=True,
            ),
            Rule(
                "negatives_best_first",
                "Texts and scores of the negatives go together, best first.",
                "the file was changed by something else; materialize the shard again.",
                negatives.negatives_best_first,
            ),
            Rule(
                "gold_rank_fits_score",
                "The gold document ranks above negatives that score less, and below those that "
                "score more.",
                "materialize corpus_index, then the shard again.",
                negatives.gold_rank_fits_score,
            ),
            Rule(
                "negatives_within_options",
                "Every negative keeps the margins and bounds of the run's options, or ranks where "
                "fallback_range_min lets it.",
                "materialize the shard again with remine_after_growth 0.",
                negatives.negatives_within_options,
            ),
            Rule(
                "every_question_accounted_for",
                "Each question has a row or a reject.",
                "questions were made anew since; materialize the shard again.",
                every_row_accounted_for("questions", "question_id"),
            ),
            Rule(
                "questions_as_stored",
                "Each row was searched with its question as it is stored now.",
                "questions were made anew since; materialize the shard again.",
                negatives.questions_as_stored,
            ),
        ),
        REJECTS,
        Check(
            "negatives_found",
            "Questions have as many negatives as were asked for.",
            True,
            (
                Rule(
                    "num_negatives_found",
                    "Questions have num_neg negatives. An error, which stops what follows, where "
                    "most have none at all in an index of more than twenty documents.",
                    "the corpus is small, or range_max and relative_margin leave too few.",
                    negatives.num_negatives_found,
                    "RARE_MAX_SHORT_OF_NEGATIVES_RATE",
                ),
            ),
        ),
        Check(
            "quality",
            "The questions are hard to search for. A warning, never more.",
            False,
            (
                Rule(
                    "gold_not_always_first",
                    "BM25 does not rank nearly every gold document first.",
                    "the questions are in the words of their documents: ask for the wording `symptom`, or "
                    "take a better teacher.",
                    negatives.gold_not_always_first,
                    "RARE_MAX_GOLD_FIRST_RATE",
                ),
                Rule(
                    "questions_in_words_of_their_own",
                    "Few questions have four fifths of their content words from their gold document.",
                    "ask for the wording `symptom`, or say so in your own prompt (RARE_PROMPTS).",
                    negatives.questions_in_words_of_their_own,
                    "RARE_MAX_SHARED_WORDS_RATE",
                ),
            ),
        ),
    ],
    "reasoning": [
        contract(
            Rule(
                "reasoning_present",
                "Every row has a reasoning.",
                "materialize the shard again.",
                columns_have_text("reasoning"),
            ),
            Rule(
                "inputs_as_stored",
                "text, question, scenario, reference_answer and hard_negatives are those of the tables "
                "upstream as they are stored now.",
                "those were made anew since; materialize hard_negatives and reasoning of the shard "
                "again (only changed questions are asked).",
                rows_as_stored(
                    Upstream("documents", "doc_id", {"text": pl.col("text")}),
                    Upstream(
                        "questions",
                        "question_id",
                        {
                            name: pl.col(name)
                            for name in ("question", "scenario", "reference_answer")
                        },
                    ),
                    Upstream(
                        "hard_negatives",
                        "question_id",
                        {"hard_negatives": pl.col("hard_negatives")},
                    ),
                ),
            ),
            Rule(
                "gold_position_points_at_gold",
                "The gold document stands where gold_position says; it is not shown where that is null.",
                "materialize the shard again.",
                teacher_output.gold_position_points_at_gold,
            ),
            Rule(
                "context_is_gold_and_negatives",
                "The teacher saw the gold document (unless it was left out on purpose) and the question's "
                "negatives, each once.",
                "hard_negatives were made anew since; materialize the shard again.",
                teacher_output.context_is_gold_and_negatives,
            ),
            Rule(
                "answers_finished",
                "No answer was cut by a token limit or withheld by a filter.",
                "materialize the shard again, with a higher max_tokens.",
                teacher_output.answers_finished,
            ),
            Rule(
                "judged_by_reference_alone",
                "answer_correct is null where the question has no reference answer.",
                "materialize the shard again.",
                teacher_output.judged_by_reference_alone,
            ),
            Rule(
                "every_question_accounted_for",
                "Each question has a reasoning or a reject.",
                "questions were made anew since; materialize hard_negatives and reasoning of the "
                "shard again.",
                every_row_accounted_for("questions", "question_id"),
            ),
        ),
        REJECTS,
        quality(
            "answers",
            Rule(
                "prompts_read_whole",
                "No answer took fewer prompt tokens than the documents shown have.",
                "the endpoint cuts prompts to its window, and may not have seen the gold document: raise "
                "the window (Ollama: num_ctx; llama.cpp: -c; vLLM: --max-model-len) or set max_context_tokens, "
                "then materialize the shard again with refresh.",
                teacher_output.prompts_read_whole,
            ),
            Rule(
                "reasoning_uses_gold",
                "Little reasoning names other documents than the gold one as used, or is without any word "
                "that only the gold one brings in.",
                "read the examples; a teacher that ignores its documents is too weak, or max_tokens "
                "too low for it to get to them.",
                reasoning_quality.reasoning_uses_gold,
                "RARE_MAX_GOLD_UNUSED_RATE",
            ),
            Rule(
                "reasoning_in_language_of_document",
                "Little reasoning is surely in another language than its document.",
                "name the language in your own prompt (RARE_PROMPTS), or, where the teacher may "
                "think in its own, raise the threshold.",
                reasoning_quality.reasoning_in_language_of_document,
                "RARE_MAX_OTHER_LANGUAGE_RATE",
            ),
        ),
    ],
}
RULES: dict[str, list[Rule]] = {
    table: [rule for check in checks for rule in check.rules] for table, checks in CHECKS.items()
}
