from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rare_assets.teacher.store import answer_files, answers, upkeep, writers
from rare_assets.teacher.store.answers import AnswerStore
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.store.key_index import KeyIndex
from rare_assets.teacher.store.stored import StoredAnswers
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.s3_server import running_s3
from rare_assets_tests.support.small_disk import remount, small_disk

WRITER = """
import asyncio, hashlib, sys
from rare_assets.teacher.store.answers import AnswerStore

async def main(root, name, n, wait):
    store = AnswerStore(root, commit_interval_s=0.01)
    async def one(i):
        await store.put(hashlib.sha256(f"{name}{i}".encode()).digest(), {"content": f"{name}{i}"})
        print(i, flush=True)
    for first in range(0, n, 10):
        await asyncio.gather(*(one(i) for i in range(first, first + 10)))
    if not wait:
        await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), len(sys.argv) > 4))
"""


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def put_all(root, names, **options):
    """Store one answer a name and close the store."""

    async def main():
        async with AnswerStore(str(root), commit_interval_s=0.0, **options) as store:
            await asyncio.gather(*(store.put(key(n), {"content": str(n)}) for n in names))

    asyncio.run(main())


def get_all(root, names, **options):
    """The contents a fresh store finds, by name."""
    names = list(names)

    async def main():
        async with AnswerStore(str(root), **options) as store:
            found = {}
            for first in range(0, len(names), 1000):
                found |= await store.get([key(n) for n in names[first : first + 1000]])
            return {n: found[key(n)]["content"] for n in names if key(n) in found}

    return asyncio.run(main())


def expected(names):
    return {n: str(n) for n in names}


def data_files(root) -> list[str]:
    return sorted(p.name for p in Path(root).iterdir() if p.name.endswith(".jsonl.gz"))


def leave_journal(root, frames) -> Path:
    """A journal as a killed writer leaves it: one frame a list of names, nobody's lock on it."""
    root.mkdir(exist_ok=True)
    path = root / answer_files.new_name("journal")
    path.write_bytes(
        b"".join(
            answer_files.pack(
                [answer_files.encode(key(n), 1.0, {"content": str(n)}) for n in names]
            )
            for names in frames
        )
    )
    return path


def test_an_answer_comes_back_as_it_was_put_and_an_unknown_key_is_absent(tmp_path):
    record = {
        "content": "Ärger 汉字 \ud800 \n",
        "tokens": 3,
        "thinking": None,
        "nested": {"a": [1.5]},
    }

    async def main():
        async with AnswerStore(str(tmp_path / "answers")) as store:
            assert await store.get([key(1)]) == {}
            await store.put(key(1), record)
            assert await store.get([key(1), key(2), key(1)]) == {key(1): record}
        async with AnswerStore(str(tmp_path / "answers")) as store:
            assert await store.get([key(1), key(2)]) == {key(1): record}

    asyncio.run(main())


def test_a_put_is_on_disk_when_it_returns(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path))
        await store.put(key("a"), {"content": "a"})
        (journal,) = tmp_path.iterdir()
        line = json.loads(gzip.decompress(journal.read_bytes()))
        assert (line["key"], line["answer"]) == (key("a").hex(), {"content": "a"})
        await store.close()

    asyncio.run(main())


def test_answers_that_wait_together_share_one_frame(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path), commit_interval_s=0.2)
        await store.put(key("first"), {})
        await asyncio.gather(*(store.put(key(n), {}) for n in range(50)))
        (journal,) = tmp_path.iterdir()
        content = journal.read_bytes()
        frames = answer_files.scan(lambda a, b: content[a:b], 0, len(content))
        assert [len(frame.lines) for frame in frames] == [1, 50]
        await store.close()

    asyncio.run(main())


def test_of_two_answers_under_one_key_the_later_wins_wherever_they_lie(tmp_path):
    async def put(text):
        async with AnswerStore(str(tmp_path)) as store:
            await store.put(key("k"), {"content": text})

    for text in ("old", "new"):
        asyncio.run(put(text))
        time.sleep(0.002)
    assert get_all(tmp_path, ["k"]) == {"k": "new"}
    # Merging keeps the newest alone.
    for i in range(upkeep.FAN_IN - 2):
        put_all(tmp_path, [i])
    (segment,) = data_files(tmp_path)
    lines = gzip.decompress((tmp_path / segment).read_bytes()).splitlines()
    assert len(lines) == upkeep.FAN_IN - 1
    assert get_all(tmp_path, ["k"]) == {"k": "new"}


