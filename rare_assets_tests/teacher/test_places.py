"""Places in flight that the processes of a machine share."""

import asyncio
import signal
import subprocess
import sys

import pytest

from rare_assets.teacher import AnswerStore, Ask, Places
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.teachers import online

# Takes so many places, says how many it got, and holds them until it is killed.
HOLD = """
import sys
from pathlib import Path
from rare_assets.teacher import Places
places = Places(Path(sys.argv[1]), int(sys.argv[2]))
print(sum(places.keep_one() and places.take() is not None for _ in range(int(sys.argv[3]))), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holding(tmp_path):
    """Starts a process that takes places of the file; they end with the test."""
    started = []

    def hold(path, count, wanted):
        command = [sys.executable, "-c", HOLD, str(path), str(count), str(wanted)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_processes_share_them_and_one_that_is_killed_gives_its_own_back(tmp_path, holding):
    path = tmp_path / "folder" / "places"
    process, got = holding(path, 4, 3)
    assert got == 3
    ours = Places(path, 4)
    assert ours.keep_one()
    place = ours.take()
    assert not ours.keep_one()
    ours.free(place)
    assert ours.keep_one()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ours.keep_none()
    assert holding(path, 4, 9)[1] == 4


def test_two_teachers_of_a_process_share_them_too(tmp_path):
    one, other = (Places(tmp_path / "places", 2) for _ in range(2))
    taken = [places.take() for places in (one, other) if places.keep_one()]
    assert sorted(taken) == [0, 1]
    assert not one.keep_one()
    # One that is done with its own has not let go of the other's.
    one.free(taken[0])
    assert other.keep_one()
    assert not one.keep_one()


def test_a_place_that_is_kept_ready_is_the_same_until_it_is_taken(tmp_path):
    places = Places(tmp_path / "places", 1)
    assert places.keep_one()
    assert places.keep_one()
    assert places.take() == 0
    assert places.take() is None


def test_there_must_be_one(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        Places(tmp_path / "places", 0)


def test_teachers_side_by_side_have_no_more_in_flight_than_there_are_places(tmp_path):
    async def main():
        in_flight, most = 0, 0

        def answer(_):
            return "yes"

        with FakeEndpoint(answer=answer, latency=0.05) as endpoint:

            async def ask(name, count):
                asks = [
                    Ask(f"{name}{n}", ({"role": "user", "content": f"{name} {n}?"},))
                    for n in range(count)
                ]
                async with (
                    AnswerStore(str(tmp_path / "answers")) as store,
                    online(
                        model="fake",
                        base_url=endpoint.url,
                        store=store,
                        max_concurrency=4,
                        places=Places(tmp_path / "places", 5),
                    ) as teacher,
                ):
                    taken = teacher._endpoint.take
                    free = teacher._endpoint._give_back

                    def counted(each):
                        nonlocal in_flight, most
                        slot = taken(each)
                        in_flight += 1
                        most = max(most, in_flight)
                        return slot

                    def freed(slot):
                        nonlocal in_flight
                        in_flight -= 1
                        free(slot)

                    teacher._endpoint.take, teacher._endpoint._give_back = counted, freed
                    return [o.value async for o in teacher.ask_all(asks, lambda *_: "used")]

            answers = await asyncio.gather(ask("a", 20), ask("b", 20), ask("c", 2))
        assert [len(each) for each in answers] == [20, 20, 2]
        assert (in_flight, most) == (0, 5)

    asyncio.run(main())
