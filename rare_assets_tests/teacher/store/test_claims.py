"""What is in flight anywhere on one storage is asked once, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from rare_assets.teacher.interface import TeacherStopped
from rare_assets.teacher.store import claim_files, locks
from rare_assets.teacher.store import claims as module
from rare_assets.teacher.store.answers import AnswersNotRead, AnswerStore
from rare_assets.teacher.store.claims import ClaimsLost
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.teachers import online
from rare_assets_tests.teacher.store.test_answers import key
from rare_assets_tests.teacher.test_online import QUICK, ask, asks, content, note, until

# Asks a teacher at `url` for so many asks, in an order of its own, and prints how many came of it.
ASKER = """
import asyncio, json, random, sys
from rare_assets.teacher.store.answers import AnswerStore
from rare_assets_tests.support.teachers import online
from rare_assets_tests.teacher.test_online import QUICK, ask, note

async def main(root, url, count, seed, dead_after_s):
    wanted = [ask(number) for number in range(count)]
    random.Random(seed).shuffle(wanted)
    async with (
        AnswerStore(root, dead_after_s=dead_after_s, commit_interval_s=0.05) as store,
        online(model="fake", base_url=url, store=store, max_concurrency=8, patience=QUICK) as teacher,
    ):
        good = 0
        async for outcome in teacher.ask_all(wanted, note):
            good += outcome.value is not None
        print(good, teacher.usage.requests)

root, url, count, seed, dead_after_s = sys.argv[1:]
asyncio.run(main(root, url, int(count), int(seed), float(dead_after_s)))
"""


def start(root, url, count, seed=0, dead_after_s=60.0):
    return Forked(
        [sys.executable, "-c", ASKER, str(root), url, str(count), str(seed), str(dead_after_s)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def repeats(endpoint) -> int:
    counts = Counter(request.raw for request in endpoint.requests)
    return sum(count - 1 for count in counts.values())


def claims_in(folder):
    return sorted(path for path in folder.iterdir() if claim_files.is_claims(path.name))


@contextlib.asynccontextmanager
async def writers(root, count, **options):
    """So many writers of claims, each with a store of its own, by the order of their names."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            store = await stack.enter_async_context(AnswerStore(str(root), **options))
            writer = store.claims()
            stack.push_async_callback(writer.close)
            await writer.acquire([])  # makes its file
            opened.append(writer)
        yield sorted(opened, key=lambda writer: writer._file.name)