def test_a_cancelled_put_does_not_cancel_the_others_that_wait_with_it(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path), commit_interval_s=0.3)
        await store.put(key(0), {"content": "0"})
        one, two = (asyncio.create_task(store.put(key(n), {"content": str(n)})) for n in (1, 2))
        await asyncio.sleep(0.02)
        one.cancel()
        await two
        with pytest.raises(asyncio.CancelledError):
            await one
        await store.close()

    asyncio.run(main())
    assert get_all(tmp_path, range(3)) == expected(range(3))


def test_a_tail_torn_at_any_byte_costs_the_last_frame_alone(tmp_path):
    whole = leave_journal(tmp_path / "whole", [[1, 2], [3], [4, 5]]).read_bytes()
    kept = leave_journal(tmp_path / "kept", [[1, 2], [3]]).stat().st_size
    for size in range(kept, len(whole)):
        folder = tmp_path / f"torn{size}"
        journal = leave_journal(folder, [])
        journal.write_bytes(whole[:size])
        assert get_all(folder, range(6)) == expected([1, 2, 3]), size
        # The next writer takes the rest over; nothing torn remains.
        put_all(folder, [9])
        assert not journal.exists()
        assert get_all(folder, range(10)) == expected([1, 2, 3, 9]), size


def test_a_rotten_frame_in_the_middle_costs_itself_alone(tmp_path):
    journal = leave_journal(tmp_path, [[1, 2], [3, 4], [5]])
    first = leave_journal(tmp_path / "x", [[1, 2]]).stat().st_size
    content = bytearray(journal.read_bytes())
    content[first + 30] ^= 0xFF
    journal.write_bytes(content)
    said = []
    assert get_all(tmp_path, range(6), say=said.append) == expected([1, 2, 5])
    (line,) = said
    assert f"{journal.name} is damaged: 2 stored answers can't be read" in line
    # What can be read is copied, the damaged file kept where nobody reads it: it is said once.
    put_all(tmp_path, [9], say=said.append)
    assert (tmp_path / f"damaged-{journal.name}").read_bytes() == bytes(content)
    said.clear()
    assert get_all(tmp_path, range(10), say=said.append) == expected([1, 2, 5, 9])
    assert said == []
    # Put back from a backup, it counts again.
    content[first + 30] ^= 0xFF
    journal.write_bytes(content)
    assert get_all(tmp_path, range(10)) == expected([1, 2, 3, 4, 5, 9])


def test_no_flipped_bit_makes_another_answer_of_a_stored_one(tmp_path, monkeypatch):
    """Neither in a segment whose keys lie beside it, nor in one that is read whole."""
    for indexed in (True, False):
        monkeypatch.setattr(answer_files, "INDEXED_FROM", 0 if indexed else 1 << 30)
        folder = tmp_path / str(indexed)
        put_all(folder, range(3))
        (segment,) = folder.glob("*.jsonl.gz")
        whole = segment.read_bytes()
        lost = 0
        for bit in random.Random(0).sample(range(8 * len(whole)), 120):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            segment.write_bytes(content)
            said = []
            found = get_all(folder, range(4), say=said.append)
            assert found.items() <= expected(range(3)).items()
            # Nothing is lost in silence; in the header are a few bits that nobody reads.
            assert bool(said) == (found != expected(range(3))), bit
            lost += bool(said)
        assert lost > 100


