"""Keys of shards."""

import hashlib
import re

import pytest

from rare_assets.corpus.shards import shard_keys


def test_plain_path_is_its_own_key():
    keys = shard_keys(["a.jsonl", "d/e_f/G-1.v2.csv"])
    assert keys == {"a.jsonl": "a.jsonl", "d/e_f/G-1.v2.csv": "d__e_f__G-1.v2.csv"}


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("a b.txt", "a-b-txt"),
        ("naïve.txt", "naive-txt"),
        ("日本.txt", "txt"),
        ("日本/語", "file"),
        ("a__b.txt", "a-b-txt"),
        ("a_/b.txt", "a-b-txt"),
        ("a..b.txt", "a-b-txt"),
        ("a.part-00001.txt", "a-part-00001-txt"),
        ("-rf.txt", "rf-txt"),
        ("d/.a.txt", "d-a-txt"),
        ("a\n.txt", "a-txt"),
        ("$(x)`;'\"\\%2F.txt", "x-2F-txt"),
        ("x" * 147 + ".txt", "x" * 147 + "-tx"),
    ],
)
def test_any_other_path_gets_a_slug_and_its_hash(path, slug):
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    assert shard_keys([path]) == {path: f"{slug}-{digest}"}


def test_paths_that_look_alike_never_share_a_key():
    paths = ["a/b.md", "a__b.md", "a_b.md", "a b.md", "a-b.md", "a/b/.md", "a_/b.md", "a/ b.md"]
    paths += ["a.md", "A.md", "a.MD", "ä.md", "x.jsonl", "x.jsonl.part-00001.jsonl"]
    keys = shard_keys(paths).values()
    assert len({key.lower() for key in keys}) == len(paths)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", key) for key in keys)
    assert not any(".." in key or ".part-" in key for key in keys)


def test_only_case_twins_depend_on_each_other():
    alone = shard_keys(["a.txt", "B.txt"])
    assert alone == {"a.txt": "a.txt", "B.txt": "B.txt"}
    together = shard_keys(["A.txt", "a.txt", "B.txt"])
    assert together["B.txt"] == "B.txt"
    assert re.fullmatch("a-txt-[0-9a-f]{8}", together["a.txt"])
    assert re.fullmatch("A-txt-[0-9a-f]{8}", together["A.txt"])


def test_keys_are_short_enough_for_a_file_name():
    path = "/".join(["folder"] * 60) + "/a.jsonl"
    assert len(shard_keys([path])[path] + ".part-00001.parquet") < 200
