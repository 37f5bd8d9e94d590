"""Patterns of paths, as the shell has them: `*` any characters, `?` one, `[abc]` and `[!abc]` one of some.

All of them match a leading dot as well, and capital letters are others than small ones. What differs is the slash:

- `matches` is for a path as one text, as `case` of the shell has it: `*`, `?` and `[!a]` match a slash as well.
- `lies_in` goes part by part, as names of files are expanded: no `*` matches a slash, and a part `**` stands for any
  number of directories, none as well.

Python's own fnmatch does both, for it takes names of any bytes. Exlists alone ask the C library (libc.fnmatch): what
they leave out must be what `find -path` of packimage does, with its `[^a]`, its `\\` and its classes of characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern whose `*` crosses slashes matches a path; or a pattern without slashes a name."""
    return fnmatchcase(path, pattern)


def lies_in(path: str, pattern: str) -> bool:
    """Whether a pattern, part by part, matches a path or a directory that it lies in."""
    return _lies_in(path.split("/"), pattern.strip("/").split("/"))


def _lies_in(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_lies_in(parts[number:], patterns[1:]) for number in range(len(parts) + 1))
    return bool(parts) and matches(parts[0], patterns[0]) and _lies_in(parts[1:], patterns[1:])
