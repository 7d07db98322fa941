"""A file system in memory: a server or a run that waits for its disk some hundred times has nothing to wait for."""

from __future__ import annotations

import shutil
from pathlib import Path

_FOLDER = Path("/dev/shm")
_ROOM = 4 << 30
# None where there is none, or too little room: then the system's own folder is taken.
MEMORY = _FOLDER if _FOLDER.is_dir() and shutil.disk_usage(_FOLDER).free > _ROOM else None
