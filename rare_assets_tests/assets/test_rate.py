"""Rates over the last half minute, with a clock of the test's own."""

import pytest

from rare_assets.assets.rate import Rate, duration


def rated(*notes):
    """A rate after notes of (second, count)."""
    now = 0.0
    rate = Rate(lambda: now)
    for second, count in notes:
        now = float(second)
        rate.note(count)
    return rate


def test_the_rate_is_of_what_was_added():
    rate = rated((0, 10), (5, 20), (10, 60))
    assert rate.per_second == 5.0
    assert rate.seconds_for(200) == 40.0


def test_what_is_longer_ago_than_half_a_minute_does_not_count():
    stored_answers = [(0, 0), (1, 900)]
    asked = [(second, 900 + 2 * (second - 1)) for second in range(2, 62)]
    assert rated(*stored_answers, *asked).per_second == 2.0


@pytest.mark.parametrize("notes", [(), ((0, 5),), ((3, 5), (3, 9)), ((0, 5), (10, 5))])
def test_without_progress_nothing_is_foretold(notes):
    assert rated(*notes).seconds_for(10) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (25.6, "0:26"), (59.9, "1:00"), (3723, "1:02:03")]
)
def test_durations_are_said_as_clocks_do(seconds, said):
    assert duration(seconds) == said