@pytest.mark.parametrize(
    ("damage", "lost"),
    [("cut", 36), ("emptied", 100), ("overwritten", 100), ("one frame", 4), ("grown", 0)],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_what_a_damaged_file_has_lost_is_said(tmp_path, damage, lost, indexed):
    frames = [range(first, first + 4) for first in range(0, 100, 4)]
    journal = leave_journal(tmp_path, frames)
    segment = journal.rename(tmp_path / journal.name.replace("journal", "segment"))
    content = segment.read_bytes()
    index, ends = KeyIndex(), []
    for frame in answer_files.scan(lambda a, b: content[a:b], 0, len(content)):
        index.add(frame.start, frame.end, answer_files.fingerprints(frame.lines))
        ends.append(frame.end)
    if indexed:
        Path(str(segment).replace(".jsonl.gz", ".keys.npz")).write_bytes(index.dump())
    match damage:
        case "cut":
            segment.write_bytes(content[: ends[15] + 20])
        case "emptied":
            segment.write_bytes(b"")
        case "overwritten":
            segment.write_bytes(bytes(len(content)))
        case "one frame":
            segment.write_bytes(content[: ends[3]] + bytes(ends[4] - ends[3]) + content[ends[4] :])
        case "grown":
            segment.write_bytes(content + b"more")
    said = []

    async def main():
        async with AnswerStore(str(tmp_path), say=said.append) as store:
            found = await store.get([key(n) for n in range(100)])
            return len(found), store.unreadable

    found, unreadable = asyncio.run(main())
    assert found == 100 - lost
    (line,) = said
    assert f"{segment.name} is damaged" in line
    if indexed and damage != "grown":
        assert unreadable == lost
    assert unreadable >= 1  # without an index it is a guess


def test_the_keys_of_another_file_hide_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_files, "INDEXED_FROM", 0)
    put_all(tmp_path, range(50))
    (segment,) = tmp_path.glob("*.jsonl.gz")
    (keys,) = tmp_path.glob("*.keys.npz")
    foreign = KeyIndex()
    lines = [answer_files.encode(key(n), 1.0, {}) for n in range(50, 100)]
    foreign.add(0, segment.stat().st_size, answer_files.fingerprints(lines))
    keys.write_bytes(foreign.dump())
    assert get_all(tmp_path, range(100)) == expected(range(50))


@pytest.mark.parametrize("what", ["deleted", "renamed", "replaced", "journal deleted"])
def test_a_storage_that_goes_while_it_is_written_to_stops_the_next_put(tmp_path, what):
    folder = tmp_path / "storage" / "answers"

    async def main():
        store = AnswerStore(str(folder))
        await store.put(key(1), {"content": "1"})
        if what == "journal deleted":
            next(folder.iterdir()).unlink()
        elif what == "deleted":
            shutil.rmtree(tmp_path / "storage")
        else:
            (tmp_path / "storage").rename(tmp_path / "elsewhere")
        if what == "replaced":
            shutil.copytree(tmp_path / "elsewhere", tmp_path / "storage")
        with pytest.raises(
            answers.AnswersNotStored, match=r"are gone.*deleted, renamed or replaced"
        ):
            await store.put(key(2), {"content": "2"})
        with pytest.raises(answers.AnswersNotStored, match="are gone"):
            await store.put(key(3), {"content": "3"})
        # Nor does it end as if all were well.
        with pytest.raises(answers.AnswersNotStored, match="are gone"):
            await store.close()

    asyncio.run(main())


def test_answers_that_went_before_the_end_are_told_at_the_end_or_the_next_look_up(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path / "a"), relist_s=0.0)
        await store.put(key(1), {"content": "1"})
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(answers.AnswersNotStored, match="are gone"):
            await store.get([key(1)])
        with pytest.raises(answers.AnswersNotStored, match="are gone"):
            await store.close()

    asyncio.run(main())


