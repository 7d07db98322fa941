"""The attempts at one ask that goes out in batches."""

from __future__ import annotations

from dataclasses import dataclass

from rare_assets.teacher.attempts import Attempts


@dataclass(slots=True, eq=False)
class BatchAttempts(Attempts):
    """The attempts at one ask, with the batches in which the present one has failed.

    Attributes:
        batches_failed: how many.
        beside_answers: True if any of them brought answers to others.
    """

    batches_failed: int = 0
    beside_answers: bool = False

    def forget_faults(self) -> None:
        self.batches_failed, self.beside_answers = 0, False
