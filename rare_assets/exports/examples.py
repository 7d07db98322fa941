"""Make examples of the stored tables of a shard: what every format takes its rows from.

An example is a question with its documents and, where the teacher answered, one of its answers. Tables
of an earlier version lack columns: what is there is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from rare_assets.exports.options import ExportError, ExportOptions
from rare_assets.storage.tables import ParquetTables

# A batch bounds the memory: so many questions with all their texts at once.
BATCH = 5_000
_CHARS_A_TOKEN = 4
_ANSWER_KEY = ["question_id", "sample_index"]


class Corpus:
    """Title, family and split of every document.

    Args:
        assigned: as `families.assign` makes it, stored.
    """

    def __init__(self, assigned: pl.LazyFrame) -> None:
        self._assigned = assigned

    def lookup(self, ids: pl.Series) -> pl.DataFrame:
        """Return `doc_id, title, text_hash, split` of those of the documents that there are."""
        return (
            self._assigned.select("doc_id", "title", "text_hash", "split")
            .join(ids.unique().rename("doc_id").to_frame().lazy(), on="doc_id", how="semi")
            .collect(engine="streaming")
        )

    def twins(self, golds: pl.DataFrame) -> pl.DataFrame:
        """Return `text_hash, ids` of documents that have the text of one of `golds`."""
        return (
            self._assigned.select("doc_id", "text_hash")
            .join(golds.select("text_hash").unique().lazy(), on="text_hash", how="semi")
            .group_by("text_hash")
            .agg(ids=pl.col("doc_id").sort())
            .collect(engine="streaming")
        )


class Filter(NamedTuple):
    """A filter that the options ask for, and which rows it keeps."""

    name: str
    keeps: pl.Expr


def passage(title: str, text: str) -> pl.Expr:
    """Return a text with its title before it, unless it begins with the title itself.

    Args:
        title, text: names of the columns.
    """
    has_title = pl.col(title).fill_null("").str.strip_chars() != ""
    repeated = pl.col(text).str.strip_chars_start().str.starts_with(pl.col(title))
    return (
        pl.when(has_title & ~repeated.fill_null(False))
        .then(pl.format("{}\n\n{}", title, text))
        .otherwise(text)
    )


def filters(options: ExportOptions, reads: str) -> list[Filter]:
    """Return the filters in the order in which they are counted.

    Args:
        reads: `questions` or `answers`, whichever a format has its rows of.
    """
    found = []
    if options.languages:
        keeps = pl.col("question").map_elements(_language, pl.String).is_in(options.languages)
        found.append(Filter(f"language in {', '.join(options.languages)}", keeps))
    if options.max_gold_rank is not None:
        keeps = pl.col("gold_rank") <= options.max_gold_rank
        found.append(Filter(f"gold_rank at most {options.max_gold_rank}", keeps))
    if options.min_score_gap is not None:
        keeps = pl.col("score_gap") >= options.min_score_gap
        found.append(Filter(f"score gap at least {options.min_score_gap:g}", keeps))
    if options.judged:
        found.append(Filter("judged", pl.col("judged").is_not_null()))
    if options.gold_used:
        found.append(Filter("gold_used", pl.col("gold_used")))
    answers = options.answer_correct
    if answers == "format":
        answers = "any" if reads == "questions" else "not_wrong"
    if answers == "not_wrong":
        keeps = pl.col("answer_correct").is_null() | pl.col("answer_correct")
        found.append(Filter("answer not known to be wrong", keeps))
    if answers == "correct":
        found.append(Filter("answer known to be correct", pl.col("answer_correct")))
    for limit, name in (
        (options.max_prompt_tokens, "prompt_tokens"),
        (options.max_completion_tokens, "completion_tokens"),
    ):
        if limit is not None:
            keeps = pl.col(name).fill_null(0) <= limit
            found.append(Filter(f"{name} at most {limit}", keeps))
    if options.held_out_context == "drop" and reads == "answers":
        keeps = ~pl.col("shows_held_out")
        found.append(Filter("no held-out document in a training prompt", keeps))
    return found


def require_columns(tables: ParquetTables, shard: str, options: ExportOptions) -> None:
    """Refuse filters on what the stored tables do not tell.

    Raises:
        ExportError: names the filter, and what to make first.
    """
    asked = {
        "gold_used": ("reasoning", options.gold_used),
        "judged": ("questions", options.judged),
    }
    for column, (table, wanted) in asked.items():
        if wanted and (
            not tables.exists(table, shard) or column not in _columns(tables, table, shard)
        ):
            raise ExportError(
                f"The filter {column} needs the column {column} of {table}, which shard {shard!r} "
                "does not have: it is not made yet, or by a version or with options that do not tell. "
                f"Leave the filter out, or materialize {table} again."
            )


def examples(
    tables: ParquetTables, shard: str, corpus: Corpus, options: ExportOptions
) -> Iterator[pl.DataFrame]:
    """Yield a shard's examples, some thousand questions at a time, in the order of its tables.

    One a question and sampled answer; where there is no answer that goes with the question and its
    negatives as they are stored now, one with `reasoning` null. Columns: `question_id, sample_index,
    doc_id, question, scenario, query, passage, positives, positive_ids, negatives, negative_ids,
    negative_scores, twin_ids, gold_score, gold_rank, score_gap, reasoning, answer, gold_answer,
    answer_correct, gold_used, judged, prompt, prompt_tokens, completion_tokens, split,
    shows_held_out, negatives_held_out, negatives_suspected`. Passages have their titles.

    A training row has no negative that is held out for validation or test.

    Raises:
        TableMissing: documents, questions or hard_negatives are not made yet.
    """
    mined = tables.scan("hard_negatives", shard)
    for start in range(0, mined.select(pl.len()).collect().item(), BATCH):
        yield _batch(tables, shard, corpus, options, mined.slice(start, BATCH).collect())


def needed_ids(tables: ParquetTables, shard: str) -> pl.Series:
    """Return every document that a shard's rows can name. Raises TableDamaged."""
    mined = tables.scan("hard_negatives", shard)
    parts = [
        mined.select("doc_id"),
        mined.select(
            pl.col("negatives").list.eval(pl.element().struct.field("doc_id")).alias("doc_id")
        ).explode("doc_id"),
    ]
    with tables.reading("hard_negatives", shard):
        if "extra_positive_ids" in mined.collect_schema():
            parts.append(mined.select(doc_id="extra_positive_ids").explode("doc_id"))
        return pl.concat(parts).drop_nulls().unique().collect()["doc_id"]


