"""What was learnt of an endpoint, kept beside the answers so that the next run starts there."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from rare_assets.teacher.dialect import COMPLETION_TOKENS, MODES, PARTS, Manner

logger = logging.getLogger(__name__)

# Servers learn to take more: after so long it is found out again.
FORGET_S = 30 * 86400.0


class Folder(Protocol):
    """Where it is kept: small files, written whole."""

    def write(self, name: str, content: bytes) -> Any: ...

    def read_whole(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class Known:
    """What is known of one model at one endpoint; None where nothing is.

    `window` are the tokens that prompt and answer may have together.
    """

    manner: Manner | None = None
    window: int | None = None


@dataclass
class Memory:
    """Known facts in a folder, a file a model and endpoint; without a folder nothing is kept."""

    folder: Folder | None
    model: str
    endpoint: str
    known: Known = field(default_factory=Known)

    @property
    def _name(self) -> str:
        digest = hashlib.sha256(json.dumps([self.model, self.endpoint]).encode()).hexdigest()
        return f"endpoint-{digest[:16]}.json"

    def load(self) -> Known:
        """Read what is kept. What can't be read, or is old, is not known."""
        if self.folder is None:
            return self.known
        try:
            content = json.loads(self.folder.read_whole(self._name))
            if time.time() - float(content["learnt_at"]) < FORGET_S:
                self.known = Known(_manner(content.get("manner")), content.get("window"))
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever the file system raises: it is found out again
            logger.warning("%s can't be read: %s", self._name, type(error).__name__)
        return self.known

    def save(self, known: Known) -> None:
        """Keep what was learnt; a failure costs a few short requests of the next run."""
        if known == self.known:
            return
        self.known = known
        if self.folder is None:
            return
        manner = known.manner
        content = {
            "model": self.model,
            "endpoint": self.endpoint,
            "learnt_at": round(time.time(), 3),
            "window": known.window,
            "manner": manner
            and {
                "mode": manner.mode,
                "without": sorted(manner.without),
                "stream": manner.stream,
            },
        }
        try:
            self.folder.write(self._name, json.dumps(content, indent=1).encode())
        except Exception as error:
            logger.warning("%s can't be written: %s", self._name, type(error).__name__)


def _manner(content: Any) -> Manner | None:
    if not isinstance(content, dict) or content.get("mode") not in MODES:
        return None
    names = {*PARTS, COMPLETION_TOKENS}
    return Manner(content["mode"], frozenset(content["without"]) & names, content["stream"] is True)
