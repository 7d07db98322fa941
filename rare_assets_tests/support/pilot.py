"""Small corpora for pilots, and trials whose rows are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rare_assets.operators.templates import load_templates
from rare_assets.pilot.configuration import Configuration
from rare_assets.pilot.trial import StageUse, Trial
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.retriever import Bm25, IndexState
from rare_assets.schemas import Produced
from rare_assets.stages.options import Options
from rare_assets_tests.support.rows import rejects, rows

TEXTS = [
    (
        "Salt lowers the freezing point of water, so that brine stays liquid on a winter road where fresh water "
        "would freeze, and the lower the temperature falls, the more salt a road crew has to spread on it."
    ),
    (
        "Rust is iron oxide that grows where iron meets water and oxygen; salt in the water lets the current "
        "between the anodic and the cathodic places flow faster, so that cars near the sea rust sooner."
    ),
    (
        "A galvanic cell turns the energy of a redox reaction into current; zinc dissolves at the anode, copper is "
        "deposited at the cathode, and ions move through a porous barrier between the two solutions."
    ),
    (
        "Water hammer is a wave of pressure that runs through a pipe when a valve closes at once; the wave is "
        "the higher the faster the water ran, and an air chamber near the valve takes it up."
    ),
    (
        "A metal that is loaded again and again breaks at a stress that it would bear once; the crack starts at "
        "a notch or a scratch, grows with every load, and the rest breaks all at once."
    ),
    (
        "Myelin wraps a nerve fibre so that the impulse leaps from node to node; where it is lost, the current "
        "leaks through the membrane, the impulse slows down, and at last it does not arrive."
    ),
]


def write_corpus(folder: Path, texts: list[str] = TEXTS, *, files: int = 2) -> None:
    """Write documents `d0`, `d1`, ... into so many JSON Lines files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        lines = [
            json.dumps({"id": f"d{number}", "title": f"Title {number}", "text": text})
            for number, text in enumerate(texts)
            if number % files == file
        ]
        (folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n")


def a_configuration(tmp_path: Path, name: str = "a", **ops: dict[str, Any]) -> Configuration:
    """A configuration with these options, whose teacher is never asked."""
    options = Options.from_run_config({"ops": {op: {"config": each} for op, each in ops.items()}})
    teacher = TeacherModel(storage=Storage(root=str(tmp_path / "storage")), model="gpt-4o-mini")
    return Configuration(name, options, teacher, load_templates())


def a_trial(
    tmp_path: Path,
    name: str = "a",
    *,
    questions: list[dict[str, Any]],
    reasoning: list[dict[str, Any]],
    use: dict[str, StageUse] | None = None,
    rejected: list[dict[str, Any]] | None = None,
    ops: dict[str, dict[str, Any]] | None = None,
) -> Trial:
    """A trial that made these rows; each question has the negatives of `support.rows`."""
    mined = [
        {name: q[name] for name in ("question_id", "doc_id", "question") if name in q}
        for q in questions
    ]
    mined = [{"query": q.pop("question"), **q} if "question" in q else q for q in mined]
    produced = {
        "questions": Produced(
            rows("questions", *questions), rejects("questions", *(rejected or []))
        ),
        "hard_negatives": Produced(rows("hard_negatives", *mined), rejects("hard_negatives")),
        "reasoning": Produced(rows("reasoning", *reasoning), rejects("reasoning")),
    }
    state = IndexState("embedded", Bm25(), {"s": "h"}, 3)
    configuration = a_configuration(tmp_path, name, **(ops or {}))
    return Trial(name, configuration, produced, use or {}, state, 1.0)
