"""Whether somebody is still creating a batch: by what changes in its submission, on whatever host."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from rare_assets.files.processes import this_process
from rare_assets.teacher.batch.submissions import Silence, Submission, Submissions
from rare_assets.teacher.store.folder import Folder

SAY = "from rare_assets.files.processes import this_process as name; print(name(), end='')"


@pytest.fixture
def submission():
    """One whose writer can't be looked at from here."""
    return replace(Submission.new("m", "e", {b"\x01": 0}), process="elsewhere#7@1")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def looks(silence, clock, seconds, submission):
    """What looking every five seconds finds, at the end of so many."""
    left = False
    for _ in range(seconds // 5):
        left = silence.is_left(submission)
        clock.now += 5
    return left


def test_one_that_changes_is_in_creation_and_after_two_minutes_of_silence_is_not(submission):
    clock = Clock()
    silence = Silence(clock)
    for number in range(20):
        assert not looks(silence, clock, 100, replace(submission, beat=str(number)))
    assert not looks(silence, clock, 120, replace(submission, beat="20"))
    assert silence.is_left(replace(submission, beat="20"))


def test_who_was_held_up_itself_does_not_take_that_for_silence(submission):
    clock = Clock()
    silence = Silence(clock)
    for _ in range(3):
        assert not silence.is_left(submission)
        clock.now += 3600


def test_a_process_that_is_gone_from_this_machine_has_left_it(submission):
    if not this_process():
        pytest.skip("this system does not name its processes")
    gone = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert Silence().is_left(replace(submission, process=gone.stdout))
    assert not Silence().is_left(submission)


def test_one_of_a_version_without_beats_is_read_and_waited_for(tmp_path, submission):
    submissions = Submissions(Folder(str(tmp_path)))
    submissions.save(submission)
    (path,) = tmp_path.iterdir()
    content = path.read_text()
    for name in ("process", "beat"):
        content = content.replace(f'"{name}"', f'"not_{name}"')
    path.write_text(content)
    read = submissions.load(submission.name)
    assert (read.process, read.beat, read.requests) == ("", "", submission.requests)
    assert not Silence().is_left(read)


def test_while_a_batch_is_created_its_submission_changes_and_what_follows_is_written_last(
    tmp_path, submission
):
    submissions = Submissions(Folder(str(tmp_path)))
    mine = Submission.new("m", "e", {b"\x01": 0})

    async def create():
        async with submissions.in_creation(mine, beat_s=0.01):
            seen = set()
            while len(seen) < 3:
                await asyncio.sleep(0.005)
                seen.add(submissions.load(mine.name).beat)
            assert mine.left in (False, None)
        submissions.save(mine.created("batch_1"))
        await asyncio.sleep(0.1)
        return submissions.load(mine.name).batch_id

    assert asyncio.run(create()) == "batch_1"