def _batch(
    tables: ParquetTables, shard: str, corpus: Corpus, options: ExportOptions, mined: pl.DataFrame
) -> pl.DataFrame:
    answered = _answers(tables, shard, mined)
    base = _questions(tables, shard, mined)
    ids = pl.concat(
        [
            mined["doc_id"],
            mined.select(
                pl.col("negatives").list.eval(pl.element().struct.field("doc_id")).explode()
            )["negatives"],
            *(
                [mined["extra_positive_ids"].explode()]
                if "extra_positive_ids" in mined.columns
                else []
            ),
        ]
    ).drop_nulls()
    known = corpus.lookup(ids)
    base = base.join(
        known.select("doc_id", "text_hash", "split"), on="doc_id", how="left", maintain_order="left"
    ).with_columns(pl.col("split").fill_null("train"))
    negatives = _negatives(mined, base, known, answered)
    base = (
        base.join(negatives, on="question_id", how="left", maintain_order="left")
        .join(
            _more_positives(mined, base, known), on="question_id", how="left", maintain_order="left"
        )
        .join(corpus.twins(known), on="text_hash", how="left", maintain_order="left")
    )
    twins = pl.col("ids").list.set_difference(pl.concat_list("doc_id")).fill_null([])
    best = pl.col("best_score")
    base = base.with_columns(
        positives=pl.concat_list("passage", "more_positives"),
        positive_ids=pl.concat_list("doc_id", "more_positive_ids"),
        twin_ids=twins.list.set_difference("more_positive_ids"),
        score_gap=pl.when(pl.col("gold_score") > 0).then(
            (pl.col("gold_score") - best) / pl.col("gold_score")
        ),
    )
    prompts = _prompts(answered, mined, base, known, options)
    rows = base.join(prompts, on="question_id", how="left", maintain_order="left_right")
    return rows.with_columns(
        query=_query(options),
        sample_index=pl.col("sample_index").fill_null(0),
        shows_held_out=(pl.col("split") == "train") & pl.col("shows_held_out").fill_null(False),
        prompt_tokens=pl.coalesce(
            _tokens("prompt"),
            _tokens("question") + _tokens("passage") + _tokens_of_list("negatives"),
        ),
        completion_tokens=_tokens("reasoning") + _tokens("answer").fill_null(0),
        gold_answer=_not_blank(pl.coalesce("reference_answer", "source_answer")),
    )


def _query(options: ExportOptions) -> pl.Expr:
    has_scenario = pl.col("scenario").fill_null("").str.strip_chars() != ""
    if options.query == "question":
        return pl.col("question")
    return (
        pl.when(has_scenario)
        .then(pl.format("{}\n\n{}", "scenario", "question"))
        .otherwise("question")
    )


