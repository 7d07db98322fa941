"""Small pictures in a run's metadata: a histogram as Markdown that the UI shows in its place.

The UI shows Markdown of fewer than 1,000 characters inline, longer one behind a button; an SVG of one
path fits, needs no library, and its colours read on a light and a dark page.
"""

import base64
import math

import dagster as dg
import polars as pl

BARS = 20
WIDTH, HEIGHT, MARGIN = 420, 96, 16
# The UI's limit for Markdown shown inline.
INLINE_CHARS = 1000


def histogram(values: pl.Series, label: str, unit: str = "") -> dg.MetadataValue:
    """Draw how many values fall where, from the lowest to the highest, as Markdown with one
    picture.

    Args:
        values: numbers; nulls and what is not finite are left out.
        label: what is counted, as `words in a question`.
        unit: stands after the numbers below the axis, as ` %`.
    """
    known = values.cast(pl.Float64).drop_nulls()
    known = known.filter(known.is_finite())
    if known.is_empty():
        return dg.MetadataValue.md(f"No values: {label}.")
    lowest, highest = float(known.min()), float(known.max())  # type: ignore[arg-type]
    counts = _counts(known, lowest, highest)
    median = float(known.median())  # type: ignore[arg-type]
    svg = _svg(counts, [f"{_number(value)}{unit}" for value in (lowest, highest)])
    picture = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(
        f"{label}: {len(known):,} values, median {_number(median)}{unit}\n\n"
        f"![{label}](data:image/svg+xml;base64,{picture})"
    )


def _counts(values: pl.Series, lowest: float, highest: float) -> list[int]:
    """Count the values in each of `BARS` parts of equal width; whole numbers get whole widths."""
    width = (highest - lowest) / BARS
    if (values == values.round()).all():
        width = max(1.0, math.ceil((highest - lowest + 1) / BARS))
    if not width:
        return [len(values)]
    parts = ((values - lowest) / width).cast(pl.Int64).clip(0, BARS - 1)
    found = dict(parts.value_counts().iter_rows())
    return [found.get(part, 0) for part in range(max(found) + 1)]


def _svg(counts: list[int], ends: list[str]) -> str:
    base = HEIGHT - MARGIN
    step = WIDTH // max(len(counts), BARS // 2)
    tallest = max(counts)
    bars = ""
    for place, count in enumerate(counts):
        if count:
            height = max(1, round((base - MARGIN) * count / tallest))
            bars += f"M{place * step} {base}v-{height}h{step - 2}v{height}"
    end = step * len(counts) - 2
    lowest, highest = ends
    right = f'<text x="{end}" y="{HEIGHT - 3}" text-anchor="end">{highest}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="#888"><path fill="#7886f0" d="{bars}"/>'
        f'<text y="{HEIGHT - 3}">{lowest}</text>{right if highest != lowest else ""}'
        f'<text y="11">max {tallest:,}</text></svg>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
