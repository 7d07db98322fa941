"""How good a shard's questions are: different, in their own words, and not answered by one sentence.

Measures and thresholds were tried on the sample corpus with 60 questions written by hand
(`rare_assets_tests/support/written_questions.py`): none of the 40 that ask for reasoning is flagged.
"""

from __future__ import annotations

import polars as pl

from rare_assets.checks.judgement import Judgement, StoredShard, rate_below
from rare_assets.checks.language import in_other_language
from rare_assets.checks.near_duplicates import near_duplicates
from rare_assets.checks.wording import (
    content_stems,
    runs,
    sentences,
    word_set,
)
from rare_assets.operators.doc2query import GIVEN, WRITTEN
from rare_assets.operators.references import refers_to_document
from rare_assets.operators.variety import LENGTHS
from rare_assets.text.words import characters_of, mostly_unspaced, number_of_words, words_of

# Overlap of two questions' words; as for passages in `bm25_hard_neg`.
NEAR_DUPLICATE = 0.8
# A quotation is eight words in a row: GPT-2 was checked for copied text by runs of as many
# (Radford et al. 2019, section 4). A Chinese or Japanese word has about two characters, and where it
# ends depends on what stands around it, so characters are compared there.
QUOTED_WORDS = 8
QUOTED_CHARACTERS = 16
# Share of a question's content words in one sentence. Of the lookup questions written by hand, 18 of the
# 19 that can be judged reach it (0.57 to 1); of those that take reasoning none does (0.5 at most).
LOOKUP_OVERLAP = 0.6
# With fewer content words, chance decides.
FEWEST_CONTENT_WORDS = 3
# More is no sentence, but a list or text without marks, which has any word.
LONGEST_SENTENCE_WORDS = 60

QUESTION_MARKS = r"[?\x{FF1F}\x{061F}\x{055E}\x{1367}]"
# "Why does it melt, and how long does that take": English alone, where marks don't tell.
_JOINED = r"\b(?:and|or)\s+(?:also\s+|then\s+|if so,?\s+|if not,?\s+|to what extent\s+|by\s+)*"
_AUXILIARY = (
    r"(?:is|are|was|were|does|do|did|will|would|should|could|can|might|must|happens|follows)"
)
SECOND_QUESTION = rf"(?i){_JOINED}(?:(?:why|how|when|where|which|who)\b|what\s+{_AUXILIARY}\b)"
# An answer of fewer content words has them by chance.
FEWEST_ANSWER_WORDS = 4
GIVEN_AWAY = 0.8
FEWEST_FOR_SHAPE = 20

_BATCH = 1_000


def question_and_scenario_present(stored: StoredShard) -> Judgement:
    """Require that no question is blank, and a scenario only where the source gave the question."""
    blank = {name: _is_blank(name) for name in ("question", "scenario")}
    blank["scenario"] &= pl.col("origin").fill_null(WRITTEN) != GIVEN
    wrong = {name: stored.rows.filter(found).height for name, found in blank.items()}
    return Judgement(not any(wrong.values()), {"blank": wrong, "threshold": 0})


def _is_blank(column: str) -> pl.Expr:
    return ~pl.col(column).fill_null("").str.contains(r"\S")


def questions_distinct(stored: StoredShard) -> Judgement:
    """Expect few questions to repeat an earlier one of the shard but for a few words."""
    asked = stored.rows.select("question_id", "question", words=word_set(pl.col("question")))
    found = near_duplicates(asked, NEAR_DUPLICATE)
    earlier = stored.rows.with_row_index("repeats").select(
        "repeats", repeats_id="question_id", repeated="question"
    )
    flagged = found.join(earlier, on="repeats", maintain_order="left").select(
        "question_id", "question", "repeats_id", "repeated"
    )
    return rate_below(
        "near_duplicates", flagged, stored.rows.height, stored.threshold("max_near_duplicate_rate")
    )


def questions_not_quoted(stored: StoredShard) -> Judgement:
    """Expect few questions or scenarios to share a run of eight or more words with their
    document."""
    asked = _asked(stored)
    flagged = [_quoting(batch) for batch in asked.iter_slices(_BATCH)]
    return rate_below(
        "quoting",
        pl.concat([_quoting(asked.clear()), *flagged]),
        asked.height,
        stored.threshold("max_quoting_rate"),
    )


def questions_stand_alone(stored: StoredShard) -> Judgement:
    """Expect few questions or scenarios to point at their document ("the text says")."""
    texts = stored.rows.select("question_id", "question", "scenario")
    flags = [
        refers_to_document(question) or refers_to_document(scenario)
        for question, scenario in texts.select("question", "scenario").iter_rows()
    ]
    flagged = texts.filter(pl.Series(flags, dtype=pl.Boolean))
    return rate_below("referring", flagged, texts.height, stored.threshold("max_referring_rate"))


def questions_need_more_than_lookup(stored: StoredShard) -> Judgement:
    """Expect few questions to have most of their content words in one sentence of the document."""
    batches = [_overlap(batch) for batch in _asked(stored).iter_slices(_BATCH)]
    judged = pl.concat([_overlap(_asked(stored).clear()), *batches])
    flagged = judged.filter(pl.col("overlap") >= LOOKUP_OVERLAP)
    return rate_below("lookup", flagged, judged.height, stored.threshold("max_lookup_rate"))


def questions_ask_one_thing(stored: StoredShard) -> Judgement:
    """Expect few questions with several question marks, or a question word behind a joining one."""
    asked = stored.rows.select("question_id", "question")
    marks = pl.col("question").str.count_matches(QUESTION_MARKS)
    flagged = asked.filter((marks > 1) | pl.col("question").str.contains(SECOND_QUESTION))
    return rate_below("compound", flagged, asked.height, stored.threshold("max_compound_rate"))