def _questions(tables: ParquetTables, shard: str, mined: pl.DataFrame) -> pl.DataFrame:
    """Return each mined question with its gold document."""
    of = mined["question_id"].implode()
    asked = tables.scan("questions", shard).filter(pl.col("question_id").is_in(of))
    there = asked.collect_schema()
    asked = asked.select(
        "question_id",
        "question",
        "scenario",
        judged="judged" if "judged" in there else pl.lit(None),
        question_answer="reference_answer"
        if "reference_answer" in there
        else pl.lit(None, pl.String),
    )
    # Where tables tell whose answer a reference is, a source's `answer` alone belongs to no question.
    known = "reference_answer" in there
    documents = (
        tables.scan("documents", shard)
        .filter(pl.col("doc_id").is_in(mined["doc_id"].unique().implode()))
        .select(
            "doc_id",
            "text",
            "title",
            passage=passage("title", "text"),
            source_answer=pl.lit(None, pl.String) if known else pl.col("answer"),
        )
    )
    return (
        mined.select("question_id", "doc_id", "gold_score", "gold_rank")
        .join(asked.collect(), on="question_id", how="inner", maintain_order="left")
        .join(documents.collect(), on="doc_id", how="inner", maintain_order="left")
    )


def _answers(tables: ParquetTables, shard: str, mined: pl.DataFrame) -> pl.DataFrame:
    """Return the teacher's answers to the questions as they are mined now: others are of an older state."""
    columns: dict[str, Any] = {
        "question_id": pl.String,
        "sample_index": pl.Int64,
        "doc_id": pl.String,
        "text": pl.String,
        "question": pl.String,
        "hard_negatives": pl.List(pl.String),
        "reasoning": pl.String,
        "answer": pl.String,
        "answer_correct": pl.Boolean,
        "context_doc_ids": pl.List(pl.String),
        "gold_used": pl.Boolean,
        "suspected_relevant": pl.List(pl.String),
        "reference_answer": pl.String,
    }
    if not tables.exists("reasoning", shard):
        return pl.DataFrame(schema=columns)
    stored = tables.scan("reasoning", shard).filter(
        pl.col("question_id").is_in(mined["question_id"].implode())
    )
    there = stored.collect_schema()
    stored = stored.select(
        *(
            name if name in there else pl.lit(None, dtype).alias(name)
            for name, dtype in columns.items()
        )
    )
    now = mined.select("question_id", "doc_id", now="hard_negatives")
    return (
        stored.collect()
        .join(now, on=["question_id", "doc_id"], maintain_order="left")
        .filter(pl.col("hard_negatives") == pl.col("now"))
        .drop("now")
    )


def _negatives(
    mined: pl.DataFrame, base: pl.DataFrame, known: pl.DataFrame, answered: pl.DataFrame
) -> pl.DataFrame:
    """Return passages, ids and scores of each question's negatives, without those it must not
    have."""
    suspected = (
        answered.select("question_id", doc_id="suspected_relevant")
        .explode("doc_id")
        .drop_nulls()
        .unique()
        .with_columns(suspected=pl.lit(True))
    )
    each = (
        mined.select("question_id", "negatives", text="hard_negatives")
        .explode("negatives", "text", empty_as_null=False)
        .unnest("negatives")
        .join(
            base.select("question_id", row_split="split"), on="question_id", maintain_order="left"
        )
        .join(
            known.select("doc_id", "title", "split"), on="doc_id", how="left", maintain_order="left"
        )
        .join(suspected, on=["question_id", "doc_id"], how="left", maintain_order="left")
        .with_columns(
            suspected=pl.col("suspected").fill_null(False),
            held_out=(pl.col("row_split") == "train")
            & (pl.col("split").fill_null("train") != "train"),
        )
    )
    kept = ~pl.col("suspected") & ~pl.col("held_out")
    found = each.group_by("question_id", maintain_order=True).agg(
        negatives=passage("title", "text").filter(kept),
        negative_ids=pl.col("doc_id").filter(kept),
        negative_scores=pl.col("score").filter(kept),
        best_score=pl.col("score").max(),
        negatives_held_out=pl.col("held_out").sum(),
        negatives_suspected=(pl.col("suspected") & ~pl.col("held_out")).sum(),
    )
    return (
        mined.select("question_id")
        .join(found, on="question_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("negatives", "negative_ids", "negative_scores").fill_null([]),
            pl.col("negatives_held_out", "negatives_suspected").fill_null(0),
        )
    )


