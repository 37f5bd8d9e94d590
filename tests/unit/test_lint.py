"""The checks that run as tests: style, types, shell scripts, the oldest Python, and what must not be in a file."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
# Names of mirrors and of one machine's directories; written apart so that this file is not found by itself.
FORBIDDEN = re.compile(
    "|".join(["deb" + r"\.debian\.org", "(?:security|ftp|httpredir)" + r"\.debian\.org", r"archive\.ubuntu\.com",
              "/work/" + "(?:main|shared)", "/home/" + r"[a-z]+/"])
)  # fmt: skip


def check(*argv: str) -> None:
    """Run a checker in the checkout; its output is the failure."""
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(argv)} failed with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def tracked() -> list[Path]:
    """The files that git has, or would take."""
    argv = ["git", "-c", f"safe.directory={TOP}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(argv, cwd=TOP, capture_output=True, check=True).stdout
    names = [name.decode() for name in output.split(b"\0") if name]
    return [TOP / name for name in names if (TOP / name).is_file()]


def shell_scripts() -> list[str]:
    """What begins with the name of a shell, and the shell functions beside it."""
    found = []
    for path in tracked():
        with open(path, "rb") as stream:
            first = stream.readline(200)
        if re.match(rb"#!\s*(/usr/bin/env )?(/bin/)?(ba|da)?sh\b|# shellcheck shell=", first):
            found.append(str(path.relative_to(TOP)))
    return found


def python_sources() -> list[Path]:
    return sorted((TOP / "xcat_avs").rglob("*.py"))


@pytest.mark.slow
def test_ruff_check() -> None:
    check(str(TOOLS / "ruff"), "check", ".")


@pytest.mark.slow
def test_ruff_format() -> None:
    check(str(TOOLS / "ruff"), "format", "--check", ".")


@pytest.mark.slow
def test_mypy_strict() -> None:
    assert "strict = True" in (TOP / "setup.cfg").read_text(encoding="utf-8")
    check(str(TOOLS / "mypy"))


def test_shell_scripts_are_found() -> None:
    scripts = shell_scripts()
    assert {"quickstart", "runtests", ".ci/run"} <= set(scripts)
    assert any(name.endswith("setup-debian") for name in scripts)


@pytest.mark.slow
def test_shellcheck() -> None:
    assert shutil.which("shellcheck"), "shellcheck is not installed; it is in the package shellcheck"
    # -x: what a script sources is read along with it.
    check("shellcheck", "-x", "-P", str(TOP), *shell_scripts())


def test_syntax_is_that_of_python_3_9() -> None:
    found = []
    for path in python_sources():
        module = ast.parse(path.read_bytes(), str(path), feature_version=(3, 9))
        # feature_version lets these through on a newer parser.
        newer = [node for node in ast.walk(module) if type(node).__name__ in ("Match", "TryStar", "TypeAlias")]
        found += [(str(path), type(node).__name__, getattr(node, "lineno", 0)) for node in newer]
    assert found == []


def test_typer_is_given_annotations_that_python_3_9_can_evaluate() -> None:
    """typer evaluates the annotations of cli.py, so `X | Y` fails on 3.9 in spite of the __future__ import."""
    module = ast.parse((TOP / "xcat_avs/cli.py").read_bytes())
    wrong = []
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            for note in [argument.annotation for argument in arguments] + [function.returns]:
                if note is not None and any(isinstance(node, ast.BinOp) for node in ast.walk(note)):
                    wrong.append(f"line {function.lineno}: {ast.unparse(note)}")
    assert wrong == []


def test_annotations_of_modules_are_not_evaluated() -> None:
    for path in python_sources():
        text = path.read_text(encoding="utf-8")
        if not {"procedures", "addons"} & set(path.parts) and "def " in text:
            assert "from __future__ import annotations" in text, path


def test_no_file_names_a_mirror_or_a_directory_of_one_machine() -> None:
    found = []
    for path in tracked():
        if path.name == "lsdef.json":
            continue  # recorded as it was, with its accounts
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.split("\n"), 1):
            if FORBIDDEN.search(line):
                found.append(f"{path.relative_to(TOP)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_no_python_file_is_longer_than_a_reader_likes() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").split("\n")) for path in python_sources()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
