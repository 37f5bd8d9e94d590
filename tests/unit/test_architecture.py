"""Who may import whom: the arrows of the design, read from the sources by `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "xcat_avs"

# module -> the modules of ours that it may import. "X" stands for X alone, "X.*" for X and all below it.
ALLOWED: dict[str, set[str]] = {
    "": set(),
    "__main__": {"cli"},
    "boot.*": {"boot.*", "errors", "system.*"},
    "build.*": {
        "build.*", "clock", "definitions.*", "errors", "generate.*", "recipes.*", "report", "settings",
        "system.*", "tree.*",
    },
    "cli": {"", "errors", "escape", "modes.*", "report", "request", "site.*", "system.*"},
    "clock": set(),
    "definitions.*": {"definitions.*", "errors", "system.*"},
    "diff.*": {"clock", "diff.*", "escape", "report", "tree.*"},
    "errors": {"escape"},
    "escape": set(),
    "generate.*": {"definitions.*", "errors", "generate.*", "settings", "system.*", "tree.*", "xcat.*"},
    "identity": {"clock", "errors"},
    "image": {"definitions.*"},
    "modes.*": {
        "", "boot.*", "build.*", "clock", "definitions.*", "diff.*", "errors", "modes.*", "pack.*", "page.*",
        "recipes.*", "report", "request", "serve.*", "site.*", "store.*", "system.*", "tree.*",
        "xcat.*",
    },
    "pack.*": {
        "clock", "definitions.*", "errors", "pack.*", "report", "request", "serve.*", "site.*",
        "store.*", "system.*", "tree.*", "xcat.*",
    },
    "page.*": {"clock", "errors", "escape", "page.*", "report", "system.*"},
    "recipes.*": {"definitions.*", "errors", "recipes.*", "settings", "system.*"},
    "report": {"escape"},
    "request": set(),
    "serve.*": {"definitions.*", "errors", "identity", "serve.*", "system.*", "tree.*", "xcat.*"},
    "settings": {"definitions.*", "errors", "system.*"},
    "site.*": {
        "definitions.*", "errors", "identity", "recipes.*", "request", "serve.*", "settings", "site.*", "store.*",
        "system.*", "xcat.*",
    },
    "store.*": {"definitions.*", "errors", "identity", "store.*", "system.*", "tree.*"},
    "system.*": {"errors", "escape", "system.*"},
    "tree.*": {"errors", "system.*", "tree.*"},
    "xcat.*": {"definitions.*", "errors", "system.*", "xcat.*"},
}  # fmt: skip
PROCESS_CALLS = ("system", "popen", "exec", "spawn", "posix_spawn", "fork", "forkpty")


def sources() -> dict[str, Path]:
    """Module name below xcat_avs -> file; procedures and add-ons are read by path and are no modules."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) == 1 or parts[0] not in ("procedures", "addons"):
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


SOURCES = sources()
PROCEDURES = sorted(path for name in ("procedures", "addons") for path in (PACKAGE / name).glob("*/*.py"))
ENTRY = ("cli", "__main__")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a source, parsed once."""
    return tuple(ast.walk(ast.parse(path.read_bytes(), str(path))))


def imported(path: Path) -> Iterator[str]:
    """The full dotted name of everything that a file imports, inside functions as well."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def our_modules(path: Path) -> frozenset[str]:
    """The modules of ours that a file imports, by their name below xcat_avs."""
    found = set()
    for name in imported(path):
        head, _, rest = name.partition(".")
        if head == "xcat_avs":
            while rest and rest not in SOURCES:
                rest = rest.rpartition(".")[0]
            found.add(rest)
    return frozenset(found)


def covers(pattern: str, name: str) -> bool:
    stem = pattern.removesuffix(".*")
    return name == stem or (pattern.endswith(".*") and name.startswith(stem + "."))


@cache
def calls(path: Path) -> frozenset[str]:
    """Every attribute or name that a file uses, dotted as far as it is plain (`os.system`, `print`)."""
    return frozenset(ast.unparse(node) for node in nodes(path) if isinstance(node, (ast.Attribute, ast.Name)))


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    unruled = [name for name in SOURCES if sum(covers(pattern, name) for pattern in ALLOWED) != 1]
    assert unruled == []
    assert [pattern for pattern in ALLOWED if not any(covers(pattern, name) for name in SOURCES)] == []


def test_each_imports_only_what_it_may() -> None:
    found = []
    for name, path in SOURCES.items():
        allowed = next(modules for pattern, modules in ALLOWED.items() if covers(pattern, name))
        wrong = {other for other in our_modules(path) if not any(covers(item, other) for item in allowed)}
        if wrong:
            found.append(f"xcat_avs.{name} imports {sorted(wrong)}; it may import {sorted(allowed)}")
    assert found == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("sh", "system.command"),
        ("tabulate", "report"),
        ("typer", "cli"),
        ("pexpect", "boot.console"),
        ("click", None),
        ("rich", "system.statusline"),
        ("plotly", "page.charts"),
    ],
)
def test_a_library_is_imported_in_its_one_place(library: str, home: str | None) -> None:
    users = [name for name, path in SOURCES.items() if library in {item.split(".")[0] for item in imported(path)}]
    assert users == ([home] if home else [])


def test_only_command_starts_processes() -> None:
    for name, path in SOURCES.items():
        starts_none(name, path)


def starts_none(name: str, path: Path) -> None:
    imports = {item.split(".")[0] for item in imported(path)}
    # subprocess is mentioned by build only for the class of its exceptions.
    started = [item for item in calls(path) if item.startswith("subprocess.") and item != "subprocess.SubprocessError"]
    assert started == [], name
    assert imports & {"multiprocessing", "pty", "commands"} == set(), name
    assert "asyncio.create_subprocess_exec" not in calls(path), name
    used = {item.removeprefix("os.") for item in calls(path) if item.startswith("os.")}
    used |= {item.removeprefix("os.") for item in imported(path) if item.startswith("os.")}
    wrong = {item for item in used if item.startswith(PROCESS_CALLS)}
    assert wrong == {"system.mounts": {"fork"}, "__main__": {"execv"}}.get(name, set()), name


def test_only_cli_prints_and_exits() -> None:
    prints = {"print", "input", "exit", "quit", "sys.exit", "sys.stdout", "sys.stderr", "sys.__stdout__", "SystemExit"}
    for name in SOURCES.keys() - set(ENTRY):
        # A forked child that must not return leaves by os._exit, which is no end of the program.
        wrong = prints - ({"SystemExit"} if name == "build.context" else set())  # which catches that of a procedure
        assert wrong & calls(SOURCES[name]) == set(), name
        assert {"sys.stdout", "sys.stderr", "sys.exit"} & set(imported(SOURCES[name])) == set(), name


def test_no_procedure_imports_anything_of_ours() -> None:
    for path in PROCEDURES:
        names = {name.split(".")[0] for name in imported(path)}
        assert names & {"xcat_avs", "sh", "typer", "tabulate", "click"} == set(), path
        assert "subprocess" not in names, f"{path}: programs are run by ctx.run"


@pytest.mark.parametrize("path", PROCEDURES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_procedure_says_what_is_wrong(path: Path) -> None:
    """By ctx.fail: with any other error stand its class, and the line that raised it."""
    assert [node.lineno for node in nodes(path) if isinstance(node, ast.Raise)] == []


def test_there_are_procedures() -> None:
    assert {path.stem for path in PROCEDURES} >= {"prepare_image_directory", "generate_image", "build_prep", "cleanup"}
