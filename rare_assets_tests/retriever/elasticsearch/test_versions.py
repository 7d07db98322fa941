"""What a sync has to change, by what an index holds."""

from rare_assets.retriever.elasticsearch.versions import (
    Changes,
    changes,
    purpose_of,
    shard_and_hash,
    version_name,
)
from rare_assets.retriever.interface import ShardContent


def test_what_has_to_change():
    shards = {
        "as it is": ShardContent("1", 10),
        "new": ShardContent("2", 10),
        "changed": ShardContent("3", 10),
        "half sent": ShardContent("4", 10),
        "sent twice": ShardContent("5", 10),
        "empty": ShardContent("6", 0),
    }
    held = {
        ("as it is", "1"): 10,
        ("changed", "0"): 10,
        ("half sent", "4"): 4,
        ("sent twice", "5"): 20,
        ("gone", "7"): 10,
    }
    assert changes(shards, held) == Changes(
        wanted={"as it is@1", "new@2", "changed@3", "half sent@4", "sent twice@5", "empty@6"},
        send=["new", "changed", "half sent", "sent twice"],
        removed=["gone"],
        stale={"changed@0", "gone@7"},
        overfull={"sent twice@5"},
        fresh={"new@2", "changed@3"},
    )


def test_nothing_has_to_change_in_an_index_that_holds_the_shards():
    found = changes({"a": ShardContent("1", 2)}, {("a", "1"): 2})
    assert found == Changes({"a@1"}, [], [], set(), set(), set())


def test_a_version_says_shard_and_hash_even_if_the_shard_holds_its_separator():
    assert shard_and_hash(version_name("a@b.jsonl", "12")) == ("a@b.jsonl", "12")


def test_who_want_the_same_have_one_purpose():
    assert purpose_of(["a@1", "b@2"]) == purpose_of(["b@2", "a@1"]) != purpose_of(["a@1"])
