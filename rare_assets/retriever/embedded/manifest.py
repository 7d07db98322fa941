"""Read and write the embedded index's `state.json` and `current.json`, and list the files of a state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from rare_assets.retriever.embedded.postings import FILES as POSTINGS_FILES
from rare_assets.retriever.interface import Bm25, IndexDamaged, IndexState, ShardContent
from rare_assets.text.shown_url import shown

ENGINE = "embedded"
# Raise it when the files' layout or an analyzer's terms change.
FORMAT = 3
STATE_FILES = (
    "state.json",
    "owners.npy",
    "order.npy",
    "gone_terms.npy",
    "gone_frequencies.npy",
    "duplicates.arrow",
)
SEGMENT_FILES = ("documents.arrow", "texts", *POSTINGS_FILES)


class FileSum(NamedTuple):
    """Length and CRC-32 of a file."""

    size: int
    checksum: int


class Segment(NamedTuple):
    """A segment and how many documents lie in it."""

    name: str
    n_rows: int


class Manifest(NamedTuple):
    """What `state.json` says of a state.

    Attributes:
        name: of the state's folder.
        bm25: how the index ranks.
        shards: what each shard held when it was indexed.
        n_documents: ids in the index.
        n_duplicates: texts that stand more than once.
        n_counted: rows that have a term.
        n_terms: sum of the lengths of those rows, in terms.
        segments: where the documents lie.
        sums: length and checksum of each file, by its path in the index folder; empty if an earlier version
            wrote the state.
    """

    name: str
    bm25: Bm25
    shards: dict[str, ShardContent]
    n_documents: int
    n_duplicates: int
    n_counted: int
    n_terms: int
    segments: list[Segment]
    sums: Mapping[str, FileSum] = {}

    @property
    def state(self) -> IndexState:
        """The state, as the interface shows it."""
        shown = {key: content.content_hash for key, content in self.shards.items()}
        return IndexState(ENGINE, self.bm25, shown, self.n_documents)

    @property
    def files(self) -> list[str]:
        """Paths of all files of the state in the index folder; `state.json` comes first."""
        return [f"states/{self.name}/{file}" for file in STATE_FILES] + [
            f"segments/{segment.name}/{file}" for segment in self.segments for file in SEGMENT_FILES
        ]

    @property
    def data_files(self) -> list[str]:
        """Paths of all files but `state.json`."""
        return self.files[1:]

    def as_json(self) -> str:
        """Return the content of `state.json`."""
        return json.dumps(self._asdict() | {"bm25": self.bm25._asdict()})

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read the content of `state.json`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is none.
        """
        content = json.loads(text)
        return cls(**content)._replace(
            bm25=Bm25(**content["bm25"]),
            shards={key: ShardContent(*of) for key, of in content["shards"].items()},
            segments=[Segment(*of) for of in content["segments"]],
            sums={file: FileSum(*of) for file, of in content.get("sums", {}).items()},
        )


class Pointer(NamedTuple):
    """What `current.json` says: the current state, and the CRC-32 of its `state.json`.

    >>> Pointer("3f", 7).as_json()
    '{"format": 3, "state": "3f", "checksum": 7}'
    """

    state: str
    checksum: int | None = None

    def as_json(self) -> str:
        """Return the content of `current.json`."""
        return json.dumps({"format": FORMAT, **self._asdict()})

    @classmethod
    def from_json(cls, text: bytes, path: str) -> Pointer | None:
        """Read the content of `current.json`; None if it is of another format.

        Args:
            text: the content.
            path: of the index, for messages.

        Raises:
            IndexDamaged: it is not what was written.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                return None
            return cls(str(content["state"]), content.get("checksum"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, "current.json is not what was written") from error


def damaged(path: str, what: str) -> IndexDamaged:
    """Return the error for an index whose files are damaged: `what` is wrong, and what to do."""
    return IndexDamaged(
        f"the index in {shown(path)} is damaged: {what}. Materialize corpus_index, which makes it anew "
        "at no cost, as `rare-assets run` does by itself"
    )
