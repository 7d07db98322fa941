"""Name the versions of shards in an Elasticsearch index, and find what has to change.

Each document has the version of the shard that it came from, so that the index itself tells what it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from rare_assets.retriever.elasticsearch.connection import batched
from rare_assets.retriever.elasticsearch.index import MAX_TERMS
from rare_assets.retriever.interface import ShardContent

# Documents of an index, by shard and content hash.
Held = Mapping[tuple[str, str], int]


class Changes(NamedTuple):
    """What has to change for an index to hold some shards.

    Attributes:
        wanted: the versions that the index is to hold.
        send: shards of which all documents are sent.
        removed: shards that the index holds and is not to hold any more.
        stale: versions that it holds and that are not wanted.
        overfull: versions that have more documents than they should; their documents are removed before
            they are sent.
        fresh: versions that are sent and of which the index holds nothing, so that readers are not to see
            them yet.
    """

    wanted: set[str]
    send: list[str]
    removed: list[str]
    stale: set[str]
    overfull: set[str]
    fresh: set[str]

    def kept(self, shards: Mapping[str, ShardContent]) -> set[str]:
        """Return the wanted versions that are there already, so that none of their documents is sent."""
        return self.wanted - {version_name(s, shards[s].content_hash) for s in self.send}


def changes(shards: Mapping[str, ShardContent], held: Held) -> Changes:
    """Return what has to change for an index to hold these shards.

    Args:
        shards: what the index is to hold.
        held: number of its documents, by shard and content hash.

    Example:
        >>> shards = {"a": ShardContent("2f", 1), "b": ShardContent("7c", 2)}
        >>> changes(shards, {("a", "1e"): 1, ("b", "7c"): 2}).send
        ['a']
    """
    wanted = {version_name(shard, content) for shard, (content, _) in shards.items()}
    there = {version_name(*version) for version in held}
    send = [s for s, (content, n) in shards.items() if held.get((s, content), 0) != n]
    return Changes(
        wanted=wanted,
        send=send,
        removed=sorted({shard for shard, _ in held} - shards.keys()),
        stale=there - wanted,
        overfull={
            version_name(s, content)
            for s, (content, n) in shards.items()
            if held.get((s, content), 0) > n
        },
        fresh={version_name(s, shards[s].content_hash) for s in send} - there,
    )


def shard_and_hash(version: str) -> tuple[str, str]:
    """Return shard and content hash of a version's name."""
    shard, _, content_hash = version.rpartition("@")
    return shard, content_hash


def version_name(shard: str, content_hash: str) -> str:
    """Return the name of a version of a shard, which each of its documents has."""
    return f"{shard}@{content_hash}"


def of_versions(versions: Collection[str]) -> dict[str, Any]:
    """Return a query for all documents of these versions of shards."""
    # Without a clause it would be for all documents there are.
    parts = list(batched(sorted(versions), MAX_TERMS)) or [()]
    return {
        "bool": {"filter": [{"bool": {"should": [{"terms": {"version": part}} for part in parts]}}]}
    }


def purpose_of(wanted: Collection[str]) -> str:
    """Return a short name of what a sync wants, the same for all syncs that want the same versions."""
    versions = "\0".join(sorted(wanted)).encode(errors="surrogatepass")
    return hashlib.blake2b(versions, digest_size=8).hexdigest()
