"""Which of two configurations made the better example of a document, by a judge that sees them in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.judge import Judge, JudgedPair, PairVerdict
from rare_assets.pilot.trial import Trial
from rare_assets.text.titled import titled

# What comes of a pair besides a winner.
TIE, ORDERS_DISAGREE, NO_VERDICT = "tie", "orders disagree", "no verdict"


class Verdict(NamedTuple):
    """What was judged of a document's examples by two configurations.

    `winner` is a configuration's name, or one of TIE, ORDERS_DISAGREE (the judge preferred a place, or
    changed its mind) and NO_VERDICT. `explanations` are the judge's, in both orders.
    """

    doc_id: str
    one: str
    other: str
    winner: str
    explanations: tuple[str, ...]


class PairFigures(NamedTuple):
    """The verdicts on two configurations, counted. `not_compared` are documents that one of them made no
    example of."""

    one: str
    other: str
    wins_one: int
    wins_other: int
    ties: int
    orders_disagree: int
    no_verdict: int
    not_compared: int


def examples(trial: Trial) -> dict[str, str]:
    """Return each document's first example as the judge reads it: question, scenario, reasoning,
    answer."""
    if "reasoning" not in trial.produced:
        return {}
    rows = trial.produced["reasoning"].rows.unique("doc_id", keep="first", maintain_order=True)
    return {row["doc_id"]: _as_text(row) for row in rows.iter_rows(named=True)}


def n_requests(trials: Sequence[Trial], n_documents: int) -> int:
    """Return the most requests that judging so many documents takes."""
    return 2 * n_documents * len(list(combinations(trials, 2)))


async def judge_pairs(
    trials: Sequence[Trial], documents: pl.DataFrame, judge: Judge
) -> list[Verdict]:
    """Have every two configurations' examples of each document compared, in both orders.

    Raises:
        TeacherStopped: the judge can't go on; its finished verdicts are kept.
    """
    texts = {
        doc_id: titled(title, text)
        for doc_id, title, text in documents.select("doc_id", "title", "text").iter_rows()
    }
    asked = list(_comparisons(trials, texts))
    pairs = [
        JudgedPair(texts[doc_id], *order)
        for doc_id, _, _, first, second in asked
        for order in ((first, second), (second, first))
    ]
    verdicts = await judge.pairs(pairs)
    return [
        Verdict(doc_id, one, other, *_settled(one, other, verdicts[2 * n], verdicts[2 * n + 1]))
        for n, (doc_id, one, other, _, _) in enumerate(asked)
    ]


def counted(
    trials: Sequence[Trial], verdicts: Sequence[Verdict], n_documents: int
) -> list[PairFigures]:
    """Count the verdicts of every two configurations."""
    found = []
    for one, other in combinations([trial.name for trial in trials], 2):
        winners = Counter(v.winner for v in verdicts if (v.one, v.other) == (one, other))
        found.append(
            PairFigures(
                one,
                other,
                winners.pop(one, 0),
                winners.pop(other, 0),
                winners[TIE],
                winners[ORDERS_DISAGREE],
                winners[NO_VERDICT],
                n_documents - sum(v[1:3] == (one, other) for v in verdicts),
            )
        )
    return found


def _comparisons(
    trials: Sequence[Trial], texts: Mapping[str, str]
) -> Iterator[tuple[str, str, str, str, str]]:
    made = {trial.name: examples(trial) for trial in trials}
    for one, other in combinations(made, 2):
        for doc_id in texts:
            if doc_id in made[one] and doc_id in made[other]:
                yield doc_id, one, other, made[one][doc_id], made[other][doc_id]


def _settled(
    one: str, other: str, forth: PairVerdict | None, back: PairVerdict | None
) -> tuple[str, tuple[str, ...]]:
    """Settle the winner by the verdicts on (one, other) and on (other, one), and what was said."""
    if forth is None or back is None:
        return NO_VERDICT, ()
    said = (forth.explanation, back.explanation)
    first = {"first": one, "second": other, "tie": TIE}[forth.better]
    second = {"first": other, "second": one, "tie": TIE}[back.better]
    return (first if first == second else ORDERS_DISAGREE), said


def _as_text(row: Mapping[str, Any]) -> str:
    parts = [("Scenario", row["scenario"]), ("Question", row["question"])]
    parts += [("Reasoning", row["reasoning"]), ("Answer", row["answer"])]
    return "\n\n".join(f"{name}: {text}" for name, text in parts if text)
