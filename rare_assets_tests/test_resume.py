"""A run that is killed or stopped at any point goes on with what it has: nothing lost, little asked twice."""

import json
import os
import signal
import time
from collections import Counter

import dagster as dg
import pytest
import yaml

from rare_assets_tests.support.command import TOO_LONG, Command
from rare_assets_tests.support.fake_batch_endpoint import FakeBatchEndpoint
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY
from rare_assets_tests.support.passages import write_jsonl

N_DOCUMENTS = 24
IN_FLIGHT = 4
LATENCY = 0.1
# Much longer than a request takes: who still works would have sent another by then.
SILENCE = 1.5
# After a second every answer that came is on disk.
STORED = 1.0
FOREVER = 3600.0


@pytest.fixture
def endpoint():
    with FakeEndpoint(key=API_KEY, latency=LATENCY) as endpoint:
        yield endpoint


@pytest.fixture
def command(endpoint, tmp_path):
    command = Command(tmp_path, endpoint.url, RARE_MAX_CONCURRENCY=str(IN_FLIGHT))
    write_jsonl(command.corpus / "a.jsonl", range(N_DOCUMENTS))
    return command


def start_until(command, endpoint, n_requests, pause=STORED):
    """Start a run and wait until it has sent so many requests; of the last ones, none is answered."""
    process = command.start("run")
    deadline = time.monotonic() + TOO_LONG
    while len(endpoint.requests) < n_requests:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run sends no requests"
        time.sleep(0.01)
    endpoint.latency = FOREVER
    time.sleep(pause)
    return process


def wait_for_silence(endpoint):
    """Wait until no requests come any more; fails if somebody goes on asking."""
    deadline = time.monotonic() + 20
    while True:
        sent = len(endpoint.requests)
        time.sleep(SILENCE)
        if len(endpoint.requests) == sent:
            return
        assert time.monotonic() < deadline, "requests are still coming: a worker was left behind"


def repeats(endpoint):
    """Requests that were sent before in the same words."""
    counts = Counter(request.raw for request in endpoint.requests)
    return sum(count - 1 for count in counts.values())


def finish(command, endpoint):
    """Run again, check that everything is there, and that a run after that asks nothing."""
    endpoint.latency = 0.0
    resumed = command.run("run")
    assert resumed.returncode == 0, resumed.stdout
    for table in ("documents", "questions", "hard_negatives", "reasoning"):
        assert command.n_rows(table) == {"a.jsonl": N_DOCUMENTS}
        assert command.tables.scan_rejects(table, "a.jsonl").collect().is_empty()
    sent = len(endpoint.requests)
    assert sent == 2 * N_DOCUMENTS + repeats(endpoint)
    assert command.run("run").returncode == 0
    assert len(endpoint.requests) == sent


