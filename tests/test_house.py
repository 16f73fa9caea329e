"""Who may import whom (docs/architecture.md, "Rooms")."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "django_prefork"

# From the command down to the protocol: each may know those behind it, none those before it.
CHAIN = ("management", "arbiter", "worker", "http")
ROOMS = (*CHAIN, "supervisor")
# Modules of the app's face to Django. All other modules beside the rooms are the common ground.
FACE = ("__main__", "apps", "checks", "prodserver", "pytest_plugin", "test")
# What the Supervisor may know beside the standard library; the package itself holds nothing but the version.
SUPERVISORS = {
    "django_prefork",
    "django_prefork.ends",
    "django_prefork.histogram",
    "django_prefork.inheritance",
    "django_prefork.layout",
    "django_prefork.row",
    "django_prefork.scoreboard",
    "django_prefork.socket_file",
}
# (who, whom): the process that started the server executes the Supervisor in its place, and so must know how; the
# plugin is apart from the test support, since every run of pytest imports it.
ALLOWED = {
    ("django_prefork.arbiter.launch", "django_prefork.supervisor.state"),
    ("django_prefork.pytest_plugin", "django_prefork.test.server"),
}
# What would make the protocol impure.
IMPURE = {
    "asyncio",
    "django",
    "fcntl",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements that run, wherever they stand."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not is_for_types(child):
            yield from statements(child)


@cache
def imports(name: str) -> set[str]:
    """Full names of the modules that a module imports: of this package as they are, of others the first part."""
    path = modules()[name]
    found = set()
    for statement in statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for _ in range(statement.level - 1):
            package = package.rpartition(".")[0]
        base = ".".join(filter(None, [package if statement.level else "", statement.module]))
        for alias in statement.names:
            full = f"{base}.{alias.name}"
            found.add(full if full in modules() else base)
    return {each if each.split(".")[0] == "django_prefork" else each.split(".")[0] for each in found} - {name}


def room(name: str) -> str:
    """The room a module stands in; "" for the common ground."""
    parts = name.split(".")
    if len(parts) == 1:
        return ""
    # A folder that is no room is an app of its own (dashboard): as free as the face, and known to nobody.
    return parts[1] if parts[1] in FACE or (PACKAGE / parts[1]).is_dir() else ""


def ours(name: str) -> set[str]:
    return {each for each in imports(name) if each.split(".")[0] == "django_prefork"}


def test_the_rooms_are_there() -> None:
    assert all(any(room(name) == each for name in modules()) for each in ROOMS)
    assert {"django_prefork.config", "django_prefork.scoreboard"} <= {name for name in modules() if not room(name)}


@pytest.mark.parametrize("name", modules())
def test_nothing_points_back_up(name: str) -> None:
    here = room(name)
    for other in ours(name):
        there = room(other)
        if not there or there == here or (name, other) in ALLOWED or {here, there} <= set(FACE):
            continue
        if here in CHAIN and there in CHAIN:
            assert CHAIN.index(here) < CHAIN.index(there), f"{name} imports {other}, which is above it"
        else:
            assert here and here not in ROOMS and there in CHAIN, f"{name} must not know {other}"


@pytest.mark.parametrize("name", [name for name in modules() if room(name) == "supervisor"])
def test_the_supervisor_knows_the_standard_library_and_the_scoreboard(name: str) -> None:
    for other in imports(name):
        known = other in sys.stdlib_module_names or other in SUPERVISORS or room(other) == "supervisor"
        assert known, f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(SUPERVISORS))
def test_what_the_supervisor_knows_is_as_light_as_itself(name: str) -> None:
    for other in imports(name):
        assert other in sys.stdlib_module_names or other in SUPERVISORS, f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in modules() if room(name) == "http"])
def test_the_protocol_is_pure(name: str) -> None:
    assert not imports(name) & IMPURE
    assert all(other == "django_prefork" or room(other) == "http" for other in ours(name))


def test_there_are_no_circles() -> None:
    finished: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "a circle: " + " -> ".join([*way[way.index(name) :], name])
        if name not in finished:
            for other in sorted(ours(name) & modules().keys()):
                follow(other, (*way, name))
            finished.add(name)

    for name in modules():
        follow(name, ())
