"""Express a tree as its difference from another one: a plain tree of files, and a list of removed paths."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

from xcat_avs.system.descent import FILE, Descent
from xcat_avs.tree import scan

OVERLAY = "trusted.overlay."  # extended attributes by which overlayfs says what an upper directory means
OPAQUE = f"{OVERLAY}opaque"
PLAIN = re.compile(rb"[^A-Za-z0-9_./:,+@=~^-]")
ESCAPE = re.compile(rb"\\0([0-7]{3})")


def escape(path: str) -> str:
    """A path as one word in the form that %b of printf(1) reads: `with\\0040space`."""
    return PLAIN.sub(lambda match: b"\\0%03o" % match.group()[0], os.fsencode(path)).decode("ascii")


def unescape(word: str) -> str:
    """The path that a word stands for."""
    return os.fsdecode(ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), word.encode("ascii")))


def dump(removed: Iterable[str]) -> str:
    """A list of removed paths as text, a path a line."""
    return "".join(f"{escape(path)}\n" for path in sorted(removed))


def load(text: str) -> list[str]:
    """The removed paths of such a text."""
    return [unescape(line) for line in text.splitlines()]


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern, of the form that ctx.glob takes, matches a path or one of its parent directories."""
    return _matches(path.split("/"), pattern.strip("/").split("/"))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_matches(parts[number:], patterns[1:]) for number in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def settle(upper: str, lower: str, exclude: Sequence[str] = ()) -> list[str]:
    """Make the upper directory of an unmounted overlay a plain tree; returns the paths of lower that it removes.

    Files that are the same as in lower are dropped, and so are those that a pattern of exclude matches. Parent
    directories of what is left stay, with owner, mode, time and attributes. Whoever applies the tree first removes
    each returned path with all below it; among them are paths whose type changed or that were replaced as a whole.
    """
    found = [("", os.lstat(upper)), *scan.walk(upper)]
    below: dict[str, Optional[os.stat_result]] = {}  # path -> its status in lower; None where upper hides it
    removed: list[str] = []
    kept: dict[str, os.stat_result] = {}
    quiet: set[str] = set()  # directories in which something was excluded
    with Descent(upper) as tree, Descent(lower) as base:
        for path, status in found:  # a directory comes before its entries
            parent = path.rpartition("/")[0]
            seen = not path or below[parent] is not None
            there = below[path] = _lstat(base, path) if seen else None
            directory, name = tree.parent(path)
            if not stat.S_ISDIR(status.st_mode):
                excluded = any(matches(path, pattern) for pattern in exclude)
                if excluded or _is_whiteout(status) or stat.S_ISSOCK(status.st_mode):
                    os.unlink(name, dir_fd=directory)
                    if excluded:
                        quiet.add(parent)
                    elif there is not None and _is_whiteout(status):
                        removed.append(path)
                    continue
            opaque = _strip(tree.name(path))
            if there is not None and path and (opaque or stat.S_IFMT(there.st_mode) != stat.S_IFMT(status.st_mode)):
                if opaque or stat.S_ISDIR(there.st_mode) or stat.S_ISDIR(status.st_mode):
                    removed.append(path)
                below[path] = None
            kept[path] = status
        _drop_same(tree, base, kept, below, quiet)
    return sorted(removed)


def _drop_same(tree: Descent, base: Descent, kept: dict[str, os.stat_result],
               below: dict[str, Optional[os.stat_result]], quiet: set[str]) -> None:  # fmt: skip
    """Remove paths that are the same in the base, and set the times of the directories back."""
    full_of: set[str] = set()  # directories in which something is kept
    for path, status in reversed(list(kept.items())):
        there = below[path]
        if stat.S_ISDIR(status.st_mode):
            same = path not in full_of and there is not None and _same(tree, base, path, status, there, path in quiet)
            directory, name = tree.parent(path)
            if same and path:
                os.rmdir(name, dir_fd=directory)
                continue
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        # A file with several names is kept under all of them, or they would become two files.
        elif there is not None and status.st_nlink == 1 and _same(tree, base, path, status, there):
            directory, name = tree.parent(path)
            os.unlink(name, dir_fd=directory)
            continue
        if path:
            full_of.add(path.rpartition("/")[0])


def _lstat(tree: Descent, path: str) -> Optional[os.stat_result]:
    try:
        directory, name = tree.parent(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _strip(full: str) -> bool:
    """Remove the extended attributes of overlayfs; returns whether the directory was opaque."""
    found = dict(scan.read_xattrs(full))
    for name in found:
        if name.startswith(OVERLAY):
            os.removexattr(full, name, follow_symlinks=False)
    return found.get(OPAQUE) == b"y"


def _same(
    tree: Descent, base: Descent, path: str, status: os.stat_result, there: os.stat_result, quiet: bool = False
) -> bool:
    """Whether a path is the same in both trees. quiet: times are not compared."""
    facts = ("st_mode", "st_uid", "st_gid", "st_rdev", *(() if quiet else ("st_mtime_ns",)))
    if any(getattr(status, name) != getattr(there, name) for name in facts):
        return False
    full, other = tree.name(path), base.name(path)
    if scan.read_xattrs(full) != scan.read_xattrs(other):
        return False
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(full) == os.readlink(other)
    if stat.S_ISREG(status.st_mode):
        return status.st_size == there.st_size and _digest(full) == _digest(other)
    return True


def _digest(full: str) -> str:
    return scan.digest(os.open(full, os.O_RDONLY | FILE))


def tree_paths(top: Path) -> int:
    """The number of paths below a directory."""
    return sum(1 for _ in scan.walk(str(top)))
