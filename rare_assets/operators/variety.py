"""Choose what each question is to be like: its type, length and wording, and who asks it.

The choices follow from a seed and the document's text, not from the place of the row, so that a corpus
that grows leaves the prompts of the others as they are.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple

from rare_assets.text.words import count_words

# What each of these words asks for; any other type is handed to the teacher as it stands.
QUESTION_TYPES = {
    "apply": "carry what the document explains over to a case that it does not mention",
    "diagnose": "find the cause of what somebody observes",
    "compare": "weigh two cases or choices against each other",
    "compute": "work out a number or a quantity",
    "predict": "say what follows if something changes",
    "counterexample": "find the case in which a claim that sounds right fails",
}
WORDINGS = {
    "expert": "in the terms of the field",
    "symptom": "as somebody asks who does not know the terms: everyday words for what they see or want, "
    "and none of the document's technical terms",
}


class Length(NamedTuple):
    """Fewest and most words of a question."""

    least: int
    most: int

    @property
    def said(self) -> str:
        """The length as a prompt says it."""
        return f"{self.least} to {self.most} words" if self.least else f"at most {self.most} words"

    def fits(self, text: str) -> bool:
        """Return True if a question is about so long: half as much again is let pass.

        >>> Length(0, 4).fits("Why does salt melt ice so fast?")
        False
        """
        return self.least / 1.5 <= count_words(text) <= self.most * 1.5


LENGTHS = {"short": Length(0, 25), "medium": Length(0, 80), "long": Length(150, 400)}


class Variety(NamedTuple):
    """Lists of what questions are to be like; of each list every question gets one, evenly spread."""

    question_types: Sequence[str] = tuple(QUESTION_TYPES)
    lengths: Sequence[str] = ("short", "medium")
    wordings: Sequence[str] = tuple(WORDINGS)
    personas: Sequence[str] = ()

    def choose(self, seed: int, text_hash: str, number: int) -> Asked:
        """Choose for question `number` (from 0) of a document.

        Questions of one document get different entries as long as a list has some.

        >>> variety = Variety(question_types=("apply", "compare"), lengths=("short",), wordings=())
        >>> [variety.choose(0, "a hash", number).question_type for number in range(3)]
        ['compare', 'apply', 'compare']
        """
        return Asked(
            *(_pick(values, name, seed, text_hash, number) for name, values in self._lists)
        )

    @property
    def _lists(self) -> list[tuple[str, Sequence[str]]]:
        return list(zip(self._fields, self, strict=True))


class Asked(NamedTuple):
    """The choice for one question; None where there was nothing to choose from."""

    question_type: str | None
    length: str | None
    wording: str | None
    persona: str | None

    @property
    def described(self) -> dict[str, str]:
        """The choice as a prompt says it, by name, without what is None."""
        kind, length, wording, persona = self
        found = {
            "question_type": kind and _explained(kind, QUESTION_TYPES.get(kind)),
            "length": length and _explained(length, LENGTHS[length].said),
            "wording": wording and _explained(wording, WORDINGS[wording]),
            "persona": persona,
        }
        return {name: said for name, said in found.items() if said}


def check_variety(variety: Variety) -> None:
    """Refuse a blank entry, and a length or wording that there is not.

    Raises:
        ValueError: names the list, and what there is.
    """
    for name, values in zip(variety._fields, variety, strict=True):
        if any(not value.strip() for value in values):
            raise ValueError(f"{name}: an entry is blank.")
    for name, known in (("lengths", LENGTHS), ("wordings", WORDINGS)):
        unknown = sorted(set(getattr(variety, name)) - set(known))
        if unknown:
            raise ValueError(f"{name}: no {', '.join(unknown)}; there are {', '.join(known)}.")


def _pick(values: Sequence[str], name: str, seed: int, text_hash: str, number: int) -> str | None:
    if not values:
        return None
    digest = hashlib.sha256(f"{seed}/{name}/{text_hash}".encode()).digest()
    order = list(values)
    random.Random(digest).shuffle(order)
    return order[number % len(order)]


def _explained(word: str, meaning: str | None) -> str:
    return f"{word} ({meaning})" if meaning else word
