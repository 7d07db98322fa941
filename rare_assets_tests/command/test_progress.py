"""What a terminal or a log file is told of the runs, from moments and events as runs leave them."""

import io
import logging
import re

import dagster as dg
import pytest
from rich.console import Console

from rare_assets.assets import rate
from rare_assets.assets.step_progress import StepState
from rare_assets.command import progress
from rare_assets.command.progress import RunProgress
from rare_assets.command.workers import Request, Result
from rare_assets.retriever.embedded import engine as embedded
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import write_jsonl

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(rate.Rate.__init__, "__defaults__", (clock.monotonic,))
    return clock


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def shown(instance, *, terminal=False, width=200, samples=1):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    return RunProgress(instance, console, samples)


def request_for(instance, shard):
    run = dg.DagsterRun("rare_job")
    instance.add_run(run)
    return Request("command", run.run_id, "rare_job", ("questions",), shard, {})


def materialize(instance, request, asset, **metadata):
    """The event that a step leaves behind when it has made its asset."""
    event = dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        "rare_job",
        step_key=asset,
        event_specific_data=dg._core.events.StepMaterializationData(
            dg.AssetMaterialization(asset, metadata=metadata)
        ),
    )
    say(instance, request, asset, "", event)


def say(instance, request, step, line, event=None, level=logging.INFO):
    entry = dg.EventLogEntry(
        error_info=None,
        user_message=line,
        level=level,
        run_id=request.run_id,
        timestamp=0.0,
        step_key=step,
        dagster_event=event,
    )
    instance.handle_new_event(entry)


def text(run_progress):
    return run_progress.console.file.getvalue()


def lines(run_progress):
    """What is shown, without the moves of the cursor between two pictures."""
    plain = (CONTROL.sub("", line) for line in text(run_progress).splitlines())
    return [line for line in plain if line]


def ask_of_two(instance, clock, run_progress):
    """Two shards of 100 questions: one under way for 20 seconds, one waiting."""
    run_progress.announce("questions", "missing", {"a": 100, "b": 100})
    run_progress.announce("reasoning", "missing", {"a": 100, "b": 100})
    request = request_for(instance, "a")
    for second in range(21):
        clock.now = 1000.0 + second
        moment = StepState("questions", 2 * second, 100, 3 * second, 0.01 * second)
        run_progress.tick([(request, moment)])
    return request


def test_a_log_file_gets_done_of_all_rate_time_left_and_cost(instance, clock):
    with shown(instance) as run_progress:
        ask_of_two(instance, clock, run_progress)
    assert text(run_progress).splitlines() == [
        "questions: 2 to make (missing)",
        "reasoning: 2 to make (missing)",
        "questions: 20/200 questions, 3.0 requests/s, 1:30 left, $0.1000, 0/2 shards",
        "asked in all: 20/400 questions and answers, 3.0 requests/s, 3:10 left, $0.1000",
        "questions: 40/200 questions, 3.0 requests/s, 1:20 left, $0.2000, 0/2 shards",
        "asked in all: 40/400 questions and answers, 3.0 requests/s, 3:00 left, $0.2000",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_them_in_a_line_a_table(instance, clock, width):
    with shown(instance, terminal=True, width=width) as run_progress:
        ask_of_two(instance, clock, run_progress)
    last = lines(run_progress)[-3:]
    assert [
        " ".join(line.replace("━", "").replace("╸", "").replace("╺", "").split()) for line in last
    ] == [
        "questions 40/200 3.0/s 1:20 left $0.2000 0/2 shards",
        "reasoning 0/200 0/2 shards",
        "asked in all 40/400 3.0/s 3:00 left $0.2000",
    ]
    assert max(map(len, last)) <= width


def test_a_shard_that_is_made_counts_as_what_it_left_behind(instance, clock):
    with shown(instance, samples=2) as run_progress:
        request = ask_of_two(instance, clock, run_progress)
        figures = {"rows": 97, "rejects": 3, "requests": 110, "cost_usd": 0.5}
        materialize(instance, request, "questions", **figures)
        # The last word of the run came before its event.
        run_progress.tick([(request, StepState("questions", 98, 100, 108, 0.4))])
        run_progress.finished(Result(request, None))
    questions, reasoning = (run_progress.stages[name] for name in ("questions", "reasoning"))
    assert questions.rows == (100, 200)
    assert questions.cost == 0.5
    # Two answers will be asked for each question that there is.
    assert reasoning.expected == {"a": 194, "b": 100}
    assert "questions: a: 97 rows, 3 rejects" in text(run_progress).splitlines()


def test_a_model_without_a_price_shows_no_cost(instance, clock):
    with shown(instance) as run_progress:
        run_progress.announce("questions", "missing", {"a": 100})
        request = request_for(instance, "a")
        for done in (0, 50):
            run_progress.tick([(request, StepState("questions", done, 100, done, None))])
            clock.now += 10
        run_progress.tick([(request, StepState("questions", 60, 100, 60, None))])
    assert text(run_progress).splitlines()[-1].split(", ")[3:] == ["no price", "0/1 shards"]


def test_progress_lines_of_single_shards_are_not_repeated_and_other_lines_are(instance, clock):
    with shown(instance) as run_progress:
        run_progress.announce("questions", "missing", {"a": 100})
        request = request_for(instance, "a")
        say(instance, request, "questions", "a: 8 answers are stored, 92 requests to send")
        say(instance, request, "questions", "a: 40 of 100 done, 7 in flight, 0 reused")
        run_progress.finished(Result(request, "the endpoint [is] gone"))
    assert text(run_progress).splitlines()[1:] == [
        "questions: a: 8 answers are stored, 92 requests to send",
        "failed a: the endpoint [is] gone",
    ]


def test_what_turned_out_to_be_current_is_no_longer_expected(instance, clock):
    with shown(instance) as run_progress:
        run_progress.announce("hard_negatives", "questions", {"a": 100, "b": 50})
        run_progress.retract("hard_negatives", "a")
    assert run_progress.stages["hard_negatives"].rows == (0, 50)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_a_warning_of_an_asset_stays_in_sight(only_key_set, tmp_path, monkeypatch, terminal):
    monkeypatch.setattr(embedded, "LIMIT", 3)
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(4))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    result = graph.make("corpus_index_job")
    request = Request("command", result.run_id, "corpus_index_job", ("corpus_index",), None, {})
    with shown(graph.instance, terminal=terminal) as progress:
        progress.announce("corpus_index", "missing", {"": 4})
        progress.tick([(request, None)])
    (line,) = [
        line for line in progress.console.file.getvalue().splitlines() if "4 passages" in line
    ]
    assert "corpus_index: 4 passages in the embedded index" in line
    assert "set ELASTICSEARCH_URL to use Elasticsearch" in line