def test_a_folder_that_can_not_be_read_is_no_empty_one(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    journal = leave_journal(tmp_path / "folder", [[1]])
    journal.unlink()
    journal.mkdir()  # in the place of an answer file, something that can't be read as one
    for root in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(answers.AnswersNotRead, match=r"can't be read.*Nothing is asked"):
            get_all(root, [1])
    assert get_all(tmp_path / "nothing here", [1]) == {}


def test_acknowledged_answers_survive_kill_9(tmp_path):
    for round_ in range(3):
        process = Forked(
            [sys.executable, "-c", WRITER, str(tmp_path), f"r{round_}-", "100000"],
            stdout=subprocess.PIPE,
            text=True,
        )
        acknowledged = [process.stdout.readline().strip() for _ in range(200 + 37 * round_)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        names = [f"r{round_}-{i}" for i in acknowledged]
        assert get_all(tmp_path, names) == expected(names)
    # Closing any later writer takes in what the killed ones left.
    put_all(tmp_path, ["last"])
    assert [name.split("-")[0] for name in data_files(tmp_path)] == ["segment"] * 4
    assert get_all(tmp_path, names) == expected(names)


def test_a_journal_in_use_is_left_to_its_writer(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path))
        await store.put(key("a"), {"content": "a"})
        (journal,) = data_files(tmp_path)
        os.utime(tmp_path / journal, (0, 0))  # old it may look, it is locked
        await asyncio.to_thread(put_all, tmp_path, ["b"])
        assert journal in data_files(tmp_path)
        await store.put(key("c"), {"content": "c"})
        await store.close()

    asyncio.run(main())
    assert get_all(tmp_path, "abc") == expected("abc")


def test_two_processes_write_and_read_at_once(tmp_path):
    writers = [
        Forked([sys.executable, "-c", WRITER, str(tmp_path), name, "1000"], stdout=-3)
        for name in ("a", "b")
    ]
    names = [f"{w}{i}" for w in "ab" for i in range(1000)]

    async def watch():
        """What was once seen is seen ever after, whatever is compacted meanwhile."""
        seen: set[bytes] = set()
        async with AnswerStore(str(tmp_path), relist_s=0.0) as store:
            while any(writer.poll() is None for writer in writers):
                found = set(await store.get([key(n) for n in names]))
                assert seen <= found
                seen = found
            return set(await store.get([key(n) for n in names]))

    assert asyncio.run(watch()) == {key(n) for n in names}
    assert [writer.wait() for writer in writers] == [0, 0]
    assert get_all(tmp_path, names) == expected(names)


def test_another_store_sees_what_is_put_after_it_was_opened(tmp_path):
    async def main():
        async with AnswerStore(str(tmp_path)) as one, AnswerStore(str(tmp_path), relist_s=0) as two:
            assert await two.get([key(1)]) == {}
            for n in range(3):
                await one.put(key(n), {"content": n})
                assert await two.get([key(n)]) == {key(n): {"content": n}}

    asyncio.run(main())


def test_the_number_of_files_is_bounded_and_nothing_is_lost(tmp_path):
    for n in range(50):
        put_all(tmp_path, [n])
    assert len(list(tmp_path.iterdir())) < upkeep.FAN_IN
    assert get_all(tmp_path, range(50)) == expected(range(50))


def test_a_full_journal_becomes_a_segment_while_puts_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "JOURNAL_BYTES", 20_000)
    monkeypatch.setattr(answer_files, "INDEXED_FROM", 10_000)

    async def main():
        async with AnswerStore(str(tmp_path), commit_interval_s=0.0) as store:
            for first in range(0, 5000, 100):
                names = range(first, first + 100)
                await asyncio.gather(*(store.put(key(n), {"content": str(n)}) for n in names))
                some = random.sample(range(first + 100), 100)
                assert len(await store.get([key(n) for n in some])) == 100

    asyncio.run(main())
    segments = data_files(tmp_path)
    assert {name.split("-")[0] for name in segments} == {"segment"}
    assert 1 < len(segments) < 2 * upkeep.FAN_IN
    assert any(path.name.endswith(".keys.npz") for path in tmp_path.iterdir())
    assert get_all(tmp_path, range(5000)) == expected(range(5000))


