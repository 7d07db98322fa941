import random

import pytest

from rare_assets.teacher.ledger import LONGEST_WAIT_S, Ledger
from rare_assets.teacher.pacing import (
    AdaptiveLimit,
    RateLimit,
    full_jitter,
    parse_retry_after,
)


def window(limit, *, throttled):
    """Fill the limit, then let the first `throttled` results be refusals; True if it shrank."""
    tickets = []
    while limit.may_start():
        tickets.append(limit.start())
    return [limit.finish(t, throttled=n < throttled) for n, t in enumerate(tickets)].count(True)


def test_the_limit_allows_so_many_in_flight_and_no_more():
    limit = AdaptiveLimit(3)
    tickets = [limit.start() for _ in range(3)]
    assert not limit.may_start()
    limit.finish(tickets[0], throttled=False)
    assert limit.may_start()
    limit.start()
    limit.abandon()
    assert limit.may_start()


def test_many_refusals_shrink_the_limit_once_a_window():
    limit = AdaptiveLimit(100)
    assert window(limit, throttled=100) == 1
    assert limit.limit == 70
    assert window(limit, throttled=70) == 1
    assert limit.limit == 49


def test_a_few_refusals_are_tolerated():
    limit = AdaptiveLimit(100)
    assert window(limit, throttled=20) == 0
    assert limit.limit == 100
    assert window(limit, throttled=21) == 1


def test_the_limit_never_falls_below_one_and_recovers_by_a_sixteenth_a_window():
    limit = AdaptiveLimit(32)
    for _ in range(20):
        window(limit, throttled=1000)
    # One refusal in a window of one is no pattern, nor a reason to send more.
    assert limit.limit == 1
    grown = []
    for _ in range(5):
        window(limit, throttled=0)
        grown.append(limit.limit)
    assert grown == [3, 5, 7, 9, 11]
    for _ in range(20):
        window(limit, throttled=0)
    assert limit.limit == 32


def test_results_of_requests_from_before_a_shrink_do_not_count():
    limit = AdaptiveLimit(10)
    tickets = [limit.start() for _ in range(10)]
    assert [limit.finish(t, throttled=True) for t in tickets[:3]] == [False, False, True]
    assert limit.limit == 7
    assert not any(limit.finish(t, throttled=True) for t in tickets[3:])
    assert limit.limit == 7
    assert limit.in_flight == 0


# Later than any day on which this runs: a file forgets what is old.
START = 4e9


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


def starts(rate, clock, amounts):
    times = []
    for amount in amounts:
        clock.now += rate.delay()
        times.append(clock.now - START)
        rate.take(amount)
    return times


def test_a_rate_spaces_its_units_evenly():
    clock = Clock()
    assert starts(RateLimit(60, clock, Ledger(), "r"), clock, [1, 1, 1, 1]) == [0, 1, 2, 3]
    clock = Clock()
    assert starts(RateLimit(6000, clock, Ledger(), "r"), clock, [50, 300, 10]) == pytest.approx(
        [0, 0.5, 3.5]
    )


def test_a_pause_saves_nothing_up():
    clock = Clock()
    rate = RateLimit(60, clock, Ledger(), "r")
    rate.take()
    clock.now += 600
    assert starts(rate, clock, [1, 1, 1]) == [600, 601, 602]


def test_an_estimate_is_corrected_both_ways():
    clock = Clock()
    rate = RateLimit(60, clock, Ledger(), "r")
    rate.take(10)
    assert rate.delay() == pytest.approx(10)
    rate.correct(-6)
    assert rate.delay() == pytest.approx(4)
    rate.correct(3)
    assert rate.delay() == pytest.approx(7)
    rate.correct(-100)
    assert rate.delay() == 0


def test_rate_limits_of_one_name_keep_a_rate_together(tmp_path):
    clock = Clock()
    one, other, apart = (
        RateLimit(60, clock, Ledger(tmp_path / "rates.sqlite3", scope), name)
        for scope, name in (("run 1", "r"), ("run 2", "r"), ("run 1", "s"))
    )
    one.take(2)
    assert (one.delay(), other.delay(), apart.delay()) == (2, 2, 0)
    other.take()
    assert one.delay() == 3
    one.correct(-1)
    assert other.delay() == 2


def test_a_clock_that_was_ahead_holds_nothing_back_later(tmp_path):
    clock = Clock()
    clock.now += 86400
    path = tmp_path / "rates.sqlite3"
    RateLimit(60, clock, Ledger(path), "r").take(5)
    clock.now -= 86400
    rate = RateLimit(60, clock, Ledger(path), "r")
    assert rate.delay() == 5
    clock.now += 3
    assert rate.delay() == 5  # of an entry from the future only its own wait is known
    rate.take()
    assert rate.delay() == 6
    clock.now += 6
    assert rate.delay() == 0


@pytest.mark.parametrize("absurd", [1e9, 1e300])
def test_no_amount_holds_back_for_longer_than_ten_minutes(tmp_path, absurd):
    clock = Clock()
    path = tmp_path / "rates.sqlite3"
    rate = RateLimit(60, clock, Ledger(path), "r")
    rate.take()
    rate.correct(absurd)
    assert rate.delay() == LONGEST_WAIT_S == 600
    rate.take()
    clock.now += 599
    assert rate.delay() == pytest.approx(1)
    clock.now += 1
    assert rate.delay() == 0
    rate.take(-absurd)
    assert rate.delay() == 0
    rate.take()
    assert rate.delay() == 1


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="above 0"):
        RateLimit(rate, Clock(), Ledger(), "r")
    with pytest.raises(ValueError, match="at least 1"):
        AdaptiveLimit(rate)


@pytest.mark.parametrize(
    ("tries", "longest"), [(1, 1.0), (2, 2.0), (3, 4.0), (10, 8.0), (5000, 8.0)]
)
def test_the_back_off_is_uniform_up_to_a_doubling_and_capped_bound(tries, longest):
    rng = random.Random(1)
    waits = [full_jitter(tries, base=0.5, cap=8.0, rng=rng) for _ in range(2000)]
    assert 0 <= min(waits) < 0.05 * longest
    assert 0.95 * longest < max(waits) <= longest
    assert sum(waits) / len(waits) == pytest.approx(longest / 2, rel=0.05)


# `date -u -d '2015-10-21 07:28:00' +%s` gives 1445412480; the dates' forms are RFC 9110's three.
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 100.0),
        ("Wed, 21 Oct 2015 07:26:20 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 100.0),
        ("Wed Oct 21 07:28:00 2015", 100.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(value, seconds):
    assert parse_retry_after(value, now=1445412380.0) == seconds
