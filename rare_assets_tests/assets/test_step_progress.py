"""What a long step tells of itself, and how seldom it writes into the event log."""

import json
from types import SimpleNamespace

import dagster as dg
import pytest

from rare_assets.assets import step_progress
from rare_assets.assets.step_progress import StepProgress, StepState, is_progress, throttled
from rare_assets.resources.tags import PROGRESS_TAG, SUBMITTED_TAG
from rare_assets.teacher.interface import Progress, Usage


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Step:
    """What of a step's context is used."""

    partition_key = "a.jsonl"
    asset_key = dg.AssetKey("questions")

    def __init__(self, **run_tags):
        self.lines = []
        self.log = self
        self.run = SimpleNamespace(run_id="r", tags=run_tags)
        self.instance = self
        self.tagged = []

    def add_run_tags(self, run_id, tags):
        self.tagged.append((run_id, tags))

    def info(self, line):
        self.lines.append(line)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(step_progress, "time", clock)
    return clock


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(step_progress, "listeners", [told.append])
    return told


def test_every_moment_is_told_and_every_tenth_second_is_a_line(clock, told):
    step = Step()
    progress = StepProgress(step, 2000)
    for second in range(1, 26):
        clock.now = 100.0 + second
        usage = Usage(requests=40 * second, answers_reused=3, retries=1, cost_usd=0.01 * second)
        progress.ask(Progress(done=40 * second, in_flight=7, usage=usage))
    assert len(told) == 26
    assert told[0] == StepState("questions", 0, 2000)
    assert told[-1] == StepState("questions", 1000, 2000, 1000, 0.25)
    assert [line.partition(", about")[0] for line in step.lines] == [
        "a.jsonl: 400 of 2,000 done, 7 in flight, 3 reused, 1 retries, $0.1000",
        "a.jsonl: 800 of 2,000 done, 7 in flight, 3 reused, 1 retries, $0.2000",
    ]
    assert all(is_progress(line) for line in step.lines)


def test_a_run_that_was_submitted_is_tagged_with_its_moment_as_often_as_it_writes_a_line(clock):
    step, alone = Step(**{SUBMITTED_TAG: "true"}), Step()
    for each in (step, alone):
        clock.now = 100.0
        progress = StepProgress(each, 90)
        for second in (5, 10, 15):
            clock.now = 100.0 + second
            progress.count(2 * second, 90)
    [(run_id, tags)] = step.tagged
    assert run_id == "r"
    assert StepState(*json.loads(tags[PROGRESS_TAG])) == StepState("questions", 20, 90)
    assert alone.tagged == []


def test_items_are_counted_as_they_pass(clock, told):
    def rows():
        for number in range(6):
            clock.now += 0.5
            yield number

    step = Step()
    assert list(StepProgress(step, 4).counting(rows())) == [*range(6)]
    # Two rows a second; a file that has grown has more of them than was known.
    assert [(moment.done, moment.total) for moment in told] == [(0, 4), (2, 4), (4, 4), (6, 6)]
    assert step.lines == []


def test_other_lines_are_kept_apart_by_ten_seconds(clock):
    said = []
    say = throttled(said.append)
    for second in range(100, 125):
        clock.now = float(second)
        say(str(second))
    assert said == ["110", "120"]
    assert not is_progress("a.jsonl: 8 answers are stored, 12 requests to send")
