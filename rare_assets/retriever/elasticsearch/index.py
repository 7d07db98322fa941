"""Make, mark, tune and switch the concrete indices behind an alias, without a reader noticing.

An index of ours is called `<alias>-<suffix>`, and its mapping's `_meta` names the alias that it serves. Any
other index of the alias' name, or of a name like ours, is never changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from rare_assets.retriever.elasticsearch.connection import Connection, batched
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.interface import Bm25, IndexConflict, IndexMissing

FORMAT = 2  # of the concrete index; another number means another index
MAX_TERMS = 10_000  # in one terms clause; servers take 65,536 by default
WRITE = "-write"
KEYWORDS = ("doc_id", "text_hash", "shard", "content_hash", "version")

_log = logging.getLogger(__name__)


class ConcreteIndex(NamedTuple):
    """A concrete index of ours, as the server describes it."""

    name: str
    format: int
    bm25: Bm25
    number_of_shards: int  # asked for when it was made
    global_statistics: bool  # whether several primary shards have to share term statistics
    visible: bool  # the alias points to it
    hidden: frozenset[str]  # versions that the alias leaves out
    restore: Mapping[str, Any] | None  # settings to set after the first load
    closed: bool
    write_aliases: tuple[str, ...]  # of the syncs that may write to it, see `Alias.claim`

    @property
    def write_alias(self) -> str:
        """Name that the sync which has claimed the index writes under."""
        (alias,) = self.write_aliases
        return alias


class Alias:
    """The name that readers know, and the indices it points or pointed to."""

    def __init__(self, connection: Connection, number_of_shards: int) -> None:
        self.connection = connection
        self.name = connection.index
        self.number_of_shards = number_of_shards

    def _describe(self, names: str) -> dict[str, Any]:
        """Return the indices of these names or aliases, as the server describes them, by index name."""
        answer = self.connection.ask(
            f"look up {names}",
            lambda: self.connection.client.indices.get(
                index=names.split(","),
                ignore_unavailable=True,
                expand_wildcards=["open", "closed", "hidden"],
            ),
        )
        found: dict[str, Any] = answer.body
        return found

    def _parse(self, name: str, described: Mapping[str, Any]) -> ConcreteIndex | None:
        """Return an index of ours under this alias; None if it is another. Raises IndexConflict if it was changed."""
        mappings, settings = described["mappings"], described["settings"]["index"]
        mark = mappings.get("_meta", {}).get("rare_assets", {})
        if mark.get("index") != self.name:
            return None
        analyzer = mappings.get("properties", {}).get("text", {}).get("analyzer", "default")
        if mark["format"] == FORMAT and _shape(mappings) != _shape(_mappings(analyzer)):
            raise IndexConflict(
                f"the mapping of index {name!r} was changed: delete it, or set RARE_INDEX to "
                "another name"
            )
        similarity = settings.get("similarity", {}).get("default", {})
        alias = described["aliases"].get(self.name)
        hidden: set[str] = set()
        for clause in ((alias or {}).get("filter", {}).get("bool", {})).get("must_not", []):
            hidden.update(clause.get("terms", {}).get("version", []))
        return ConcreteIndex(
            name=name,
            format=mark["format"],
            bm25=Bm25(float(similarity.get("k1", 1.2)), float(similarity.get("b", 0.75)), analyzer),
            number_of_shards=mark["number_of_shards"],
            global_statistics=settings.get("number_of_shards") != "1",
            visible=alias is not None,
            hidden=frozenset(hidden),
            restore=mark.get("restore"),
            closed=settings.get("verified_before_close") == "true",
            write_aliases=tuple(a for a in described["aliases"] if a.startswith(f"{name}{WRITE}")),
        )

    def _ours(self) -> dict[str, ConcreteIndex]:
        """Return the indices made here for this alias. Raises IndexConflict if the name is taken."""
        ours = {}
        for name, described in self._describe(f"{self.name},{self.name}-*").items():
            if index := self._parse(name, described):
                ours[name] = index
            elif self.name in described["aliases"] or not name.startswith(f"{self.name}-"):
                raise IndexConflict(
                    f"{self.name!r} is the name of index {name!r} at {self.connection.url}, which "
                    "rare_assets did not make: it is left alone; set RARE_INDEX to another name"
                )
        if len(visible := [name for name, index in ours.items() if index.visible]) > 1:
            raise IndexConflict(
                f"alias {self.name!r} at {self.connection.url} points to several indices "
                f"({visible}): take it from all but one"
            )
        return ours

    def visible(self) -> ConcreteIndex:
        """Return the index that the alias points to. Raises IndexMissing and IndexConflict."""
        described = self._describe(self.name)
        if not described:
            raise self.connection.missing()
        found = [self._parse(name, index) for name, index in described.items()]
        if len(found) != 1 or found[0] is None:
            raise IndexConflict(
                f"{self.name!r} at {self.connection.url} is the name of {sorted(described)}, which "
                "rare_assets did not make: set RARE_INDEX to another name"
            )
        if found[0].format != FORMAT:
            raise IndexMissing(
                f"index {found[0].name!r} at {self.connection.url} was made by another version of "
                "rare_assets: materialize corpus_index, which makes it anew, once"
            )
        return found[0]

    def target(self, bm25: Bm25) -> ConcreteIndex:
        """Return the index to sync: the visible one if it can rank so, else another, which is made if needed.

        Raises:
            IndexConflict: an index of that name was not made here.
            ElasticsearchError: it can't rank so.
        """
        ours = self._ours()
        for index in ours.values():
            if index.closed:
                self._open(index.name)
        pinned: tuple[float, ...] = ()
        for index in ours.values():
            if not index.visible or not self._fits(index, bm25.analyzer):
                continue
            if self._set_bm25(index, bm25):
                return index._replace(bm25=bm25, closed=False)
            pinned = (bm25.k1, bm25.b)
        design = [FORMAT, bm25.analyzer, self.number_of_shards, *pinned]
        suffix = hashlib.blake2b(json.dumps(design).encode(), digest_size=4).hexdigest()
        name = f"{self.name}-{suffix}"
        if name not in ours:
            self._create(name, bm25)
        described = self._describe(name)
        made = self._parse(name, described[name]) if name in described else None
        if made is None:
            raise IndexConflict(
                f"index {name!r} at {self.connection.url} was not made by rare_assets: it is left alone; set "
                "RARE_INDEX to another name"
            )
        if not self._set_bm25(made, bm25):
            raise ElasticsearchError(
                f"index {name} at {self.connection.url} can't rank with k1={bm25.k1}, b={bm25.b}: delete it"
            )
        return made._replace(bm25=bm25, closed=False)

    def _fits(self, index: ConcreteIndex, analyzer: str) -> bool:
        return (index.format, index.bm25.analyzer, index.number_of_shards) == (
            *(FORMAT, analyzer),
            self.number_of_shards,
        )

    def _create(self, name: str, bm25: Bm25) -> None:
        """Make an index with settings for its first load; do nothing if another sync was faster."""
        settings = {
            "number_of_shards": self.number_of_shards,
            "similarity": {"default": _similarity(bm25)},
        }
        mark: dict[str, Any] = {
            "format": FORMAT,
            "index": self.name,
            "number_of_shards": self.number_of_shards,
        }

        def create() -> None:
            self.connection.client.indices.create(
                index=name,
                settings={"index": settings},
                mappings={**_mappings(bm25.analyzer), "_meta": {"rare_assets": mark}},
            )

        try:
            if not self.connection.optional(f"create index {name} with a number of shards", create):
                del settings["number_of_shards"]
                self.connection.ask(f"create index {name}", create)
        except ElasticsearchError as error:
            if error.kind != "resource_already_exists_exception":
                raise
            return
        given = self._describe(name).get(name, {}).get("settings", {}).get("index", {})
        loading = {"refresh_interval": "-1", "number_of_replicas": "0"}
        mark["restore"] = {setting: given.get(setting) for setting in loading}
        self._mark(name, mark)
        self._set_each(name, loading)

    def restore(self, target: ConcreteIndex) -> None:
        """Undo the settings that a new index has for its first load."""
        self._set_each(target.name, target.restore or {})
        self._mark(
            target.name,
            {"format": FORMAT, "index": self.name, "number_of_shards": target.number_of_shards},
        )

    def _set(self, name: str, settings: Mapping[str, Any]) -> bool:
        return self.connection.optional(
            f"set {settings} of {name}",
            lambda: self.connection.client.indices.put_settings(
                index=name, settings={"index": settings}
            ),
        )

    def _set_each(self, name: str, settings: Mapping[str, Any]) -> None:
        """Set those of the settings that this deployment lets one set."""
        if settings and not self._set(name, settings) and len(settings) > 1:
            for setting, value in settings.items():
                self._set(name, {setting: value})

    def _mark(self, name: str, mark: Mapping[str, Any]) -> None:
        self.connection.ask(
            f"mark {name}",
            lambda: self.connection.client.indices.put_mapping(
                index=name, meta={"rare_assets": mark}
            ),
        )

    def _set_bm25(self, index: ConcreteIndex, bm25: Bm25) -> bool:
        """Set k1 and b, for which the index is closed for a moment; returns False if this deployment can't."""
        if index.bm25 == bm25:
            return True
        name = index.name
        if not self.connection.optional(
            f"close {name} to set k1 and b",
            lambda: self.connection.client.indices.close(index=name),
        ):
            return False
        try:
            return self._set(name, {"similarity": {"default": _similarity(bm25)}})
        finally:
            self._open(name)

    def claim(self, target: ConcreteIndex, purpose: str, hide: Collection[str]) -> ConcreteIndex:
        """Keep syncs of another purpose from changing the index, and hide versions from readers.

        Each sync writes under an alias that is named after its purpose. Once that alias is gone, each change
        of that sync fails, so that it can't spoil what this one does. The alias also keeps a deleted index
        from being created by a write.

        Args:
            target: the index.
            purpose: the same for all syncs that want the same, as `purpose_of` returns it.
            hide: versions of shards that readers are not to see yet.

        Raises:
            ElasticsearchError: the index is gone.
        """
        now = self._parse(target.name, self._describe(target.name).get(target.name, {}))
        if now is None:
            raise self.connection.concurrent_sync_error("is gone")
        own = f"{target.name}{WRITE}-{purpose}"
        # Whoever claimed it for the same has hidden them, and perhaps has shown them since.
        hidden = now.hidden | frozenset(() if own in now.write_aliases else hide)
        actions: list[dict[str, Any]] = [
            {"remove": {"index": target.name, "alias": alias}}
            for alias in now.write_aliases
            if alias != own
        ]
        actions.append({"add": {"index": target.name, "alias": own, "is_hidden": True}})
        if now.visible and hidden != now.hidden:
            actions.append({"add": self._filtered(target.name, hidden)})
        self.connection.ask(
            f"claim {target.name}",
            lambda: self.connection.client.indices.update_aliases(actions=actions),
        )
        return target._replace(visible=now.visible, hidden=hidden, write_aliases=(own,))

    def show(self, target: ConcreteIndex, hidden: Collection[str]) -> None:
        """Point the alias to this index alone, without these versions of shards, in one step.

        Raises:
            ElasticsearchError: another sync has claimed the index meanwhile.
        """
        others = [
            {"remove": {"index": index.name, "alias": self.name}}
            for index in self._ours().values()
            if index.visible and index.name != target.name
        ]
        self._point(target, [*others, {"add": self._filtered(target.name, hidden)}])

    def unhide(self, target: ConcreteIndex) -> None:
        """Let the alias show all that the index holds. Raises the same as `show`."""
        self._point(target, [{"add": self._filtered(target.name, ())}])

    def _point(self, target: ConcreteIndex, actions: Sequence[Mapping[str, Any]]) -> None:
        own: dict[str, Any] = {"index": target.name, "alias": target.write_alias}
        # Done as a whole or not at all, and not at all if the write alias is gone.
        claimed = [
            {"remove": {**own, "must_exist": True}},
            {"add": {**own, "is_hidden": True}},
        ]
        try:
            self.connection.ask(
                f"point alias {self.name} to {target.name}",
                lambda: self.connection.client.indices.update_aliases(actions=[*claimed, *actions]),
            )
        except ElasticsearchError as error:
            if error.kind != "aliases_not_found_exception":
                raise
            raise self.connection.concurrent_sync_error("can't be shown") from error

    def _filtered(self, name: str, hidden: Collection[str]) -> dict[str, Any]:
        """Return the alias over an index, without these versions of shards."""
        alias: dict[str, Any] = {"index": name, "alias": self.name}
        if hidden:
            must_not = [{"terms": {"version": part}} for part in batched(sorted(hidden), MAX_TERMS)]
            alias["filter"] = {"bool": {"must_not": must_not}}
        return alias

    def delete_others(self, target: ConcreteIndex) -> None:
        """Delete the index that the alias pointed to before, and those that killed loads have left."""
        for index in self._ours().values():
            if index.name != target.name and not index.visible:
                delete = partial(self.connection.client.indices.delete, index=index.name)
                self.connection.ask(
                    f"delete {index.name}", partial(delete, ignore_unavailable=True)
                )

    def _open(self, name: str) -> None:
        self.connection.ask(f"open {name}", lambda: self.connection.client.indices.open(index=name))

    def refresh(self, name: str) -> None:
        """Let searches of an index find all that was written to it."""
        self.connection.ask(
            f"refresh {name}", lambda: self.connection.client.indices.refresh(index=name)
        )

    def expunge(self, target: ConcreteIndex) -> None:
        """Ask the server to merge removed documents away, which count in term statistics until then.

        The merge can take as long as a full load; nobody waits for it.
        """
        try:
            self.connection.optional(
                f"merge {target.name}",
                lambda: self.connection.client.indices.forcemerge(
                    index=target.name,
                    only_expunge_deletes=True,
                    flush=False,
                    wait_for_completion=False,
                ),
            )
        except ElasticsearchError as error:
            _log.debug("the merge was left to the server: %s", error)


def _similarity(bm25: Bm25) -> dict[str, Any]:
    return {"type": "BM25", "k1": bm25.k1, "b": bm25.b}


def _mappings(analyzer: str) -> dict[str, Any]:
    return {
        "dynamic": "strict",
        "properties": {
            # BM25 needs no positions of terms.
            "text": {"type": "text", "analyzer": analyzer, "index_options": "freqs"},
            # A title is searched as part of the text, unless the text begins with it.
            "heading": {"type": "keyword", "index": False, "doc_values": False, "copy_to": "text"},
            "title": {"type": "keyword", "index": False, "doc_values": False},
            **{field: {"type": "keyword"} for field in KEYWORDS},
        },
    }


def _shape(mappings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the part of a mapping that is equal for two indexes that hold the same documents."""
    fields = mappings.get("properties", {})
    return mappings.get("dynamic"), {name: field.get("type") for name, field in fields.items()}