def _more_positives(mined: pl.DataFrame, base: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the passages of a question's split that a judge found to answer it, too."""
    columns = {"more_positives": pl.List(pl.String), "more_positive_ids": pl.List(pl.String)}
    if not {"extra_positives", "extra_positive_ids"} <= set(mined.columns):
        return mined.select(
            "question_id", *(pl.lit([], dtype).alias(name) for name, dtype in columns.items())
        )
    found = (
        mined.select("question_id", doc_id="extra_positive_ids", text="extra_positives")
        # Null where nothing was relabelled.
        .drop_nulls()
        .explode("doc_id", "text", empty_as_null=False)
        .join(
            base.select("question_id", row_split="split"), on="question_id", maintain_order="left"
        )
        .join(
            known.select("doc_id", "title", "split"), on="doc_id", how="left", maintain_order="left"
        )
        .filter(pl.col("row_split") == pl.col("split").fill_null("train"))
        .group_by("question_id", maintain_order=True)
        .agg(more_positives=passage("title", "text"), more_positive_ids="doc_id")
    )
    return (
        mined.select("question_id")
        .join(found, on="question_id", how="left", maintain_order="left")
        .with_columns(pl.col(*columns).fill_null([]))
    )


def _documents_shown(
    answered: pl.DataFrame, mined: pl.DataFrame, base: pl.DataFrame, known: pl.DataFrame
) -> pl.DataFrame:
    """Return `question_id, sample_index, documents, shows_held_out`: the documents as one text."""
    texts = pl.concat(
        [
            base.select("question_id", "doc_id", "text"),
            mined.select(
                "question_id",
                doc_id=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
                text="hard_negatives",
            ).explode("doc_id", "text", empty_as_null=False),
        ]
    )
    document = pl.format("## Document {}\n\n{}", "number", passage("title", "text"))
    return (
        answered.select(*_ANSWER_KEY, doc_id="context_doc_ids")
        .explode("doc_id", empty_as_null=False)
        .join(texts, on=["question_id", "doc_id"], how="left", maintain_order="left")
        .join(
            known.select("doc_id", "title", "split"), on="doc_id", how="left", maintain_order="left"
        )
        .with_columns(number=pl.int_range(1, pl.len() + 1).over(_ANSWER_KEY))
        .group_by(_ANSWER_KEY, maintain_order=True)
        .agg(
            documents=document.str.join("\n\n", ignore_nulls=False),
            shows_held_out=(pl.col("split") != "train").any(),
        )
    )


def _prompts(
    answered: pl.DataFrame,
    mined: pl.DataFrame,
    base: pl.DataFrame,
    known: pl.DataFrame,
    options: ExportOptions,
) -> pl.DataFrame:
    """Return each answer with the prompt that it answers: the documents in the teacher's order."""
    scenario = pl.col("scenario").fill_null("").str.strip_chars()
    asked = (
        pl.when(scenario == "")
        .then("question")
        .otherwise(pl.format("{}\n\n{}", scenario, "question"))
    )
    before = f"{options.task_instruction}\n\n" if options.task_instruction else ""
    return (
        answered.drop("doc_id", "text", "question", "hard_negatives", "context_doc_ids")
        .join(
            _documents_shown(answered, mined, base, known),
            on=_ANSWER_KEY,
            how="left",
            maintain_order="left",
        )
        .join(
            base.select("question_id", "question", "scenario", "question_answer"),
            on="question_id",
            maintain_order="left",
        )
        .with_columns(
            prompt=pl.format(
                "{}# Retrieved Documents\n\n{}\n\n# Question\n\n{}",
                pl.lit(before),
                "documents",
                asked,
            ),
            reference_answer=pl.coalesce("reference_answer", "question_answer"),
        )
        .drop("documents", "question", "scenario", "question_answer", "suspected_relevant")
    )


def _tokens(name: str) -> pl.Expr:
    return (pl.col(name).str.len_chars() / _CHARS_A_TOKEN).ceil().cast(pl.Int64)


def _tokens_of_list(name: str) -> pl.Expr:
    chars = pl.col(name).list.eval(pl.element().str.len_chars()).list.sum()
    return (chars / _CHARS_A_TOKEN).ceil().cast(pl.Int64)


def _not_blank(text: pl.Expr) -> pl.Expr:
    return pl.when(text.str.strip_chars() != "").then(text)


def _columns(tables: ParquetTables, table: str, shard: str) -> Sequence[str]:
    with tables.reading(table, shard):
        return tables.scan(table, shard).collect_schema().names()


def _language(text: str) -> str:
    import py3langid

    code: str = py3langid.classify(text)[0]
    return code
