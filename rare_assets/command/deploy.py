"""The files that a deployment starts from, written from the package's templates into a team's folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

TEMPLATES = Path(__file__).parent.parent / "deploy"
# Each file of a kind, and the templates that it is put together from.
_COMPOSE: dict[str, tuple[str, ...]] = {
    "Dockerfile": ("Dockerfile",),
    "constraints.txt": ("constraints.txt",),
    "dagster.yaml": ("dagster.yaml",),
    "workspace.yaml": ("workspace.yaml",),
    "compose.yaml": ("docker-compose/compose.yaml",),
    "env.example": ("env.example",),
    "code.env.example": ("code.env.example",),
}
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "docker-compose": _COMPOSE,
    "helm": {
        "Dockerfile": ("Dockerfile",),
        "constraints.txt": ("constraints.txt",),
        "values.yaml": ("helm/values.yaml",),
    },
    "celery": {
        **_COMPOSE,
        "dagster.yaml": ("dagster.yaml", "celery/run_launcher.yaml"),
        "compose.override.yaml": ("celery/compose.override.yaml",),
        "env.example": ("env.example", "celery/env.example"),
    },
}
# Of the queue; Celery's as many as its two workers execute.
RUNS_AT_ONCE = {"docker-compose": 16, "celery": 4}
_STAMP = re.compile(rb"# Written by `rare-assets deploy [a-z-]+` \(([0-9a-f]{16})\).*\n")


class DeployError(Exception):
    """The files can't be written where they are wanted."""


class Written(NamedTuple):
    """A file of a deployment, and whether it has been written or was there as it is."""

    path: Path
    is_new: bool


def write_deployment(kind: str, out: Path) -> list[Written]:
    """Write the files of a kind of deployment into a folder, all of them or none.

    A file that this function has written and nobody has changed is written anew.

    Raises:
        DeployError: a file there is somebody else's, or the folder can't be written.
    """
    files = {out / name: content for name, content in deployment_files(kind).items()}
    try:
        there = {path: _content(path) for path in files}
        theirs = [path for path, old in there.items() if old is not None and not _is_ours(old)]
        if theirs:
            raise DeployError(
                f"{', '.join(map(str, theirs))}: changed since `rare-assets deploy` wrote it, or never written "
                "by it. Nothing was written. Give another folder by --out, and take over what you need."
            )
        out.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            if content != there[path]:
                _replace(path, content)
    except OSError as error:
        raise DeployError(f"{error.filename or out}: {error.strerror or error}") from error
    return [Written(path, content != there[path]) for path, content in files.items()]


def deployment_files(kind: str) -> dict[str, bytes]:
    """Return the content of each file of a kind, by name, with a first line that tells who wrote it."""
    made = {}
    for name, templates in KINDS[kind].items():
        content = "".join((TEMPLATES / each).read_text() for each in templates)
        content = content.replace("{{ dagster }}", _dagster_release())
        content = content.replace("{{ runs }}", str(RUNS_AT_ONCE.get(kind)))
        made[name] = _stamp(kind, content.encode())
    return made


def _dagster_release() -> str:
    """Return the release of Dagster that a deployment installs, which is its chart's, too."""
    found = re.search(r"^dagster==(.+)$", (TEMPLATES / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _stamp(kind: str, content: bytes) -> bytes:
    line = (
        f"# Written by `rare-assets deploy {kind}` ({_digest(content)}); once changed, it is yours "
        "and never overwritten.\n"
    )
    return line.encode() + content


def _is_ours(content: bytes) -> bool:
    stamp = _STAMP.match(content)
    return stamp is not None and stamp[1].decode() == _digest(content[stamp.end() :])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _content(path: Path) -> bytes | None:
    """Read what lies at a path; None if nothing does. What is no file is nobody's to overwrite."""
    if not os.path.lexists(path):
        return None
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""


def _replace(path: Path, content: bytes) -> None:
    unready = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unready.write_bytes(content)
        unready.replace(path)
    finally:
        unready.unlink(missing_ok=True)