async def come_true(condition):
    """Wait for it; fails if it takes long."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 (others are in other processes)
            await asyncio.sleep(0.02)


async def taken_by_others(writer, keys):
    return set(await writer.taken(KEYS)) == set(keys)


KEYS = [key(number) for number in range(6)]


def test_what_one_holds_no_other_gets_until_it_is_released(tmp_path):
    async def main():
        async with writers(tmp_path, 2) as (one, two):
            assert await one.acquire(KEYS[:4]) == {}
            refused = await two.acquire(KEYS[2:])
            assert set(refused) == set(KEYS[2:4])
            assert {holder.pid for holder in refused.values()} == {os.getpid()}
            assert set(await two.taken(KEYS)) == set(KEYS[:4])
            assert set(await one.taken(KEYS)) == set(KEYS[4:])
            one.release(KEYS[:3])
            await come_true(lambda: taken_by_others(two, KEYS[3:4]))
            assert await two.acquire(KEYS[:3]) == {}
            await one.close()
            assert await two.taken(KEYS) == {}
        assert claims_in(tmp_path) == []

    asyncio.run(main())


def test_a_claim_ends_when_it_was_released_as_often_as_acquired(tmp_path):
    async def main():
        async with writers(tmp_path, 2) as (one, two):
            for _ in range(2):
                assert await one.acquire(KEYS[:1]) == {}
            one.release(KEYS[:1])
            await asyncio.sleep(0.3)
            assert set(await two.acquire(KEYS[:1])) == set(KEYS[:1])
            one.release(KEYS[:1])
            await come_true(lambda: taken_by_others(two, []))
            assert await two.acquire(KEYS[:1]) == {}

    asyncio.run(main())


@pytest.mark.parametrize("first", ["lower", "higher"])
@pytest.mark.parametrize("decides", [True, False])
def test_of_two_that_intend_the_same_one_gets_it(tmp_path, monkeypatch, first, decides):
    """The first one is held up between publishing its intent and reading the other's, or (decides)
    between having read them and publishing its decision."""

    async def main():
        async with writers(tmp_path, 2) as (lower, higher):
            one, two = (lower, higher) if first == "lower" else (higher, lower)
            reached, go_on = threading.Event(), threading.Event()
            decide = one._decide

            def slow(wanted):
                found = decide(wanted) if decides else None
                reached.set()
                assert go_on.wait(10)
                return found or decide(wanted)

            one._decide = slow
            two._undecided_s = one._undecided_s = 30.0
            early = asyncio.create_task(one.acquire(KEYS))
            await asyncio.to_thread(reached.wait, 10)
            late = asyncio.create_task(two.acquire(KEYS))
            await asyncio.sleep(0.3)
            # The lower of the two must not decide yet; the higher withdraws.
            assert late.done() == (two is higher)
            go_on.set()
            refused = [set(await task) for task in (early, late)]
            assert sorted(map(len, refused)) == [0, len(KEYS)]
            if decides:  # it had read that there was nobody
                assert refused[0] == set()

    asyncio.run(main())


def test_one_that_never_decides_is_not_waited_for_long(tmp_path):
    async def main():
        async with writers(tmp_path, 2) as (lower, higher):
            higher._publish([module.files.fingerprint(KEYS[0])])
            lower._undecided_s = 0.2
            assert set(await lower.acquire(KEYS)) == {KEYS[0]}

    asyncio.run(main())


RACER = """
import asyncio, hashlib, os, random, sys
from rare_assets.teacher.store.answers import AnswerStore

async def main(root, log, count, seed, chunk):
    rng = random.Random(seed)
    left = [hashlib.sha256(str(n).encode()).digest() for n in range(count)]
    rng.shuffle(left)
    asked = os.open(log, os.O_WRONLY | os.O_APPEND)
    async with AnswerStore(root, commit_interval_s=0.0) as store:
        claims = store.claims()
        while left:
            keys = left[:chunk]
            found = await store.get(keys)
            missing = [key for key in keys if key not in found]
            theirs = await claims.acquire(missing)
            mine = [key for key in missing if key not in theirs]
            found |= await store.get(mine)
            for key in mine:
                if key not in found:
                    os.write(asked, key.hex().encode() + b"\\n")
                    await asyncio.sleep(rng.random() * 0.002)
                    await store.put(key, {"by": seed})
                claims.release([key])
            left = [key for key in left if key not in found and key not in mine]
            rng.shuffle(left)
        await claims.close()