# where: requests sent when the kill comes, the first or the second stage being under way
@pytest.mark.parametrize(
    ("stage", "n_requests", "kill"),
    [
        ("questions", 10, os.kill),
        ("reasoning", N_DOCUMENTS + 10, os.killpg),
    ],
)
def test_a_kill_loses_at_most_what_was_in_flight(command, endpoint, stage, n_requests, kill):
    process = start_until(command, endpoint, n_requests)
    kill(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_for_silence(endpoint)
    # Killed within that stage, or this tests nothing.
    assert command.tables.exists("questions", "a.jsonl") == (stage == "reasoning")
    assert not command.tables.exists("reasoning", "a.jsonl")
    finish(command, endpoint)
    assert repeats(endpoint) <= IN_FLIGHT
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    with dg.DagsterInstance.from_config(str(command.home)) as instance:
        assert list(instance.get_runs(unfinished)) == []


# With answers of one latency, the next requests leave just when answers have come: the worst moment.
@pytest.mark.parametrize("n_requests", [IN_FLIGHT + 1, 3 * IN_FLIGHT + 2])
def test_a_kill_when_answers_come_loses_at_most_what_was_in_flight(command, endpoint, n_requests):
    process = start_until(command, endpoint, n_requests, pause=0.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_for_silence(endpoint)
    assert not command.tables.exists("questions", "a.jsonl")
    finish(command, endpoint)
    assert repeats(endpoint) <= IN_FLIGHT


# A terminal interrupts the whole group, a service manager terminates the command alone.
@pytest.mark.parametrize(
    ("number", "stop"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)]
)
def test_a_stop_ends_the_runs_in_order_and_keeps_every_answer(command, endpoint, number, stop):
    process = start_until(command, endpoint, 10)
    stop(process.pid, number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Stopped." in printed
    assert "run the same command again" in printed
    assert "Traceback" not in printed
    assert {run.status for run in command.runs()} <= {
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.CANCELED,
        dg.DagsterRunStatus.FAILURE,
    }
    wait_for_silence(endpoint)
    if stop is os.killpg:
        finish(command, endpoint)
        assert repeats(endpoint) <= IN_FLIGHT


def test_two_commands_at_once_pay_for_each_answer_once(command, endpoint):
    endpoint.held = True
    first = command.start("run", RARE_MAX_CONCURRENCY=str(N_DOCUMENTS))
    while len(endpoint.requests) < N_DOCUMENTS:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.01)
    # All that the second wants is in flight: it waits, and says for whom.
    second = command.start("run")
    said = ""
    while "Waiting for" not in said:
        line = second.stdout.readline()
        assert line, said
        said += line
    assert "process" in said.partition("Waiting for")[2]
    endpoint.held = False
    printed = [process.communicate(timeout=TOO_LONG)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], (printed, said)
    assert len(endpoint.requests) == 2 * N_DOCUMENTS
    assert repeats(endpoint) == 0
    for table in ("questions", "reasoning"):
        assert command.n_rows(table) == {"a.jsonl": N_DOCUMENTS}


def test_a_command_goes_on_at_once_where_another_was_killed(command, endpoint):
    killed = start_until(command, endpoint, 10)
    other = command.start("run")
    time.sleep(STORED)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(30)
    endpoint.latency = 0.0
    printed = other.communicate(timeout=TOO_LONG)[0]
    assert other.returncode == 0, printed
    assert command.n_rows("reasoning") == {"a.jsonl": N_DOCUMENTS}
    # What was in flight at the kill has to be asked again, and nothing else.
    assert repeats(endpoint) <= IN_FLIGHT


def test_a_mended_teacher_is_asked_again_for_the_rejects_alone(command, endpoint):
    endpoint.latency = 0.0
    # Of the questions' requests, which alone ask for JSON.
    endpoint.fault_for = lambda body: (
        "empty" if "response_format" in body and "003x" in json.dumps(body["messages"]) else None
    )
    first = command.run("run")
    assert first.returncode == 0, first.stdout
    rejects = command.tables.scan_rejects("questions", "a.jsonl").collect()
    assert (rejects.height, rejects["attempts"].to_list()) == (1, [3])
    assert "run --retry-rejects" in first.stdout
    sent = len(endpoint.requests)
    endpoint.fault_for = None
    assert command.run("run").returncode == 0
    assert len(endpoint.requests) == sent
    mended = command.run("run", "--retry-rejects")
    assert mended.returncode == 0, mended.stdout
    assert "run --retry-rejects" not in mended.stdout
    # A question, and its reasoning.
    assert len(endpoint.requests) == sent + 2
    assert command.run("run", "--all").returncode == 0
    assert len(endpoint.requests) == sent + 2
    assert command.n_rows("reasoning") == {"a.jsonl": N_DOCUMENTS}


def test_what_waits_in_a_killed_runs_batch_is_no_cost_of_the_next(tmp_path):
    config = {"ops": {stage: {"config": {"mode": "batch"}} for stage in ("questions", "reasoning")}}
    (tmp_path / "batch.yaml").write_text(yaml.safe_dump(config))
    in_batches = ("run", "--config", "batch.yaml")
    with FakeBatchEndpoint(key=API_KEY) as endpoint:
        command = Command(tmp_path, endpoint.url)
        write_jsonl(command.corpus / "a.jsonl", range(IN_FLIGHT))
        endpoint.hold = True
        process = command.start(*in_batches)
        deadline = time.monotonic() + TOO_LONG
        # It looks at what it has handed in, whose number it has kept.
        while not any(how == "GET" and "/batches/" in path for how, path in endpoint.calls):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, endpoint.calls
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

        said = command.run(*in_batches, "--dry-run").stdout
        assert f"a.jsonl: {IN_FLIGHT} answers wait in batches that are handed in" in said
        [questions] = [line.split() for line in said.splitlines() if " questions " in line]
        # Shards, requests, stored answers and tokens to be paid for.
        assert [cell for cell in questions if cell.isdigit()] == ["1", "0", "0", "0", "0"]

        endpoint.hold = False
        done = command.run(*in_batches)
        assert done.returncode == 0, done.stdout
        assert command.n_rows("reasoning") == {"a.jsonl": IN_FLIGHT}
        assert len(endpoint.handed_in) == len(set(endpoint.handed_in)) == 2 * IN_FLIGHT
