"""Patterns of paths against those who have the rules: the shell, and the C library for exlists."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from xcat_avs.system import libc
from xcat_avs.tree import patterns

PATHS = (
    "etc",
    "etc/passwd",
    "etc/.hidden",
    "usr/lib/a.so",
    "usr/lib/deep/er/a.so",
    "usr/lib",
    "A",
    "a",
    "ab",
    "a[b]",
    "ä",
)
PATTERNS = ("*", "etc/*", "usr/*/a.so", "?", "a?", "[ab]", "[!a]", "[a-c]b", "*.so", "usr/lib/*", "a[[]b]", "*/*/*", "")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_whole_path_as_case_of_the_shell(pattern: str) -> None:
    script = 'pattern=$1; shift; for path; do case $path in $pattern) printf "%s\\n" "$path" ;; esac; done'
    argv = ["bash", "-c", script, "bash", pattern, *PATHS]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert [path for path in PATHS if patterns.matches(path, pattern)] == said.splitlines()


@pytest.mark.parametrize("pattern", [*PATTERNS[:-1], "**/a.so", "usr/**", "usr/**/a.so", "**/er/*"])
def test_part_by_part_as_the_shell_expands_names(tmp_path: Path, pattern: str) -> None:
    """bash with globstar and dotglob; what lies in a directory that matches counts as well."""
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not any(other.startswith(f"{path}/") for other in PATHS):
            (tmp_path / path).touch()
    script = 'shopt -s globstar dotglob nullglob; IFS=; printf "%s\\n" $1'
    said = subprocess.run(["bash", "-c", script, "bash", pattern], cwd=tmp_path, capture_output=True, text=True,
                          check=True, env={"LC_ALL": "C.UTF-8"}).stdout  # fmt: skip
    found = {line.rstrip("/") for line in said.splitlines() if line}
    wanted = [path for path in PATHS if any(path == top or path.startswith(f"{top}/") for top in found)]
    assert [path for path in PATHS if patterns.lies_in(path, pattern)] == wanted


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_c_library_agrees_where_both_have_a_rule(pattern: str) -> None:
    found = [path for path in PATHS if libc.fnmatch(os.fsencode(pattern), os.fsencode(path))]
    assert found == [path for path in PATHS if patterns.matches(path, pattern)]


def test_where_exlists_differ() -> None:
    """What `find -path` knows and Python's fnmatch does not."""
    for pattern, path in (("[^a]", "b"), ("\\*", "*"), ("[[:digit:]]", "7")):
        assert libc.fnmatch(pattern.encode(), path.encode())
        assert not patterns.matches(path, pattern)


def test_names_that_are_not_utf_8() -> None:
    assert patterns.matches(os.fsdecode(b"usr/\xe9t\xe9"), "usr/*t?")
