"""Keep what was learnt of an endpoint beside the answers, so that the next run starts with it."""

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
    """A folder of small files, each written whole."""

    def write(self, name: str, content: bytes) -> Any: ...

    def read_whole(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class Known:
    """What is known of one model at one endpoint.

    Attributes:
        manner: how requests are worded; None if that is not known.
        window: tokens that prompt and answer may have together; None if that is not known, 0 if the
            endpoint does not tell.
    """

    manner: Manner | None = None
    window: int | None = None


@dataclass
class Memory:
    """Keep what is known in a folder, in one file for each model and endpoint.

    Args:
        folder: where the file lies; None keeps nothing.
        model: the model's name.
        endpoint: the endpoint's name, as `endpoint_name` returns it.
    """

    folder: Folder | None
    model: str
    endpoint: str
    known: Known = field(default_factory=Known)

    @property
    def _name(self) -> str:
        digest = hashlib.sha256(json.dumps([self.model, self.endpoint]).encode()).hexdigest()
        return f"endpoint-{digest[:16]}.json"

    def load(self) -> Known:
        """Read and return what is kept; a file that can't be read, or is older than 30 days, tells nothing."""
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
        """Keep what was learnt. A failure is logged; the next run then sends a few short requests more."""
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
