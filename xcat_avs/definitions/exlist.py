"""Exlists: what stays out of the archive of an image."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Callable

from xcat_avs.definitions import includes
from xcat_avs.definitions.includes import INCLUDE, Source

KIND = "exlist"
_libc = ctypes.CDLL(None)


def read(paths: Iterable[Path], variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The patterns of exlists: what to leave out, and what to take in all the same (`+`).

    Patterns are those of find -path, from the top of the image (`./usr/share/man*`). An #INCLUDE: counts wherever
    it stands, also in a comment, of which the first line of the included list is then a part, as packimage has it.
    variables: what `${NAME}` stands for in the name of a list. Raises AvsError for a list that is not there.
    """
    excluded: list[str] = []
    included: list[str] = []
    for path in paths:
        for line in _expanded(includes.source(path, KIND, variables)).split("\n"):
            line = re.sub(r"\s*#.*", "", line.strip())
            if line.startswith("+"):
                included.append(line[1:].strip())
            elif line:
                excluded.append(line.lstrip("-").strip())
    return excluded, included


def _expanded(source: Source) -> str:
    """The text of a list with those it includes in their places, without empty lines."""
    text = INCLUDE.sub(lambda match: _expanded(source.include(match.group(1), str(source.path))), source.text())
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def select(paths: Sequence[str], excluded: Sequence[str], included: Sequence[str]) -> list[str]:
    """The paths, relative to the top of the image, that an exlist leaves in."""
    out, keep = _matcher(excluded), _matcher(included)
    return [path for path in paths if not out("./" + path) or keep("./" + path)]


def with_parents(paths: Iterable[str]) -> set[str]:
    """The paths, and the directories that lead to them."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = os.path.dirname(path)
    return found


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path matches any pattern, as find -path has it: by the C library's own fnmatch."""
    encoded = [os.fsencode(pattern) for pattern in patterns]

    def matches(path: str) -> bool:
        name = os.fsencode(path)
        return any(_libc.fnmatch(pattern, name, 0) == 0 for pattern in encoded)

    return matches
