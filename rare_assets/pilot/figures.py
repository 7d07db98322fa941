"""What the checks of the tables say of a configuration's rows, and figures of them."""

from __future__ import annotations

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from rare_assets.catalog.metadata import n_words
from rare_assets.checks.by_table import CHECKS
from rare_assets.checks.judgement import StoredShard, figures
from rare_assets.files.cache import temporary_folder
from rare_assets.pilot.trial import Trial
from rare_assets.resources.configurable import teacher_of
from rare_assets.resources.dataset import UNNAMED, Dataset
from rare_assets.schemas import Produced
from rare_assets.stages import hard_negatives, questions, reasoning
from rare_assets.stages.order import AFTER_DOCUMENTS
from rare_assets.storage.tables import ParquetTables

SHARD = "pilot"


class Judged(NamedTuple):
    """A rule's result: `passed`, `warning` or `error`, with the measured values in a line."""

    result: str
    measured: str


class RuleRow(NamedTuple):
    """A rule of a table, and its result for each configuration by name; None where there is no row."""

    table: str
    rule: str
    holds: str
    results: dict[str, Judged | None]


def judge_rules(
    trials: list[Trial], documents: pl.DataFrame, dataset: Dataset = UNNAMED
) -> list[RuleRow]:
    """Judge each configuration's rows by the checks that a run's tables are judged by.

    Left out are rules that ask the index, and those of the source's files.
    """
    found = {trial.name: _judged(trial, documents, dataset) for trial in trials}
    rows = []
    for table in AFTER_DOCUMENTS:
        for check in CHECKS[table]:
            for rule in check.rules:
                if not rule.needs_index:
                    results = {name: its.get((table, rule.name)) for name, its in found.items()}
                    rows.append(RuleRow(table, rule.name, rule.holds, results))
    return rows


def measures(trial: Trial) -> dict[str, dict[str, str]]:
    """Return figures of a configuration's rows by stage and name, as people read them."""
    found: dict[str, dict[str, str]] = {}
    for stage in AFTER_DOCUMENTS:
        if stage not in trial.produced:
            continue
        rows, rejects = trial.produced[stage]
        reasons = rejects["reason"].value_counts(sort=True, name="n").iter_rows()
        found[stage] = {
            "rows": f"{rows.height:,}",
            "rejects": ", ".join(f"{n:,} {reason}" for reason, n in reasons) or "none",
        }
        if rows.height:
            found[stage] |= _of_rows(stage, rows)
    return found


def _of_rows(stage: str, rows: pl.DataFrame) -> Mapping[str, str]:
    if stage == "questions":
        return {
            "words in a question, median": _median(n_words(rows["question"])),
            "answers asked for, mean": _mean(rows["attempts"]),
        }
    if stage == "hard_negatives":
        best = pl.col("negatives").list.eval(pl.element().struct.field("score")).list.max()
        gap = rows.select(100 * (pl.col("gold_score") - best) / pl.col("gold_score")).to_series()
        return {
            "negatives a question, mean": _mean(rows["hard_negatives"].list.len()),
            "BM25 rank of the gold document, median": _median(rows["gold_rank"]),
            "gold document ranked first": _share(rows["gold_rank"] == 1),
            "best negative's score below the gold's, median": f"{_median(gap.fill_nan(None))} %",
        }
    return {
        "words in a reasoning, median": _median(n_words(rows["reasoning"])),
        "agrees with the reference": _share(rows["answer_correct"]),
        "says that it used the gold document": _share(rows["gold_used"]),
        "negatives that it says it used": f"{rows['suspected_relevant'].list.len().sum():,}",
        "answers asked for, mean": _mean(rows["attempts"]),
    }


def _judged(
    trial: Trial, documents: pl.DataFrame, dataset: Dataset
) -> dict[tuple[str, str], Judged]:
    found = {}
    with TemporaryDirectory(prefix="rare-pilot-", dir=temporary_folder()) as folder:
        tables = ParquetTables(folder)
        _write(tables, trial, documents)
        for table in AFTER_DOCUMENTS:
            if table not in trial.produced or trial.produced[table].rows.is_empty():
                continue
            stored = StoredShard(table, SHARD, tables, dataset=dataset)
            for check in CHECKS[table]:
                for rule, judgement in check.judge(stored, with_index=False).judged:
                    severity = "error" if judgement.severity.value == "ERROR" else "warning"
                    found[table, rule.name] = Judged(
                        "passed" if judgement.passed else severity, figures(judgement.measured)
                    )
    return found


def _write(tables: ParquetTables, trial: Trial, documents: pl.DataFrame) -> None:
    """Put a trial's frames where rules look for them, with the options that they were made with."""
    tables.write("documents", SHARD, documents)
    configuration, state = trial.configuration, trial.state
    if configuration is None or state is None:
        return
    options, templates, teacher = (
        configuration.options,
        configuration.templates,
        configuration.teacher,
    )
    judge = teacher_of(teacher, "judge").name
    made_from = {
        questions.NAME: questions.made_from(
            "", options.questions, templates, teacher_of(teacher, questions.NAME).name, judge
        ),
        hard_negatives.NAME: hard_negatives.made_from(
            "", options.hard_negatives, state, templates, judge
        ),
        reasoning.NAME: reasoning.made_from(
            dict.fromkeys(reasoning.UPSTREAMS, ""),
            options.reasoning,
            templates,
            teacher_of(teacher, reasoning.NAME).name,
            judge,
        ),
    }
    for stage, produced in trial.produced.items():
        rows, rejects = Produced(*produced)
        tables.write(stage, SHARD, rows, rejects, made_from[stage])


def _median(values: pl.Series) -> str:
    return _number(values.median())


def _mean(values: pl.Series) -> str:
    return _number(values.mean())


def _number(value: object) -> str:
    return f"{value:,.3g}" if isinstance(value, int | float) else "none"


def _share(truths: pl.Series) -> str:
    """Return how many are true of those that are known, in percent; `not known` where none is."""
    known = truths.drop_nulls()
    if known.is_empty():
        return "not known"
    return f"{100 * int(known.sum()) / len(known):.0f} % of {len(known)}"
