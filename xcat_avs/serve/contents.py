"""Whether what lies in a published directory is what was packed into it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from xcat_avs.tree.scan import digest

RECORD = "avs.json"  # in every published set: what it is; written last
Files = Mapping[str, Mapping[str, object]]


def changes(directory: Path, files: Files, sums: bool = False) -> list[str]:
    """How a published directory differs from what was packed into it, a line for each path; empty where it does not.

    files: what was packed, by its path: size and sha256. sums: compare all contents; else only those of files that were written after the record was.
    """
    written = _written(directory / RECORD)
    found: list[str] = []
    for name, facts in sorted(files.items()):
        try:
            found += _change(directory, name, facts, sums, written)
        except OSError as err:
            found.append(f"{name} is gone" if err.errno == errno.ENOENT else f"{name} cannot be read: {err.strerror}")
    return found + [f"{name} was not packed" for name in _foreign(directory, files)]


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _change(directory: Path, name: str, facts: Mapping[str, object], sums: bool, written: float) -> Iterator[str]:
    status = (directory / name).lstat()
    if not stat.S_ISREG(status.st_mode):
        yield f"{name} is not a regular file"
    elif status.st_size != facts["size"]:
        yield f"{name} has {status.st_size} bytes, and {facts['size']} were packed"
    elif (sums or status.st_mtime > written) and digest(str(directory / name)) != facts["sha256"]:
        yield f"{name} has other content"


def _foreign(directory: Path, files: Files) -> list[str]:
    """What lies in a published directory and was not packed; NFS keeps files that are still read as .nfs*."""
    parents = {os.path.dirname(name) for name in files} - {""}
    known = {RECORD, *files, *parents}
    found = []
    for parent in ("", *sorted(parents)):
        if os.path.isdir(directory / parent):
            found += [
                os.path.join(parent, name) for name in os.listdir(directory / parent) if not name.startswith(".nfs")
            ]
    return sorted(set(found) - known)
