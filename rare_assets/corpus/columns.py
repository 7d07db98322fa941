"""Read RARE_COLUMNS: which column of a data file is which.

>>> columns = Columns.parse("text=contents,id=_id")
>>> columns.fields({"_id": 7, "contents": "Water.", "title": "T"})
{'text': 'Water.', 'id': 7, 'title': 'T'}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rare_assets.text.shown import cut, on_one_line

FIELDS = ("text", "id", "title", "question", "scenario", "answer")
# What data sets call the column; suggested where one is missing, never taken by itself.
KNOWN_AS = {
    "text": ("contents", "content", "passage", "body", "document", "document_text", "passage_text"),
    "id": ("_id", "docid", "doc_id", "document_id", "pid", "passage_id"),
}
# Where each row has columns of its own there are millions: so many are told of, and so many kept in memory.
_SHOWN, _SHOWN_LENGTH = 50, 100
MOST_COLLECTED = 5000
_NUMBER = re.compile(r"\d+")


class ColumnsError(ValueError):
    """Raised for a RARE_COLUMNS that can't be used as it is; the message says why."""


@dataclass(frozen=True)
class Columns:
    """The column that each field is read from; `named` are the fields that were set."""

    names: Mapping[str, str] = field(default_factory=lambda: {name: name for name in FIELDS})
    named: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, setting: str | None) -> Columns:
        """Read `text=contents,id=_id`; fields that are left out keep their name.

        Raises:
            ColumnsError: it is not of this form, or names an unknown field or one field twice.
        """
        names: dict[str, str] = {}
        for part in (setting or "").split(","):
            if not part.strip():
                continue
            name, equals, column = (piece.strip() for piece in part.partition("="))
            if name not in FIELDS or not equals or not column or name in names:
                raise ColumnsError(
                    f"{part.strip()!r} can't be used. It takes field=column, with commas between and each "
                    f"field once, as in text=contents,id=_id; the fields are {', '.join(FIELDS)}."
                )
            names[name] = column
        return cls({name: names.get(name, name) for name in FIELDS}, frozenset(names))

    @property
    def setting(self) -> str:
        """The shortest setting that gives these columns; "" for the default ones."""
        return ",".join(f"{name}={column}" for name, column in self.names.items() if column != name)

    @property
    def without_header(self) -> bool:
        """True if columns are numbers: of CSV and TSV files without a header line."""
        return any(_NUMBER.fullmatch(self.names[name]) for name in self.named)

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that a row has, by name.

        A column's own name goes before dots that reach into structs.

        >>> Columns.parse("text=page.text").fields({"page": {"text": "Water."}})
        {'text': 'Water.'}
        """
        found = {}
        for name, column in self.names.items():
            there, value = _at(row, column)
            if there:
                found[name] = value
        return found

    def missing(self, present: Collection[str]) -> list[str]:
        """Return the fields that must be there and are not: `text`, and what was set.

        Args:
            present: names of the columns; dots reach into any of them.
        """
        return [
            name
            for name, column in self.names.items()
            if (name == "text" or name in self.named) and not _reached(column, present)
        ]

    def wanted(self, present: Collection[str]) -> list[str]:
        """Return the columns of a file that the fields are read from, in the file's order."""
        reached = {_reached(column, present) for column in self.names.values()}
        return [column for column in present if column in reached]

    def unused_id(self, present: Collection[str]) -> str | None:
        """Return what to tell a user where rows have no id, but a column that may be one; else None."""
        if _reached(self.names["id"], present):
            return None
        found = next((name for name in KNOWN_AS["id"] if name in present), None)
        if found is None:
            return None
        return (
            f"there is no column `{self.names['id']}`, so the passages are known by a hash of their text. If "
            f"`{found}` is their id, set RARE_COLUMNS=id={found}."
        )

    def problem(
        self, missing: Collection[str], present: Collection[str], first: str | None = None
    ) -> str:
        """Return what to tell a user of missing columns: which there are, and what to set.

        Args:
            missing: fields whose columns are not there.
            present: the columns that are.
            first: what else to do before, with "to".
        """
        wanted = " and ".join(
            f"`{self.names[name]}`" + ("" if self.names[name] == name else f" for {name}")
            for name in missing
        )
        hints = []
        for name in missing:
            lower = {
                **{column.lower().rpartition(".")[2]: column for column in present},
                **{column.lower(): column for column in present},
            }
            known = [lower[k] for k in (name, *KNOWN_AS.get(name, ())) if k in lower]
            if known:
                hints.append(f"{name}={_one_shown(known[0])}")
        example = ",".join(hints) or f"{next(iter(missing))}=<column>"
        before = f"{first} and " if first else ""
        return (
            f"needs exactly one column {wanted}; its columns: {_shown(present)}. To use it, {before}set "
            f"RARE_COLUMNS={example} (dots reach into structs; numbers count the columns of a .csv or .tsv "
            "without a header line, from 0)."
        )


def names_within(row: Mapping[str, Any]) -> list[str]:
    """Return the names of a row's columns, those of a struct with what stands before the dot.

    >>> names_within({"page": {"text": "Water.", "n": 1}, "lang": "en"})
    ['page.text', 'page.n', 'lang']
    """
    names = []
    for name, value in row.items():
        within = value if isinstance(value, Mapping) and value else {}
        names += [f"{name}.{inner}" for inner in within] or [str(name)]
    return names


def _shown(columns: Collection[str]) -> str:
    """Return the first columns by name, and how many more there are."""
    shown = [_one_shown(name) for name in islice(columns, _SHOWN)]
    if (more := len(columns) - _SHOWN) > 0:
        shown[-1] += f" and {'at least ' if len(columns) >= MOST_COLLECTED else ''}{more:,} more"
    return ", ".join(shown) or "none"


def _one_shown(name: str) -> str:
    return on_one_line(cut(name, _SHOWN_LENGTH))


def _at(row: Mapping[str, Any], column: str) -> tuple[bool, Any]:
    if column in row:
        return True, row[column]
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _reached(column: str, present: Collection[str]) -> str | None:
    """Return the column of a file that a name is, or reaches into."""
    if column in present:
        return column
    start = column.partition(".")[0]
    return start if start in present else None
