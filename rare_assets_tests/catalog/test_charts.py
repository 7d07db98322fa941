"""The histogram: what it counts, and that the UI shows it in its place."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest

from rare_assets.catalog.charts import INLINE_CHARS, histogram


def drawn(values, label="words", unit=""):
    """The Markdown, its picture, and the bars as (place from the left, height)."""
    shown = histogram(pl.Series(values), label, unit).md_str
    (encoded,) = re.findall(r"!\[.*\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", shown)
    picture = ElementTree.fromstring(base64.b64decode(encoded))
    (path,) = (part for part in picture if part.tag.endswith("path"))
    bars = re.findall(r"M(\d+) \d+v-(\d+)h", path.get("d"))
    return shown, picture, [(int(place), int(height)) for place, height in bars]


def test_bars_are_as_high_as_the_values_are_many():
    _, picture, bars = drawn([1, 1, 1, 1, 2, 2, 4])
    heights = [height for _, height in bars]
    assert heights == [max(heights), max(heights) // 2, max(heights) // 4]
    # Nothing has the value 3: its place stays empty.
    first, second, fourth = (place for place, _ in bars)
    assert fourth - second == 2 * (second - first)
    assert [part.text for part in picture if part.text] == ["1", "4", "max 4"]


def test_it_says_how_many_values_there_are_and_their_median():
    shown, picture, _ = drawn([12.5, 50.0, None, float("nan"), 75.0], "gap", " %")
    assert shown.startswith("gap: 3 values, median 50 %\n")
    assert [part.text for part in picture if part.text] == ["12.5 %", "75 %", "max 1"]


@pytest.mark.parametrize(
    "values", [[7] * 5, [0.25] * 3, range(100_000), [number / 7 for number in range(1000)], [-1, 1]]
)
def test_it_is_short_enough_to_be_shown_in_its_place(values):
    shown, picture, bars = drawn(list(values), "words in a chain of reasoning", " %")
    assert len(shown) < INLINE_CHARS
    assert 0 < len(bars) <= 20
    assert max(place for place, _ in bars) < int(picture.get("width"))


def test_without_values_there_is_no_picture():
    assert histogram(pl.Series([None, None]), "gap").md_str == "No values: gap."
