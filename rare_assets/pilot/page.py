"""The page of a pilot: one HTML file that opens from disk, configurations side by side."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rare_assets.pilot.figures import RuleRow, judge_rules, measures
from rare_assets.pilot.judging import PairFigures, Verdict, counted
from rare_assets.pilot.projection import Projection
from rare_assets.pilot.run import Pilot
from rare_assets.pilot.trial import Trial
from rare_assets.stages.order import AFTER_DOCUMENTS
from rare_assets.text.shown import cut

TEMPLATE = Path(__file__).with_name("page.html.j2")
# Of a text: the page stays small whatever the documents are.
SHOWN_CHARS = 8000
SHOWN_DOCUMENTS = 100
UNKNOWN = "unknown, no price"


class Line(NamedTuple):
    """A line of the table side by side: a value for each configuration, in their order; lines of one
    stage stand below its name."""

    name: str
    values: list[str]
    stage: str = ""

    @property
    def differs(self) -> bool:
        """Whether the configurations that have a value differ in it."""
        return len(set(filter(None, self.values))) > 1


class Made(NamedTuple):
    """What a configuration made of a document: its questions, each with negatives and reasoning."""

    name: str
    questions: list[dict[str, Any]]
    rejects: list[dict[str, Any]]


class Compared(NamedTuple):
    """A document of the sample, what each configuration made of it, and how that was judged."""

    document: dict[str, Any]
    made: list[Made]
    verdicts: list[Verdict]


def page(pilot: Pilot, origin: Mapping[str, str]) -> str:
    """Return the page as HTML, which loads nothing from anywhere.

    Args:
        origin: what stands below the title, by name: source, storage.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cut"] = lambda text: cut("" if text is None else str(text), SHOWN_CHARS)
    environment.filters["count"] = lambda number: f"{number:,}"
    judging = pilot.judging
    pairs: list[PairFigures] = []
    if judging is not None:
        pairs = counted(pilot.trials, judging.verdicts, pilot.documents.height)
    rules = judge_rules(pilot.trials, pilot.documents, pilot.dataset)
    return environment.from_string(TEMPLATE.read_text()).render(
        pilot=pilot,
        origin=origin,
        names=[trial.name for trial in pilot.trials],
        recovered=[trial.name for trial in pilot.trials if trial.produced],
        settings=_settings(pilot),
        whole=_whole(pilot),
        took=_took(pilot),
        measured=_measured(pilot),
        rules=[rule for rule in rules if not _passes(rule)],
        passing=[rule for rule in rules if _passes(rule)],
        pairs=pairs,
        judge_cost=None if judging is None else dollars(judging.use.cost_usd),
        compared=list(_compared(pilot)),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def dollars(value: float | None) -> str:
    """Return an amount in USD as people read it; an unknown price is no zero.

    >>> dollars(0.01234), dollars(1234.5)
    ('$0.0123', '$1,234.50')
    """
    if value is None:
        return UNKNOWN
    return f"${value:,.2f}" if value >= 10 else f"${value:,.4f}"


def duration(seconds: float) -> str:
    """Return a time in seconds as people read it, in two units at most.

    >>> duration(5), duration(300), duration(5400)
    ('5.0 s', '5 min', '1 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = round(seconds / 60), round(seconds / 3600), round(seconds / 86400)
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{days} days"


def time_of(found: Projection) -> str:
    """Return the time of a projection as people read it: batches take up to a day a stage."""
    days = "a day" if found.in_batches == 1 else f"{found.in_batches} days"
    batches = f"up to {days} in batches" if found.in_batches else ""
    online = duration(found.seconds) if found.seconds or not batches else ""
    return " and ".join(filter(None, (batches, online)))


def _passes(rule: RuleRow) -> bool:
    return all(each is None or each.result == "passed" for each in rule.results.values())


def _settings(pilot: Pilot) -> list[Line]:
    settings = [t.configuration.settings if t.configuration else {} for t in pilot.trials]
    names = dict.fromkeys(name for each in settings for name in each)
    default = dict.fromkeys(names, "default")
    unusable = dict.fromkeys(names, "")
    return [
        Line(name, [({**default, **each} if each else unusable)[name] for each in settings])
        for name in names
    ]


def _whole(pilot: Pilot) -> list[Line]:
    """Return lines on what the whole corpus would take with each configuration."""
    lines: dict[str, list[str]] = defaultdict(list)
    for trial in pilot.trials:
        found = pilot.projections[trial.name]
        its = dict.fromkeys(("cost", "of it paid already", "time", "requests", "tokens"), "")
        if found is not None:
            margin = f" ± {100 * found.margin:.0f} %" if found.margin else ""
            priced = found.cost_usd is not None
            its = {
                "cost": f"{dollars(found.cost_usd)}{margin if priced else ''}",
                "of it paid already": dollars(found.paid_usd),
                "time": f"{time_of(found)} ({found.in_flight:,} requests in flight)",
                "requests": f"{found.answers:,}",
                "tokens": f"{found.prompt_tokens:,} read, {found.completion_tokens:,} written{margin}",
            }
        for name, value in its.items():
            lines[name].append(value)
    return [Line(name, values) for name, values in lines.items()]


def _took(pilot: Pilot) -> list[Line]:
    """Return lines on what the sample took, stage by stage."""
    lines = [Line("time of this pilot", [duration(t.seconds) for t in pilot.trials])]
    for stage in AFTER_DOCUMENTS:
        if not any(stage in trial.use for trial in pilot.trials):
            continue
        found = [_stage_took(trial, stage) for trial in pilot.trials]
        lines += [
            Line(name, [each.get(name, "") for each in found], stage)
            for name in ("requests", "tokens", "cost", "seconds an answer")
        ]
    return lines


def _stage_took(trial: Trial, stage: str) -> dict[str, str]:
    use = trial.use.get(stage)
    if use is None:
        return {}
    latencies = use.latencies_s
    return {
        "requests": f"{use.answers:,} answers, {use.requests:,} of them asked for now",
        "tokens": f"{use.prompt_tokens:,} read, {use.completion_tokens:,} written",
        "cost": f"{dollars(use.cost_usd)}, {dollars(use.paid_usd)} of it now",
        "seconds an answer": f"{sum(latencies) / len(latencies):.2f}" if latencies else "",
    }


def _measured(pilot: Pilot) -> list[Line]:
    found = [measures(trial) for trial in pilot.trials]
    lines = []
    for stage in AFTER_DOCUMENTS:
        names = dict.fromkeys(name for each in found for name in each.get(stage, {}))
        for name in names:
            values = [each.get(stage, {}).get(name, "") for each in found]
            lines.append(Line(name, values, stage))
    return lines


def _compared(pilot: Pilot) -> Iterator[Compared]:
    made = [_made(trial) for trial in pilot.trials]
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in pilot.judging.verdicts if pilot.judging else ():
        verdicts[verdict.doc_id].append(verdict)
    for document in pilot.documents.head(SHOWN_DOCUMENTS).iter_rows(named=True):
        doc_id = document["doc_id"]
        columns = [
            each.get(doc_id, Made(trial.name, [], []))
            for trial, each in zip(pilot.trials, made, strict=True)
        ]
        yield Compared(document, columns, verdicts[doc_id])


def _made(trial: Trial) -> dict[str, Made]:
    """Return what a configuration made, by document."""
    found: dict[str, Made] = defaultdict(lambda: Made(trial.name, [], []))
    by_question: dict[str, dict[str, Any]] = {}
    produced = trial.produced
    if "questions" in produced:
        for row in produced["questions"].rows.iter_rows(named=True):
            by_question[row["question_id"]] = {**row, "mined": None, "answers": []}
            found[row["doc_id"]].questions.append(by_question[row["question_id"]])
    if "hard_negatives" in produced:
        for row in produced["hard_negatives"].rows.iter_rows(named=True):
            by_question[row["question_id"]]["mined"] = row
    if "reasoning" in produced:
        for row in produced["reasoning"].rows.iter_rows(named=True):
            by_question[row["question_id"]]["answers"].append(row)
    for stage, (_, rejects) in produced.items():
        for row in rejects.iter_rows(named=True):
            found[row["doc_id"]].rejects.append({**row, "stage": stage})
    return found
