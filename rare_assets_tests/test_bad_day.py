"""A bad day, all at once, by the command and in the UI: the same rows, and every request counted.

A file is cut off, another one is deleted, the endpoint refuses the prompts of some documents, gives
nothing usable for others, and two commands (or a command and a backfill) work on it at the same time.
Then the file is mended and the teacher repaired.
"""

import json
from collections import Counter

import pytest

from rare_assets_tests.support.browser import DevServer, require_minutes
from rare_assets_tests.support.command import TOO_LONG as TIMEOUT
from rare_assets_tests.support.command import Command
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault
from rare_assets_tests.support.graph import API_KEY, MODEL
from rare_assets_tests.support.passages import passage, row, write_jsonl

WELL, GONE, CUT, REFUSED, UNUSABLE = (
    "well.jsonl",
    "gone.jsonl",
    "cut.json",
    "refused.jsonl",
    "unusable.jsonl",
)
ROWS = {WELL: range(6), GONE: range(6, 9), CUT: range(9, 13), REFUSED: range(13, 18)}
ROWS[UNUSABLE] = range(18, 26)
TOO_LONG, FIREWALLED = passage(13), passage(15)
UNUSABLE_TEXTS = [passage(number) for number in range(18, 24)]
TABLES = ("documents", "questions", "hard_negatives", "reasoning")
ASSETS = (*TABLES[:1], "corpus_index", *TABLES[1:])
ATTEMPTS = 3


def fault_for(body):
    """What goes wrong with a request on the bad day."""
    if "response_format" not in body:
        return None
    asked = body["messages"][-1]["content"]
    if TOO_LONG in asked:
        return "too_long"
    if FIREWALLED in asked:
        return Fault("status", text="403 The prompt was stopped.")
    return "broken_json" if any(text in asked for text in UNUSABLE_TEXTS) else None


def questions_asked(endpoint):
    """How often the question of each passage was asked for, by number."""
    bodies = [request.body for request in endpoint.requests]
    prompts = [b["messages"][-1]["content"] for b in bodies if "response_format" in b]
    return Counter(
        number for number in range(26) for prompt in prompts if passage(number) in prompt
    )


class Day:
    """One corpus with its endpoint, worked on by the command."""

    def __init__(self, folder, endpoint):
        self.endpoint = endpoint
        self.command = Command(folder, endpoint.url, RARE_MAX_CONCURRENCY="2")
        for shard in (WELL, GONE):
            write_jsonl(self.command.corpus / shard, ROWS[shard])

    def go_bad(self):
        (self.command.corpus / GONE).unlink()
        whole = json.dumps([row(number) for number in ROWS[CUT]])
        (self.command.corpus / CUT).write_text(whole[: len(whole) // 2])
        for shard in (REFUSED, UNUSABLE):
            write_jsonl(self.command.corpus / shard, ROWS[shard])
        self.endpoint.fault_for = fault_for
        self.endpoint.latency = 0.3

    def mend(self):
        whole = json.dumps([row(number) for number in ROWS[CUT]])
        (self.command.corpus / CUT).write_text(whole)
        self.endpoint.fault_for = None

    def rows(self):
        """Rows of each shard of each table; None where there is no table."""
        return {
            shard: tuple(self.command.n_rows(table).get(shard) for table in TABLES)
            for shard in ROWS
        }


# Rows of documents, questions, hard_negatives and reasoning; None: no table.
BAD = {
    WELL: (6, 6, 6, 6),
    GONE: (3, 3, 3, 3),
    CUT: (0, None, None, None),
    REFUSED: (5, 3, 3, 3),
    UNUSABLE: (8, 2, None, None),
}
WHOLE = {shard: (len(numbers),) * 4 for shard, numbers in ROWS.items()}
REFUSALS = (13, 15)
# How often each question was asked for: once, but where no answer could be used. A refusal costs
# nothing and is not stored: both who work on it meet it.
ASKED = {
    number: ATTEMPTS if passage(number) in UNUSABLE_TEXTS else 1
    for shard, numbers in ROWS.items()
    if shard != CUT
    for number in numbers
    if number not in REFUSALS
}


@pytest.fixture
def day(tmp_path):
    """The evening before: all is well, and made."""
    with FakeEndpoint(key=API_KEY, models=[MODEL]) as endpoint:
        day = Day(tmp_path, endpoint)
        done = day.command.run("run")
        assert done.returncode == 0, done.stdout
        yield day


def assert_asked_once(endpoint):
    """Every question as often as it takes, every chain of reasoning once."""
    asked = questions_asked(endpoint)
    assert all(asked.pop(number) in (1, 2) for number in REFUSALS)
    assert asked == ASKED
    chains = [r.raw for r in endpoint.requests if b"response_format" not in r.raw]
    assert max(Counter(chains).values()) == 1


def test_two_commands_get_through_a_bad_day_and_what_is_mended_is_made(day):
    day.go_bad()
    processes = [day.command.start("run") for _ in range(2)]
    printed = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    # What is bad is named, and is no success.
    assert [process.returncode for process in processes] == [1, 1], printed
    for text in printed:
        assert CUT in text
        assert UNUSABLE in text
        assert GONE in text
    assert day.rows() == BAD
    assert_asked_once(day.endpoint)

    refused = {number: questions_asked(day.endpoint)[number] + 1 for number in REFUSALS}
    day.mend()
    before = len(day.endpoint.requests)
    done = day.command.run("run", "--retry-rejects")
    assert done.returncode == 0, done.stdout
    assert day.rows() == WHOLE
    asked = Counter(ASKED | refused)
    asked.update(dict.fromkeys((*ROWS[CUT], *range(18, 24)), 1))
    assert questions_asked(day.endpoint) == asked
    assert len(day.endpoint.requests) > before

    before = len(day.endpoint.requests)
    again = day.command.run("run")
    assert again.returncode == 0, again.stdout
    assert len(day.endpoint.requests) == before


def test_a_backfill_beside_a_command_ends_with_the_same_rows(day):
    require_minutes()
    day.go_bad()
    with DevServer(day.command.folder, day.command.environment) as server:
        backfill = server.launch_backfill(ASSETS, list(ROWS))
        process = day.command.start("run")
        printed = process.communicate(timeout=TIMEOUT)[0]
        assert process.returncode == 1, printed
        assert server.wait_for_backfill(backfill) == "COMPLETED_FAILED"
        assert day.rows() == BAD
        assert_asked_once(day.endpoint)

        day.mend()
        retry = {"config": {"retry_rejects": True}}
        config = {"ops": {"questions": retry, "reasoning": retry}}
        again = server.launch_backfill(ASSETS, [CUT, REFUSED, UNUSABLE], config)
        assert server.wait_for_backfill(again) == "COMPLETED_SUCCESS"
    assert day.rows() == WHOLE