@pytest.mark.parametrize("damage", ["missing", "torn", "of another file"])
def test_without_its_index_a_segment_is_read_itself(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(answer_files, "INDEXED_FROM", 0)
    put_all(tmp_path, range(100))
    (index,) = tmp_path.glob("*.keys.npz")
    if damage == "missing":
        index.unlink()
    elif damage == "torn":
        index.write_bytes(index.read_bytes()[:-50])
    else:
        put_all(tmp_path / "other", range(7))
        shutil.copy(next((tmp_path / "other").glob("*.keys.npz")), index)
    assert get_all(tmp_path, range(100)) == expected(range(100))


def listed(root):
    """The stored answers under a folder as a process finds them at this moment."""
    found = StoredAnswers(Folder(str(root)), relist_s=0.5, say=print)
    assert found.indexes == {}  # nothing is read until somebody asks
    found.relist(force=True)
    return found


def test_racing_mergers_lose_nothing_and_duplicates_go_at_the_next_merge(tmp_path):
    """Every merger works from a listing taken before any of them has removed a file."""
    for n in range(upkeep.FAN_IN - 1):
        put_all(tmp_path, [n, f"x{n}"])
    names = [*range(upkeep.FAN_IN - 1), *(f"x{n}" for n in range(upkeep.FAN_IN - 1))]
    found = [listed(tmp_path) for _ in range(3)]
    sources = data_files(tmp_path)
    # The first two write before either deletes; the third finds its sources gone.
    delete, held = Folder.delete, []
    found[0].folder.delete = held.append
    assert [upkeep.Upkeep(each).rewrite(sources) for each in found] == [True, True, False]
    for name in held:
        delete(found[0].folder, name)
    assert len(data_files(tmp_path)) == 2
    assert get_all(tmp_path, names) == expected(names)

    assert upkeep.Upkeep(listed(tmp_path)).rewrite(data_files(tmp_path))
    (only,) = data_files(tmp_path)
    assert len(gzip.decompress((tmp_path / only).read_bytes()).splitlines()) == len(names)
    # A reader whose listing is older than the merges finds everything all the same.
    read = found[2].get([key(n) for n in names])
    assert {record["content"] for record in read.values()} == set(map(str, names))


def test_a_merger_killed_before_it_has_removed_its_sources_leaves_only_duplicates(tmp_path):
    put_all(tmp_path, range(10))
    (segment,) = data_files(tmp_path)
    shutil.copy(tmp_path / segment, tmp_path / answer_files.new_name("segment"))
    assert get_all(tmp_path, range(10)) == expected(range(10))


def test_leftovers_of_killed_mergers_go_after_a_day_and_not_before(tmp_path):
    put_all(tmp_path, [1])
    old, new = "segment-20200101T000000-h-1-00000000", answer_files.new_name("segment")[:-9]
    for stem in (old, new):
        (tmp_path / f"{stem}.jsonl.gz.0a1b2c3d.tmp").touch()
        (tmp_path / f"{stem}.keys.npz").touch()
    (tmp_path / "notes.txt").touch()
    put_all(tmp_path, [2])
    left = {path.name for path in tmp_path.iterdir()} - set(data_files(tmp_path))
    assert left == {f"{new}.jsonl.gz.0a1b2c3d.tmp", f"{new}.keys.npz", "notes.txt"}


def test_a_full_disk_says_so_and_harms_nothing(tmp_path):
    with small_disk(tmp_path, 64):
        stored = []

        async def put_noise(store):
            for n in range(100):
                noise = random.Random(n).randbytes(2000).hex()
                await store.put(key(n), {"content": str(n), "noise": noise})
                stored.append(n)

        async def fill():
            store = AnswerStore(str(tmp_path), commit_interval_s=0.0)
            with pytest.raises(answers.AnswersNotStored, match="No space left"):
                await put_noise(store)
            with pytest.raises(answers.AnswersNotStored, match="No space left"):
                await store.put(key("later"), {})
            await store.close()

        asyncio.run(fill())
        assert 5 < len(stored) < 100
        assert get_all(tmp_path, range(100)) == expected(stored)
        # With room again, the same folder goes on.
        remount(tmp_path, "size=1m")
        put_all(tmp_path, ["more"])
        assert get_all(tmp_path, [*range(100), "more"]) == expected([*stored, "more"])


def test_a_closed_store_takes_no_more(tmp_path):
    async def main():
        store = AnswerStore(str(tmp_path))
        await store.close()
        with pytest.raises(answers.AnswersNotStored, match="closed"):
            await store.put(key(1), {})
        assert list(tmp_path.iterdir()) == []

    asyncio.run(main())


def test_answers_lie_compressed_and_indexed_in_little_memory(tmp_path):
    words = (Path(answers.__file__).read_text() + Path(answer_files.__file__).read_text()).split()
    plain = 0

    async def main():
        nonlocal plain
        async with AnswerStore(str(tmp_path)) as store:
            for first in range(0, 20_000, 2000):
                records = {
                    key(n): {"content": " ".join(random.Random(n).choices(words, k=150))}
                    for n in range(first, first + 2000)
                }
                plain += sum(len(record["content"]) for record in records.values())
                await asyncio.gather(*(store.put(k, record) for k, record in records.items()))
        return await store.stats()

    stats = asyncio.run(main())
    assert stats.answers == 20_000
    assert stats.bytes < plain / 2
    (index,) = listed(tmp_path).indexes.values()
    held = [value for value in vars(index).values() if hasattr(value, "nbytes")]
    assert sum(value.nbytes for value in held) < 13 * 20_000


@pytest.fixture(scope="module")
def s3_options():
    import s3fs

    with running_s3() as url:
        options = {"key": "test", "secret": "test", "endpoint_url": url}
        s3fs.S3FileSystem(**options).mkdir("answers")
        yield options


def s3_names(options, prefix):
    import s3fs

    fs = s3fs.S3FileSystem(**options)
    fs.invalidate_cache()
    return sorted(path.rsplit("/", 1)[-1] for path in fs.ls(f"answers/{prefix}"))


def test_answers_on_s3_come_back_and_few_objects_remain(s3_options, monkeypatch):
    monkeypatch.setattr(writers, "PARTS", 4)
    monkeypatch.setattr(answer_files, "INDEXED_FROM", 100)
    root, options = "s3://answers/few", {"storage_options": s3_options}

    async def main():
        async with AnswerStore(root, commit_interval_s=0.0, relist_s=0.0, **options) as store:
            for n in range(20):
                await store.put(key(n), {"content": str(n)})
            assert len(await store.get([key(n) for n in range(30)])) == 20

    asyncio.run(main())
    for n in range(20, 30):
        put_all(root, [n], **options)
    names = s3_names(s3_options, "few")
    assert {name.split("-")[0] for name in names} == {"segment"}
    assert len(names) < 2 * upkeep.FAN_IN
    assert get_all(root, range(40), **options) == expected(range(30))


def test_parts_of_a_killed_writer_on_s3_are_read_and_after_an_hour_taken_over(s3_options):
    import s3fs

    root, options = "s3://answers/killed", {"storage_options": s3_options}
    fs = s3fs.S3FileSystem(**s3_options)
    for time_, n in (("20200101T000000", 1), (time.strftime("%Y%m%dT%H%M%S", time.gmtime()), 2)):
        frame = answer_files.pack([answer_files.encode(key(n), 1.0, {"content": str(n)})])
        fs.pipe_file(f"answers/killed/part-{time_}-h-1-0000000{n}.jsonl.gz", frame)
    assert get_all(root, range(4), **options) == expected([1, 2])
    put_all(root, [3], **options)
    assert [n.split("-")[0] for n in s3_names(s3_options, "killed")] == [
        "part",
        "segment",
        "segment",
    ]
    assert get_all(root, range(4), **options) == expected([1, 2, 3])


class BadS3(BaseHTTPRequestHandler):
    """An object store that answers everything in one way."""

    status: int | None = 500  # None: the connection is dropped
    body = b""

    def answer(self):
        if self.status is None:
            self.connection.close()
            return
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def bad_s3():
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (BadS3,), {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def impatient(port):
    return {
        "key": "test",
        "secret": "test",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1, "read_timeout": 1},
        "skip_instance_cache": True,
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (500, "InternalError"),
        (503, "SlowDown"),
        (400, "ExpiredToken"),
        (None, ""),
    ],
)
def test_an_object_store_that_fails_is_no_empty_one(bad_s3, monkeypatch, status, code):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    bad_s3.RequestHandlerClass.status = status
    bad_s3.RequestHandlerClass.body = f"<Error><Code>{code}</Code></Error>".encode()
    options = {"storage_options": impatient(bad_s3.server_address[1])}
    with pytest.raises(answers.AnswersNotRead, match=r"s3://bucket/answers.*Nothing is asked"):
        get_all("s3://bucket/answers", [1], **options)


