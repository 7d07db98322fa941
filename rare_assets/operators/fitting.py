"""Make contexts fit a model's window: the worst negatives are left out of what is shown, and named."""

from __future__ import annotations

import polars as pl

from rare_assets.operators.templates import PromptTemplate
from rare_assets.teacher import advice, text_tokens

# Tags, number and title of a document, and the frame of a chat.
_PER_DOCUMENT = 40
_FRAME = 64
# Of a window, for an answer whose length nothing bounds.
_SHARE_OF_ANSWER = 4


def fitted(
    hard_negatives: pl.DataFrame,
    questions: pl.DataFrame,
    documents: pl.DataFrame,
    template: PromptTemplate,
    *,
    max_context_tokens: int | None,
    max_tokens: int | None,
) -> pl.DataFrame:
    """Return the hard negatives without those for which there is no room, worst first.

    Tokens are counted by four bytes each. Where the gold document alone is too long, it is left alone.

    Args:
        hard_negatives: `schemas.HardNegatives`, best first.
        questions, documents: theirs.
        max_context_tokens: tokens that prompt and answer may have together; None for no bound.
        max_tokens: longest answer; None keeps a quarter of the window for it.
    """
    if max_context_tokens is None:
        return hard_negatives
    budget = max_context_tokens - (max_tokens or max_context_tokens // _SHARE_OF_ANSWER)
    fixed = text_tokens(template.wording) + _FRAME + _PER_DOCUMENT
    texts = questions.select("question_id", "doc_id", "question", "scenario").join(
        documents.select("doc_id", "text"), on="doc_id", how="left", maintain_order="left"
    )
    of = {
        question_id: fixed + sum(text_tokens(text or "") for text in parts)
        for question_id, *parts in texts.select(
            "question_id", "question", "scenario", "text"
        ).iter_rows()
    }
    kept = [
        _kept(negatives, budget - of.get(question_id, fixed))
        for question_id, negatives in hard_negatives.select(
            "question_id", "hard_negatives"
        ).iter_rows()
    ]
    lists = [name for name, kind in hard_negatives.schema.items() if _is_per_negative(name, kind)]
    return hard_negatives.with_columns(pl.Series("_kept", kept, pl.Int64)).select(
        pl.col(name).list.head(pl.col("_kept")) if name in lists else pl.col(name)
        for name in hard_negatives.columns
    )


def foreseen(documents: pl.DataFrame, window: int | None, num_neg: int) -> str | None:
    """Return what to tell a user, before questions are paid for, where the reasoning on them will not fit.

    None where it will fit the model's window, or nobody knows. Half of the documents are longer than the
    one that is counted with.

    Args:
        documents: `schemas.Documents`; their neighbours are taken to be as long.
        window: tokens that prompt and answer may have together.
        num_neg: negatives that will be shown beside the document.

    >>> said = foreseen(pl.DataFrame({"text": ["word " * 400]}), 2000, 3)
    >>> said.partition(". ")[0].rpartition(": ")[2]
    "a document and 3 negatives take about 2,224 tokens, the model's window has 2,000"
    """
    if window is None or documents.is_empty():
        return None
    median = documents["text"].str.len_bytes().median()
    each = int(float(median or 0) // 4) + _PER_DOCUMENT  # type: ignore[arg-type]
    prompt = (1 + num_neg) * each + _FRAME
    if prompt <= window:
        return None
    return (
        f"The reasoning on these documents will not fit: a document and {num_neg} negatives take about "
        f"{prompt:,} tokens, the model's window has {window:,}. {advice(window)}"
    )


def with_all_negatives(reasoning: pl.DataFrame, hard_negatives: pl.DataFrame) -> pl.DataFrame:
    """Return reasoning rows with all negatives of their question again, and in `left_out` the ids of those
    that the teacher was not shown.

    Args:
        reasoning: as `schemas.Reasoning`, made from what `fitted` had left.
        hard_negatives: `schemas.HardNegatives`, before `fitted`.
    """
    of = hard_negatives.select(
        "question_id",
        "hard_negatives",
        _ids=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
    )
    columns = reasoning.columns
    rows = reasoning.drop("hard_negatives").join(
        of, on="question_id", how="left", maintain_order="left"
    )
    left_out = [
        [doc_id for doc_id in ids if doc_id not in set(shown)]
        for ids, shown in rows.select("_ids", "context_doc_ids").iter_rows()
    ]
    return rows.with_columns(left_out=pl.Series(left_out, dtype=pl.List(pl.String))).select(columns)


def _is_per_negative(name: str, kind: pl.DataType) -> bool:
    return isinstance(kind, pl.List) and name.startswith(("hard_negative", "negative"))


def _kept(negatives: list[str], room: int) -> int:
    for number, negative in enumerate(negatives):
        room -= text_tokens(negative) + _PER_DOCUMENT
        if room < 0:
            return number
    return len(negatives)