root, log, count, seed, chunk = sys.argv[1:]
asyncio.run(main(root, log, int(count), int(seed), int(chunk)))
"""


def race(root, log, count, chunk, processes):
    """Have some processes race for the same answers; how often each was asked for."""
    log.touch()
    running = [
        Forked([sys.executable, "-c", RACER, str(root), str(log), str(count), str(n), str(chunk)])
        for n in range(processes)
    ]
    assert [process.wait(120) for process in running] == [0] * processes
    return Counter(log.read_text().split())


def test_many_processes_race_and_each_answer_is_asked_for_once(tmp_path):
    asked = race(tmp_path / "answers", tmp_path / "log", 300, 7, 5)
    assert len(asked) == 300
    assert set(asked.values()) == {1}
    assert claims_in(tmp_path / "answers") == []


def test_processes_race_on_an_object_store(tmp_path, s3_bucket):
    asked = race(f"{s3_bucket}/answers", tmp_path / "log", 40, 5, 3)
    assert len(asked) == 40
    assert set(asked.values()) == {1}


def test_two_processes_ask_each_prompt_once(tmp_path):
    with FakeEndpoint(latency=0.02) as endpoint:
        askers = [start(tmp_path, endpoint.url, 300, seed) for seed in (1, 1, 2)]
        ends = [asker.communicate(timeout=120)[0].split() for asker in askers]
    assert [good for good, _ in ends] == ["300"] * 3
    assert sum(int(requests) for _, requests in ends) == len(endpoint.requests) == 300
    assert repeats(endpoint) == 0
    assert claims_in(tmp_path) == []


def test_further_attempts_are_made_by_one_alone(tmp_path):
    """An ask is claimed with all its attempts: nobody asks again for what somebody is mending."""
    with FakeEndpoint(latency=0.05, shares={"broken_json": 0.4}) as endpoint:
        askers = [start(tmp_path, endpoint.url, 60) for _ in range(2)]
        for asker in askers:
            asker.communicate(timeout=120)
        sent = len(endpoint.requests)
        start(tmp_path, endpoint.url, 60).communicate(timeout=120)
        assert len(endpoint.requests) == sent  # every attempt is stored
    # Unusable answers are asked for again in the same words.
    stored = asyncio.run(stats(tmp_path))
    assert stored.answers == sent


async def stats(root):
    async with AnswerStore(str(root)) as store:
        return await store.stats()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("where", ["local", "object store"])
def test_nobody_waits_for_a_killed_process(tmp_path, request, where):
    dead_after_s = 60.0 if where == "local" else 2.0
    root = tmp_path if where == "local" else f"{request.getfixturevalue('s3_bucket')}/answers"
    with FakeEndpoint(latency=3600.0) as endpoint:
        killed = start(root, endpoint.url, 40, dead_after_s=dead_after_s)
        wait_until(lambda: len(endpoint.requests) == 8)
        other = start(root, endpoint.url, 40, dead_after_s=dead_after_s)
        time.sleep(2)
        assert len(endpoint.requests) == 8  # all is claimed, also what is not yet in flight
        endpoint.latency = 0.0
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert other.communicate(timeout=30)[0].split() == ["40", "40"]
    assert len(endpoint.requests) == 48
    if where == "local":
        assert claims_in(tmp_path) == []


def test_what_a_killed_process_leaves_goes_with_the_next_run(tmp_path):
    with FakeEndpoint(latency=3600.0) as endpoint:
        killed = start(tmp_path, endpoint.url, 4)
        wait_until(lambda: len(endpoint.requests) == 4)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert len(claims_in(tmp_path)) == 1
        endpoint.latency = 0.0
        assert start(tmp_path, endpoint.url, 4).communicate(timeout=60)[0].split() == ["4", "4"]
    assert claims_in(tmp_path) == []


def test_who_is_at_work_is_said(tmp_path, monkeypatch):
    said = []
    with FakeEndpoint(latency=3600.0) as endpoint:
        process = start(tmp_path, endpoint.url, 5)
        wait_until(lambda: len(endpoint.requests) == 5)

        async def main():
            async with (
                AnswerStore(str(tmp_path)) as store,
                online(
                    model="fake",
                    base_url=endpoint.url,
                    store=store,
                    patience=QUICK,
                    say=said.append,
                ) as teacher,
            ):
                outcomes = aiter(teacher.ask_all([ask(1), ask(100), ask(2)], note))
                waiting = asyncio.ensure_future(anext(outcomes))
                # What nobody has is asked all the same.
                await until(lambda: said and len(endpoint.requests) == 6)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
                await outcomes.aclose()

        asyncio.run(main())
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (line,) = said
    assert "Waiting for 2 answers" in line
    assert f"process {process.pid} on " in line


def test_a_storage_that_can_not_be_written_stops_before_the_first_request(tmp_path):
    (tmp_path / "answers").mkdir()
    original = claim_files.LocalFile.write

    def full(self, content):
        raise OSError(28, "No space left on device")

    with FakeEndpoint() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_files.LocalFile, "write", full)
        with pytest.raises(TeacherStopped, match=r"can't be noted.*No space left"):
            asyncio.run(ask_here(tmp_path / "answers", endpoint, 3))
        assert endpoint.requests == []
        patch.setattr(claim_files.LocalFile, "write", original)
        asyncio.run(ask_here(tmp_path / "answers", endpoint, 3))
        assert len(endpoint.requests) == 3


async def ask_here(root, endpoint, count, **options):
    async with (
        AnswerStore(str(root)) as store,
        online(
            model="fake", base_url=endpoint.url, store=store, patience=QUICK, **options
        ) as teacher,
    ):
        return [outcome async for outcome in teacher.ask_all(asks(count), note)]


def test_a_storage_that_goes_between_requests_is_noticed_before_more_is_asked(tmp_path):
    async def main():
        async with writers(tmp_path / "storage", 1) as (one,):
            await one.acquire(KEYS[:1])
            (tmp_path / "storage").rename(tmp_path / "elsewhere")
            with pytest.raises((ClaimsLost, AnswersNotRead)):
                await one.acquire(KEYS[1:2])
            (tmp_path / "elsewhere").rename(tmp_path / "storage")

    asyncio.run(main())


def test_a_process_that_was_held_up_takes_its_claims_for_lost(tmp_path, monkeypatch, s3_bucket):
    """Others may have taken it for dead: what it has not sent yet it claims, and looks up, anew."""
    root = f"{s3_bucket}/answers"

    async def main():
        with FakeEndpoint(latency=0.3) as endpoint:
            async with (
                AnswerStore(root, dead_after_s=1.5, commit_interval_s=0.0) as store,
                online(
                    model="fake",
                    base_url=endpoint.url,
                    store=store,
                    max_concurrency=1,
                    patience=QUICK,
                ) as teacher,
            ):
                outcomes = aiter(teacher.ask_all(asks(4), content))
                await anext(outcomes)
                time.sleep(2.0)  # noqa: ASYNC251 (the loop stands still, as in a stopped process ...)
                teacher._published._published_at -= 10  # (... and so does the thread)
                others = await asyncio.to_thread(
                    lambda: start(root, endpoint.url, 4, 0, 1.5).communicate(timeout=60)[0]
                )
                assert others.split()[0] == "4"
                assert [outcome async for outcome in outcomes]
            # At most what was in flight was asked twice.
            assert len(endpoint.requests) <= 5

    asyncio.run(main())


def test_files_of_others_that_can_not_be_read_claim_everything_as_long_as_they_change(tmp_path):
    async def main():
        name = claim_files.new_name().replace(claim_files._machine(), "elsewhere")
        (tmp_path / name).write_bytes(b"garbage")
        async with writers(tmp_path, 1, dead_after_s=0.5) as (one,):
            assert set(await one.acquire(KEYS)) == set(KEYS)
            await come_true(lambda: taken_by_others(one, []))
            assert await one.acquire(KEYS) == {}
        assert list(tmp_path.iterdir()) == []

    asyncio.run(main())


def test_without_locks_a_writer_lives_as_long_as_its_file_changes(tmp_path, monkeypatch):
    """As on a platform that has none."""
    monkeypatch.setattr(locks, "fcntl", None)

    async def main():
        async with writers(tmp_path, 2, dead_after_s=1.0) as (one, two):
            assert await one.acquire(KEYS[:3]) == {}
            for _ in range(8):
                await asyncio.sleep(0.25)
                assert set(await two.taken(KEYS)) == set(KEYS[:3])
            # As if it had been killed.
            one._publish = lambda _: None
            begun = time.monotonic()
            await come_true(lambda: taken_by_others(two, []))
            assert time.monotonic() - begun >= 0.5
            assert await two.acquire(KEYS) == {}
            assert one.epoch == 1  # it knows

    asyncio.run(main())


def test_what_a_file_of_claims_says_is_json(tmp_path):
    async def main():
        async with writers(tmp_path, 1) as (one,):
            await one.acquire(KEYS[:2])
            one._publish(())
            (path,) = claims_in(tmp_path)
            return json.loads(gzip.decompress(path.read_bytes()))

    said = asyncio.run(main())
    assert said["pid"] == os.getpid()
    assert len(claim_files._unpack(said["held"])) == 2