def test_an_object_store_that_is_away_is_no_empty_one(monkeypatch):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(answers.AnswersNotRead, match=r"s3://bucket/answers.*Nothing is asked"):
        get_all("s3://bucket/answers", [1], storage_options=impatient(port))


def test_objects_that_go_while_a_run_writes_stop_it(s3_options):
    import s3fs

    fs = s3fs.S3FileSystem(**s3_options)

    async def main(lose):
        root = "s3://vanishing/answers"
        store = AnswerStore(root, commit_interval_s=0.0, relist_s=0.0, storage_options=s3_options)
        await store.put(key(1), {"content": "1"})
        lose()
        with pytest.raises(answers.AnswersNotStored, match="are gone"):
            await store.get([key(2)])
        return store

    fs.mkdir("vanishing")
    asyncio.run(main(lambda: fs.rm("vanishing/answers", recursive=True)))
    asyncio.run(main(lambda: fs.rm("vanishing", recursive=True)))


def test_an_unreachable_bucket_says_so(s3_options, monkeypatch):
    monkeypatch.setattr(answers.time, "sleep", lambda _: None)

    async def main():
        store = AnswerStore("s3://no-such-bucket/answers", storage_options=s3_options)
        with pytest.raises(answers.AnswersNotStored, match="s3://no-such-bucket/answers"):
            await store.put(key(1), {})
        await store.close()

    asyncio.run(main())
