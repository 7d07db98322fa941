"""The page: one HTML file that opens from disk, with its style, its charts and its search inside."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rare_assets.catalog.corpus_report.figures import Distribution, Figures

TEMPLATE = Path(__file__).with_name("page.html.j2")
# Of a text in an example, and of each of its first negatives: below 5 MB whatever the texts are.
SHOWN_CHARS = 3000
NEGATIVE_CHARS, NEGATIVES_SHOWN = 1000, 5
CHART_WIDTH, BAR_HEIGHT = 520, 22


class StageCost(NamedTuple):
    """What the stored answers of a stage took; `dollars` is None where a price is unknown."""

    table: str
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None


class DayCost(NamedTuple):
    """What the runs of a day took for a stage, as their materializations say."""

    day: datetime.date
    table: str
    dollars: float


class Exported(NamedTuple):
    """Rows of a training format."""

    format: str
    rows: int


def page(
    figures: Figures,
    costs: Sequence[StageCost],
    days: Sequence[DayCost],
    exports: Sequence[Exported],
    origin: dict[str, str],
) -> str:
    """Return the page as HTML, which loads nothing from anywhere.

    Args:
        figures: of the tables.
        costs: a row a stage that asks the teacher.
        days: dollars by day and stage; empty where no run is known.
        exports: a row a format that was exported.
        origin: what stands below the title, by name: storage, teacher, index.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["dollars"] = _dollars
    environment.filters["cut"] = _cut
    environment.filters["short"] = lambda text: _cut(text, NEGATIVE_CHARS)
    return environment.from_string(TEMPLATE.read_text()).render(
        figures=figures,
        costs=costs,
        days=_by_day(days),
        # A judge of negatives is paid for, too, where one was asked.
        paid=list(dict.fromkeys([each.table for each in costs] + [each.table for each in days])),
        exports=exports,
        negatives_shown=NEGATIVES_SHOWN,
        origin=origin,
        charts=[(each.title, chart(each)) for each in _distributions(figures)],
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def chart(distribution: Distribution) -> str:
    """Return a bar chart of a distribution as SVG, without the scripts that would load from afar."""
    import pygal

    counts = distribution.counts
    bars = pygal.HorizontalBar(
        js=(),
        no_prefix=True,
        show_legend=False,
        print_values=True,
        value_formatter=lambda value: f"{value:,.0f}",
        disable_xml_declaration=True,
        width=CHART_WIDTH,
        height=70 + BAR_HEIGHT * len(counts),
        style=pygal.style.CleanStyle(font_family="system-ui, sans-serif", value_font_size=10),
    )
    # The first bar stands at the bottom.
    bars.x_labels = list(reversed(counts))
    bars.add("", list(reversed(counts.values())))
    return str(bars.render(is_unicode=True))


def _distributions(figures: Figures) -> list[Distribution]:
    languages = Distribution("Language of a question, of a sample", figures.languages)
    return [*figures.distributions, *([languages] if figures.languages else [])]


def _by_day(days: Sequence[DayCost]) -> list[tuple[datetime.date, dict[str, float]]]:
    found: dict[datetime.date, dict[str, float]] = {}
    for each in days:
        of_day = found.setdefault(each.day, {})
        of_day[each.table] = of_day.get(each.table, 0.0) + each.dollars
    return sorted(found.items())


def _dollars(value: float | None) -> str:
    return "unknown, no price" if value is None else f"${value:,.4f}"


def _cut(text: Any, length: int = SHOWN_CHARS) -> str:
    text = "" if text is None else str(text)
    return text if len(text) <= length else f"{text[:length]} …"