def answers_not_given_away(stored: StoredShard) -> Judgement:
    """Expect few questions or scenarios with nearly all content words of their reference answer."""
    texts = stored.rows.filter(pl.col("reference_answer").is_not_null()).select(
        "question_id",
        "scenario",
        "question",
        "reference_answer",
        answer=content_stems(pl.col("reference_answer")),
    )
    judged = texts.filter(pl.col("answer").list.len() >= FEWEST_ANSWER_WORDS)
    size = pl.col("answer").list.len()
    given = pl.max_horizontal(
        pl.col("answer").list.set_intersection(content_stems(pl.col(name))).list.len() / size
        for name in ("question", "scenario")
    )
    flagged = judged.filter(given >= GIVEN_AWAY).drop("answer")
    return rate_below("giveaway", flagged, judged.height, stored.threshold("max_giveaway_rate"))


def questions_as_long_as_asked(stored: StoredShard) -> Judgement:
    """Expect few questions to be much longer or shorter than what was asked for."""
    asked = stored.rows.filter(pl.col("length").is_in(LENGTHS)).select(
        "question_id", "length", "question"
    )
    fits = [LENGTHS[length].fits(question) for _, length, question in asked.iter_rows()]
    flagged = asked.filter(~pl.Series(fits, dtype=pl.Boolean))
    return rate_below("off_length", flagged, asked.height, stored.threshold("max_same_shape_rate"))


def questions_begin_differently(stored: StoredShard) -> Judgement:
    """Expect no two words to begin most of a shard's written questions; below twenty, chance
    decides."""
    written = stored.rows.filter(pl.col("origin").fill_null(WRITTEN) == WRITTEN)
    begins = written.select(
        "question_id", "question", opening=words_of(pl.col("question")).list.head(2).list.join(" ")
    )
    if begins.height < FEWEST_FOR_SHAPE:
        begins = begins.clear()
    counts = begins["opening"].value_counts(sort=True)
    most = pl.lit(counts["opening"].first(), pl.String)
    flagged = begins.filter(pl.col("opening") == most).select("question_id", "question")
    return rate_below(
        "same_opening", flagged, begins.height, stored.threshold("max_same_shape_rate")
    )


def questions_in_language_of_document(stored: StoredShard) -> Judgement:
    """Expect few questions or scenarios to be surely in another language than their document."""
    asked = _asked(stored)
    texts = pl.concat(
        asked.select("question_id", "document", text=column) for column in ("question", "scenario")
    )
    found, judged = in_other_language(texts)
    flagged = found.select("question_id", "text", "language", "document_language")
    return rate_below(
        "other_language", flagged, judged, stored.threshold("max_other_language_rate")
    )


def _asked(stored: StoredShard) -> pl.DataFrame:
    """Return questions with their documents' texts; where a document is gone another check
    tells."""
    documents = stored.other("documents").select("doc_id", document="text")
    asked = stored.rows.lazy().select("question_id", "doc_id", "question", "scenario")
    return asked.join(documents, on="doc_id", maintain_order="left").collect()


def _quoting(asked: pl.DataFrame) -> pl.DataFrame:
    """Return `question_id, quotation` of the questions that quote: the first run in common."""
    texts = (
        pl.concat(
            asked.select("question_id", "document", text=column)
            for column in ("question", "scenario")
        )
        .with_row_index("row")
        .select(
            "row",
            "question_id",
            no_blanks=mostly_unspaced(pl.col("text")),
            words=_pieces("text"),
            document=pl.format(" {} ", _pieces("document").list.join(" ")),
        )
    )
    said = pl.concat(
        [
            runs(texts.filter(~pl.col("no_blanks")), QUOTED_WORDS),
            runs(texts.filter("no_blanks"), QUOTED_CHARACTERS),
        ]
    )
    within = pl.col("document").str.contains(pl.format(" {} ", "run"), literal=True)
    return (
        said.join(texts, on="row", maintain_order="left")
        .filter(within)
        .group_by("question_id", maintain_order=True)
        .agg(quotation=pl.col("run").first())
    )


def _pieces(column: str) -> pl.Expr:
    """Return a column's words; its characters where the text to compare sets no blanks."""
    text = pl.col(column)
    return (
        pl.when(mostly_unspaced(pl.col("text"))).then(characters_of(text)).otherwise(words_of(text))
    )


def _overlap(asked: pl.DataFrame) -> pl.DataFrame:
    """Return `question_id, question, sentence, overlap`: the sentence that has most of a question's
    content words, and the share (0 to 1) of them that it has.

    Only questions that have enough of those, on documents that have more than one sentence.
    """
    long_enough = asked.select(
        "question_id", "question", "document", asks=content_stems(pl.col("question"))
    ).filter(pl.col("asks").list.len() >= FEWEST_CONTENT_WORDS)
    common = pl.col("asks").list.set_intersection(content_stems(pl.col("sentence"))).list.len()
    return (
        long_enough.with_columns(sentence=sentences(pl.col("document")))
        .drop("document")
        .filter(pl.col("sentence").list.len() > 1)
        .explode("sentence")
        .filter(number_of_words(pl.col("sentence")) <= LONGEST_SENTENCE_WORDS)
        .select(
            "question_id",
            "question",
            "sentence",
            overlap=common / pl.col("asks").list.len(),
        )
        .group_by("question_id", maintain_order=True)
        .agg(pl.col("question", "sentence", "overlap").get(pl.col("overlap").arg_max()))
    )
