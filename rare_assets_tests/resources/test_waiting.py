"""What a step says that waits for its place in a pool, and what it does about dead holders."""

import logging

import pytest

from rare_assets.automation.instance import run_tags
from rare_assets.resources.tags import PARTITION_TAG
from rare_assets.resources.waiting import WaitForPlace
from rare_assets_tests.resources.test_leases import (
    Clock,
    add_run,
    beat,
    instance,
    status,
)

__all__ = ["instance"]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def pool(instance):
    instance.event_log_storage.set_concurrency_slots("teacher", 1)
    return instance.event_log_storage


def waiting(instance, clock, said, command="two"):
    tags = {**run_tags(command, "mine"), PARTITION_TAG: "b.jsonl"}
    run = instance.get_run_by_id(add_run(instance, tags=tags))
    return WaitForPlace(
        instance, "teacher", run, lambda level, line: said.append((level, line)), clock=clock
    )


def look_for(seconds, wait, clock):
    for _ in range(2 * seconds):
        wait.look()
        clock.now += 0.5


def test_it_says_who_holds_the_places_and_since_when(instance, pool, clock, said):
    beat(instance, "theirs", since=0.0)
    holder = add_run(instance, tags={**run_tags("one", "theirs"), PARTITION_TAG: "a.jsonl"})
    assert pool.claim_concurrency_slot("teacher", holder, "questions").is_claimed
    wait = waiting(instance, clock, said)
    look_for(9, wait, clock)
    assert said == []
    look_for(70, wait, clock)
    assert [level for level, _ in said] == [logging.WARNING] * 2
    line = said[0][1]
    assert line.startswith("b.jsonl: waiting since ")
    assert " for a place in the pool 'teacher' (limit 1), held by process 7 on w1, at work " in line
    assert ": questions of a.jsonl since " in line
    assert line.endswith(f" (run {holder[:8]}).")
    assert "silent for" not in line
    assert "silent for" in said[1][1]


def test_places_of_its_own_command_are_no_warning_and_those_of_a_launcher_are_said_to_be(
    instance, pool, clock, said
):
    beat(instance, "mine")
    holder = add_run(instance, tags=run_tags("two", "mine"))
    pool.claim_concurrency_slot("teacher", holder, "reasoning")
    look_for(12, waiting(instance, clock, said), clock)
    pool.free_concurrency_slots_for_run(holder)
    launched = add_run(instance)
    pool.claim_concurrency_slot("teacher", launched, "reasoning")
    look_for(12, waiting(instance, clock, said), clock)
    assert [level for level, _ in said] == [logging.INFO, logging.WARNING]
    assert "runs that their launcher looks after: reasoning since " in said[1][1]


def test_a_pool_without_places_is_said_to_have_none(instance, pool, clock, said):
    pool.set_concurrency_slots("teacher", 0)
    look_for(12, waiting(instance, clock, said), clock)
    assert said[0][1].endswith("(limit 0), held by nobody: it has none.")


def test_it_frees_the_places_of_a_command_that_is_gone(instance, pool, clock, said):
    beat(instance, "gone")
    beat(instance, "mine")
    holder = add_run(instance, tags=run_tags("one", "gone"))
    pool.claim_concurrency_slot("teacher", holder, "questions")
    wait = waiting(instance, clock, said)
    for _ in range(10):
        look_for(15, wait, clock)
        beat(instance, "mine")
    assert status(instance, holder).value == "FAILURE"
    assert pool.claim_concurrency_slot("teacher", "another", "questions").is_claimed
