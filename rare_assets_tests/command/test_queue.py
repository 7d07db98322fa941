"""What a command sees of the runs that it has handed to a queue; the test plays the instance's daemon."""

import json
import uuid

import dagster as dg
import pytest
from rich.console import Console

from rare_assets.assets.step_progress import StepState
from rare_assets.automation.instance import prepare_home
from rare_assets.command import queue
from rare_assets.command.queue import RETRY_TAG, WILL_RETRY_TAG, RunQueue
from rare_assets.command.workers import STOPPED, Request
from rare_assets.resources.dagster_internals import job_origin
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.tags import PROGRESS_TAG

SHARD = "a"


@pytest.fixture
def instance(nothing_set, tmp_path):
    nothing_set.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    nothing_set.setattr(queue, "LOOK_SECONDS", 0.0)
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(UNNAMED.partitions_name, [SHARD])
        yield instance


def followed(instance, *turns):
    """Submit a run, and do what each turn says while the command looks; what it was told, and the results."""
    request = Request("test", str(uuid.uuid4()), "rare_job", ("questions",), SHARD, {})
    waiting, todo, seen = [request], list(turns), []
    runs = RunQueue(instance, Console())

    def tick(under_way):
        seen.append([(each.run_id, runs.step_state(each)) for each in under_way])
        if todo:
            todo.pop(0)(request.run_id)

    def start(under_way):
        return waiting.pop() if waiting else None

    with runs:
        results = runs.execute_all(start, tick=tick, done=lambda result: None)
    assert not todo
    return request, results, seen


def test_how_far_a_run_is_comes_from_its_tag_wherever_it_is_executed(instance):
    """A run that waits has nothing to tell, and is not looked at."""
    moment = StepState("questions", 3, 8, 4, 0.5)

    def begin(run_id):
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "rare_job"), run_id
        )

    def go_on(run_id):
        instance.add_run_tags(run_id, {PROGRESS_TAG: json.dumps(moment)})

    def cancel(run_id):
        instance.report_run_canceled(instance.get_run_by_id(run_id))

    request, [result], seen = followed(instance, begin, go_on, cancel)
    assert seen == [[], [(request.run_id, None)], [(request.run_id, moment)], []]
    assert result == (request, STOPPED, False)


def test_a_run_that_the_instance_tries_again_is_followed_until_that_has_ended(instance):
    """As one whose host was lost: its failure is none of the command's."""
    again = str(uuid.uuid4())

    def lose(run_id):
        instance.report_run_failed(instance.get_run_by_id(run_id), "Its host is gone.")
        instance.add_run_tags(run_id, {WILL_RETRY_TAG: "true"})

    def try_again(run_id):
        first = instance.get_run_by_id(run_id)
        instance.add_run(
            dg.DagsterRun(
                first.job_name,
                again,
                status=dg.DagsterRunStatus.STARTED,
                tags={PROGRESS_TAG: json.dumps(["questions", 1, 8])},
                parent_run_id=run_id,
                root_run_id=run_id,
            )
        )
        instance.add_run_tags(run_id, {RETRY_TAG: again})

    def succeed(_):
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "rare_job"), again
        )

    request, [result], seen = followed(instance, lose, try_again, lambda _: None, succeed)
    assert [run_id for [(run_id, _)] in seen[1:-1]] == [request.run_id, again, again]
    assert seen[3] == [(again, StepState("questions", 1, 8))]
    assert result == (request._replace(run_id=again), None, False)


def test_a_run_that_is_not_tried_again_fails_with_what_is_told_of_it(instance):
    def lose(run_id):
        instance.report_run_failed(instance.get_run_by_id(run_id), "Its host is gone.")
        instance.add_run_tags(run_id, {WILL_RETRY_TAG: "false"})

    _, [result], _ = followed(instance, lose)
    assert result.error == "Its host is gone."


def test_what_stops_a_command_takes_back_its_waiting_runs_that_ask_and_no_others(instance):
    """Those of the command that follows it, and what is free, go on."""
    jobs = [("earlier", "rare_job"), ("earlier", "rare_job"), ("later", "rare_job")]
    jobs.append(("earlier", "documents_job"))
    requests = [
        Request(command, str(uuid.uuid4()), job, ("questions",), SHARD, {}) for command, job in jobs
    ]
    for request in requests:
        instance.add_run(
            dg.DagsterRun(
                request.job,
                request.run_id,
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=job_origin(request.job, "rare_assets.definitions", "rare_assets"),
            )
        )
    runs = RunQueue(instance, Console())
    runs._running = {request.run_id: request for request in requests}
    runs._take_back("earlier")
    ended = list(runs._ended())
    assert sorted(result.request.run_id for result in ended) == sorted(
        request.run_id for request in requests[:2]
    )
    assert {(result.error, result.stops_others) for result in ended} == {(STOPPED, True)}
    assert runs._under_way() == requests[2:]
