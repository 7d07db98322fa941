"""What holds for hard negatives: never the gold, never made up, ranked and scored as the options say."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl

from rare_assets.checks.judgement import EXAMPLES, Judgement, StoredShard, no_rows, rate_below
from rare_assets.checks.structure import Upstream, rows_as_stored
from rare_assets.checks.wording import content_stems
from rare_assets.operators.bm25_hard_neg import BY_GOLD, BY_QUESTION, searched_with
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.provenance import MINED_FROM

# With fewer other documents it is no wonder that a question has no negative: the fallback of the
# defaults begins at this rank. With as many, that not one question has any is; that most have none is
# with more, since a question in other words than its document's skips the nearest ranks, too. There one or two
# questions in words that no document has are a weak teacher's, and no fault of the index.
ENOUGH_DOCUMENTS, MANY_DOCUMENTS = 20, 50
FEWEST_IN_FEW_DOCUMENTS = 3
MOST = 0.5
# A share of fewer questions says little.
FEWEST_FOR_DIFFICULTY = 20
FEWEST_CONTENT_WORDS = 3
# Of 40 questions written by hand on the sample corpus that ask for reasoning, one has so many; of 19 that
# look something up, 15 (`words_shared`).
MOST_SHARED = 0.8
# Engines order scores that are equal to five digits by doc_id.
_EQUAL = 1e-4


def gold_not_in_negatives(stored: StoredShard) -> Judgement:
    """Require that no negative is the gold document, by id or by text."""
    gold = stored.other("documents").select("doc_id", "text")
    leaks = (
        stored.rows.lazy()
        .join(gold, on="doc_id", how="left")
        .filter(
            pl.col("hard_negatives").list.contains(pl.col("text"))
            | _of_negatives("doc_id").list.contains(pl.col("doc_id"))
        )
        .select("question_id")
        .collect()["question_id"]
    )
    return no_rows("leaks", leaks)


def negatives_distinct(stored: StoredShard) -> Judgement:
    """Require that no text stands twice among the negatives of one question."""
    texts = pl.col("hard_negatives")
    repeated = stored.rows.filter(texts.list.n_unique() != texts.list.len())["question_id"]
    return no_rows("repeated", repeated)


def negatives_exist_in_corpus(stored: StoredShard) -> Judgement:
    """Require that every negative is a document that the index holds, with that very text."""
    said = (
        stored.rows.filter(_parallel())
        .select(doc_id=_of_negatives("doc_id"), text=pl.col("hard_negatives"))
        .filter(pl.col("doc_id").list.len() > 0)
        .explode("doc_id", "text")
        .unique()
    )
    with stored.retriever.open() as engine:
        held = engine.texts(said["doc_id"].unique().to_list())
    unknown = said.join(held, on=["doc_id", "text"], how="anti")["doc_id"].sort()
    return no_rows("unknown", unknown, negatives=said.height)


def negatives_best_first(stored: StoredShard) -> Judgement:
    """Require that texts and `negatives` go together one by one, and that within each ranking ranks
    rise and scores fall with them, unless both rankings were fused into one."""
    ordered = [_ordered(origin) for origin in (BY_QUESTION, BY_GOLD)]
    if _options(stored)["query"] == "fused":
        ordered = []
    checked = stored.rows.select("question_id", holds=pl.all_horizontal(_parallel(), *ordered))
    wrong = checked.filter(~pl.col("holds"))["question_id"]
    return no_rows("misordered", wrong)


def gold_rank_fits_score(stored: StoredShard) -> Judgement:
    """Require that the gold document's rank stands to those of the negatives as its score does to
    theirs, in the ranking by the question."""
    gold_rank, gold_score = pl.col("gold_rank"), pl.col("gold_score")
    ranked = (
        stored.rows.filter(gold_rank.is_not_null())
        .explode("negatives")
        .select("question_id", "gold_rank", "gold_score", pl.col("negatives").struct.unnest())
        .filter(pl.col("origin").ne_missing(BY_GOLD))
    )
    better, worse = pl.col("rank") < gold_rank, pl.col("rank") > gold_rank
    fits = (gold_score > 0) & (
        (better & (pl.col("score") >= gold_score * (1 - _EQUAL)))
        | (worse & (pl.col("score") <= gold_score * (1 + _EQUAL)))
    ).fill_null(pl.col("rank").is_null())
    wrong = ranked.filter(~fits.fill_null(False))["question_id"].unique(maintain_order=True)
    return no_rows("contradictory", wrong)


def negatives_within_options(stored: StoredShard) -> Judgement:
    """Require that every negative that the question found keeps the bounds of the mining's options.

    Where margins left too few, candidates from `fallback_range_min` on may lie beyond them. Ranks of
    two rankings that were fused are not those that range_min and fallback_range_min count.
    """
    options = _options(stored)
    score, gold = pl.col("score"), pl.col("gold_score")
    fused = options["query"] == "fused"
    breaks: dict[str, pl.Expr] = {}
    if not fused:
        breaks["range_min"] = pl.col("rank") <= options["range_min"]
    if options["max_score"] is not None:
        breaks["max_score"] = score > options["max_score"]
    if options["min_score"] is not None:
        breaks["min_score"] = score < options["min_score"]
    fallback = options["fallback_range_min"]
    bound = (gold > 0) & pl.lit(not fused)
    if fallback is not None:
        bound &= pl.col("rank") <= fallback
    if options["absolute_margin"] is not None:
        breaks["absolute_margin"] = bound & (score > gold - options["absolute_margin"])
    if options["relative_margin"]:
        breaks["relative_margin"] = bound & (score > gold * (1 - options["relative_margin"]))
    each = (
        stored.rows.explode("negatives")
        .select("question_id", "gold_score", pl.col("negatives").struct.unnest())
        .filter(pl.col("rank").is_not_null(), pl.col("origin").ne_missing(BY_GOLD))
        .select(
            "question_id", **{option: broken.fill_null(False) for option, broken in breaks.items()}
        )
    )
    wrong = each.filter(pl.any_horizontal(pl.lit(False), *breaks.keys()))["question_id"].unique(
        maintain_order=True
    )
    by_option = {option: int(each[option].sum()) for option in breaks}
    return no_rows("questions_beyond", wrong, negatives_beyond=by_option)


def questions_as_stored(stored: StoredShard) -> Judgement:
    """Require that each row was searched with its question as it is stored now."""
    columns = {"doc_id": pl.col("doc_id"), "query": searched_with(_options(stored)["query"])}
    return rows_as_stored(Upstream("questions", "question_id", columns))(stored)


def num_negatives_found(stored: StoredShard) -> Judgement:
    """Expect as many negatives a question as were asked for; a small corpus may not have them.

    Where most questions have none at all, though the corpus has documents enough, what follows would
    be paid for without negatives: an error. It is the index that is wrong then, or the options.
    """
    options = _options(stored)
    wanted = options["num_neg"]
    found = stored.rows["hard_negatives"].list.len()
    counts = found.value_counts(sort=True, name="questions").sort("hard_negatives")
    short = stored.rows.filter(found < wanted)["question_id"]
    share = len(short) / len(found) if len(found) else 0.0
    threshold = stored.threshold("max_short_of_negatives_rate")
    without = int((found == 0).sum())
    provenance = stored.tables.provenance(stored.table, stored.shard)
    documents = int((provenance.made_from if provenance else {}).get(MINED_FROM, 0))
    many = documents > MANY_DOCUMENTS
    most = MOST if many else 1 - 1 / (len(found) + 1)
    enough = documents - 1 >= max(ENOUGH_DOCUMENTS, wanted) + options["range_min"]
    tells = many or len(found) >= FEWEST_IN_FEW_DOCUMENTS
    none_to_learn_from = enough and tells and without > most * len(found)
    return Judgement(
        share <= threshold and not none_to_learn_from,
        {
            "questions_without_negatives": without,
            "documents_in_index": documents,
            "num_neg": wanted,
            "questions_with_fewer": len(short),
            "share_with_fewer": share,
            "threshold": threshold,
            "questions_by_number_found": {
                str(number): questions for number, questions in counts.iter_rows()
            },
            "examples": short.head(EXAMPLES).to_list(),
        },
        dg.AssetCheckSeverity.ERROR if none_to_learn_from else dg.AssetCheckSeverity.WARN,
        f"{without} of {len(found)} questions have no negative at all, in an index of {documents} "
        "documents. Materialize corpus_index, then hard_negatives of the shard; if that changes "
        "nothing, its options (range_min, range_max, margins, scores) leave none"
        if none_to_learn_from
        else None,
    )


def gold_not_always_first(stored: StoredShard) -> Judgement:
    """Expect BM25 not to find nearly every gold document at the first rank: that is what makes a
    question hard to search for."""
    judged = stored.rows.filter(pl.lit(stored.rows.height >= FEWEST_FOR_DIFFICULTY))
    first = judged.filter(pl.col("gold_rank") == 1).select("question_id", "query")
    return rate_below("gold_first", first, judged.height, stored.threshold("max_gold_first_rate"))


def questions_in_words_of_their_own(stored: StoredShard) -> Judgement:
    """Expect few questions to have most of their content words from their gold document."""
    gold = stored.other("documents").select("doc_id", "title", "text").collect()
    shared = words_shared(stored.rows, gold)
    if shared.height < FEWEST_FOR_DIFFICULTY:
        shared = shared.clear()
    flagged = shared.filter(pl.col("shared") >= MOST_SHARED)
    return rate_below(
        "shared_words", flagged, shared.height, stored.threshold("max_shared_words_rate")
    )


def words_shared(mined: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """Return `question_id, query, shared`: the share (0 to 1) of a query's content words that the
    gold document has; only queries with enough content words."""
    words = content_stems(pl.col("query"))
    theirs = content_stems(pl.concat_str("title", "text", separator="\n", ignore_nulls=True))
    return (
        mined.select("question_id", "doc_id", "query")
        .join(documents.select("doc_id", "title", "text"), on="doc_id", maintain_order="left")
        .with_columns(words=words)
        .filter(pl.col("words").list.len() >= FEWEST_CONTENT_WORDS)
        .select(
            "question_id",
            "query",
            shared=pl.col("words").list.set_intersection(theirs).list.len()
            / pl.col("words").list.len(),
        )
    )


def _options(stored: StoredShard) -> dict[str, Any]:
    """Return the options that the shard was mined with; defaults for those it does not tell."""
    defaults = HardNegativesConfig.model_validate({})
    return defaults.model_dump() | defaults.settled() | stored.options


def _of_negatives(field: str) -> pl.Expr:
    return pl.col("negatives").list.eval(pl.element().struct.field(field))


def _ordered(origin: str) -> pl.Expr:
    """Return True where the negatives of one ranking stand best first."""
    of_it = pl.col("negatives").list.eval(
        pl.element().filter(pl.element().struct.field("origin") == origin)
    )
    ranks, scores = (of_it.list.eval(pl.element().struct.field(name)) for name in ("rank", "score"))
    rising = ranks.list.diff(null_behavior="drop").list.min().fill_null(1) > 0
    # A score may lie above the one before it by less than what counts as equal.
    ascent = scores.list.diff(null_behavior="drop").list.max().fill_null(0.0)
    return rising & (ascent <= scores.list.max().fill_null(0.0).abs() * _EQUAL)


def _parallel() -> pl.Expr:
    return pl.col("hard_negatives").list.len() == pl.col("negatives").list.len()
