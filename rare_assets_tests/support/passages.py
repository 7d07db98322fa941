"""Passages of a few subjects that share words, numbered: the same number is the same text everywhere."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

SUBJECTS = {
    "battery": (
        "anode cathode electrolyte separator dendrite lithium plating voltage nickel graphite "
        "coulomb swelling cycling formation venting binder foil intercalation"
    ),
    "nerve": (
        "axon synapse membrane sodium channel impulse myelin neuron dendrite receptor calcium "
        "vesicle refractory threshold node ganglion reflex soma"
    ),
    "pipe": (
        "valve surge pump reservoir turbulence elbow flange viscosity cavitation head riser "
        "throttle bellows gasket impeller weir conduit nozzle"
    ),
}
SHARED = (
    "current cell potential charge pressure flow resistance load stress gradient capacity leak "
    "density wave front delay recovery transport diffusion rupture barrier signal pulse balance "
    "junction discharge temperature fatigue"
)
WORDS = 40


def passage(number: int) -> str:
    """A text of 40 words: half of its subject, half of the words that all subjects share."""
    rng = random.Random(number)
    subject = list(SUBJECTS)[number % len(SUBJECTS)]
    words = [
        rng.choice((SUBJECTS[subject] if place % 2 else SHARED).split())
        for place in range(WORDS - 3)
    ]
    return f"Specimen {subject} {number:03}x {' '.join(words)}."


def row(number: int) -> dict[str, str]:
    """A source row with the passage of that number."""
    return {"id": f"p{number:03}", "title": f"Passage {number}", "text": passage(number)}


def write_jsonl(path: Path, numbers: Iterable[int]) -> Path:
    """A source file of those passages, with ids and titles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row(number))}\n" for number in numbers))
    return path


def write_json_list(path: Path, numbers: Iterable[int]) -> Path:
    """A source file as DataFlow writes it: a JSON list of objects that have nothing but a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"text": passage(number)} for number in numbers]))
    return path
