"""Imports go down the house and never up or sideways: what the README's tree says, read from the code.

A room is a package or a module at the top of `rare_assets`. `STILL_WRONG` may only shrink.
"""

import ast
import doctest
import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rare_assets
from rare_assets_tests.support.fake_endpoint import FakeEndpoint

ROOT = Path(rare_assets.__file__).parent
# From the top of the house to the ground; rooms of one floor don't import one another.
FLOORS = (
    {"command"},
    {"definitions", "component"},
    {"build"},
    {"assets", "automation"},
    {"pilot"},
    {"checks"},
    {"stages", "catalog"},
    {"operators", "resources", "exports"},
    {"corpus"},
    {"teacher", "retriever", "storage"},
    {"schemas", "settings", "files"},
    {"text"},
)
# Rooms whose `__init__` names what others may use.
FRONT_DOORS = {"retriever", "teacher"}
STILL_WRONG: set[tuple[str, str]] = set()


def room_of(module: str) -> str:
    """Return the room of a dotted module name, `rare_assets.` left out."""
    return module.split(".")[0]


@cache
def modules() -> Sequence[tuple[str, ast.Module]]:
    """Every module's dotted name below `rare_assets`, with its tree."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found.append((name, ast.parse(path.read_text())))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, within functions and for types, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of `rare_assets` that names are imported from, without the package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "rare_assets":
                names = [f"rare_assets.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "rare_assets" and rest:
                yield rest


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports of `rare_assets`, without the package's name."""
    for name in imports(tree):
        package, _, rest = name.partition(".")
        if package == "rare_assets" and rest:
            yield rest


def test_every_room_has_a_floor():
    rooms = {room_of(name) for name, _ in modules()}
    assert rooms <= set().union(*FLOORS)


def test_imports_go_down():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = {
        (name, target)
        for name, tree in modules()
        for target in imported(tree)
        if room_of(name) != (room := room_of(target)) and floor[room] <= floor[room_of(name)]
    }
    assert {(name, room_of(target)) for name, target in wrong} == STILL_WRONG, sorted(wrong)


def test_modules_import_in_no_circle():
    known = {name for name, _ in modules()}
    targets = {
        name: {
            target if target in known else target.rpartition(".")[0] for target in imported(tree)
        }
        for name, tree in modules()
    }
    assert len(list(TopologicalSorter(targets).static_order())) >= len(targets) > 200


def test_no_relative_imports():
    relative = [
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_private_dagster_stands_in_one_room():
    private = {
        ".".join(name.split(".")[:2])
        for name, tree in modules()
        for target in imports(tree)
        if target.split(".")[0].startswith("dagster") and "._" in target
    }
    assert private == {"resources.dagster_internals"}


def test_rooms_with_a_front_door_are_entered_by_it():
    behind = [
        (name, target)
        for name, tree in modules()
        for target in imported_modules(tree)
        if (room := room_of(target)) in FRONT_DOORS and room_of(name) != room and target != room
    ]
    assert behind == []


@pytest.mark.parametrize("room", sorted(FRONT_DOORS | {"corpus", "operators", "storage"}))
def test_the_example_of_a_room_runs(room, nothing_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing_set.setenv("OPENAI_API_KEY", "sk-x")
    with FakeEndpoint(answer=lambda _: "It lowers the freezing point of water.") as endpoint:
        text = importlib.import_module(f"rare_assets.{room}").__doc__
        text = text.replace("http://localhost:8000/v1", endpoint.url)
        example = doctest.DocTestParser().get_doctest(text, {}, room, None, 0)
        results = doctest.DocTestRunner().run(example)
    assert (results.failed, results.attempted > 3) == (0, True)


WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py" and ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(module):
    results = doctest.testmod(importlib.import_module(f"rare_assets.{module}"))
    assert (results.failed, results.attempted > 0) == (0, True)


@pytest.mark.processes
@pytest.mark.parametrize("room", sorted(FRONT_DOORS))
def test_a_front_door_has_every_name_that_it_lists_and_loads_no_client(room):
    door = importlib.import_module(f"rare_assets.{room}")
    assert [name for name in door.__all__ if not hasattr(door, name)] == []
    # The clients of endpoint and Elasticsearch take most of a second to import.
    code = f"import sys, rare_assets.{room}; sys.exit({{'openai', 'elasticsearch'}} & {{*sys.modules}} or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
