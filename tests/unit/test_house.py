"""The figures of the house: how many rooms and arrows there are, and how large its parts may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from unit.test_architecture import PACKAGE, SOURCES, nodes, our_modules

# Beyond the 26 rooms and 95 arrows of the rest: boot needs errors and system, page clock, errors, escape, report and
# system, and modes need both.
ROOMS, FLOORS, ARROWS = 27, 11, 103
MODULE, FUNCTION, PARAMETERS, POSITIONAL = 300, 40, 6, 4  # lines, lines, parameters, fields


def room(module: str) -> str:
    """The file or folder directly below the package that a module is in."""
    return module.split(".", maxsplit=1)[0]


@cache
def arrows() -> dict[str, frozenset[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {room(name): set() for name in SOURCES if name}
    for name, path in SOURCES.items():
        if name:
            found[room(name)] |= {room(other) for other in our_modules(path) if other} - {room(name)}
    return {name: frozenset(others) for name, others in found.items()}


def floors() -> int:
    """The longest way from the top down, in rooms. Fails on a circle."""

    @cache
    def height(name: str) -> int:
        return 1 + max((height(other) for other in arrows()[name]), default=0)

    try:
        return max(height(name) for name in arrows())
    except RecursionError:
        pytest.fail("the rooms import each other in a circle", pytrace=False)


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, path in SOURCES.items():
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}.{node.name}", node


def parameters(node: ast.FunctionDef) -> int:
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in found)


@cache
def positional() -> dict[str, int]:
    """Where a dataclass or a named tuple is built -> by how many fields without a name."""
    kinds = set()
    for path in SOURCES.values():
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                marks = [ast.unparse(item) for item in (*node.decorator_list, *node.bases)]
                if any("dataclass" in mark for mark in marks):
                    kinds.add(node.name)
    found = {}
    for name, path in SOURCES.items():
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                found[f"{name}, line {node.lineno}: {node.func.id}"] = len(node.args)
    return found


def test_figures(capsys: pytest.CaptureFixture[str]) -> None:
    # procedures and add-ons, which are read as files, are rooms of their own.
    rooms = len(arrows()) + sum((PACKAGE / name).is_dir() for name in ("procedures", "addons"))
    count = sum(map(len, arrows().values()))
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in SOURCES.items()}
    lines = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    wide = {name: parameters(node) for name, node in functions() if name != "cli.parse"}
    figures = {
        "rooms": (rooms, ROOMS),
        "floors": (floors(), FLOORS),
        "arrows": (count, ARROWS),
        "lines of the longest module": (max(long.values()), MODULE),
        "lines of the longest function": (max(lines.values()), FUNCTION),
        "most parameters": (max(wide.values()), PARAMETERS),
        "most fields without a name": (max(positional().values()), POSITIONAL),
    }
    with capsys.disabled():
        print("\n" + "\n".join(f"{name:32}{value:5}  at most {most}" for name, (value, most) in figures.items()))
    over = {
        "modules": {name: value for name, value in long.items() if value > MODULE},
        "functions": {name: value for name, value in lines.items() if value > FUNCTION},
        "parameters": {name: value for name, value in wide.items() if value > PARAMETERS},
        "fields": {name: value for name, value in positional().items() if value > POSITIONAL},
    }
    assert {name: value for name, value in over.items() if value} == {}
    assert {name: value for name, (value, most) in figures.items() if value > most} == {}


def test_no_mode_imports_a_mode() -> None:
    for name, path in SOURCES.items():
        if name.startswith("modes."):
            assert [other for other in our_modules(path) if other.startswith("modes.")] == [], name
