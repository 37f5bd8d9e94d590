"""Refuse files and directories that others than root can change, where root would act on them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from xcat_avs.errors import AvsError, SetupError

LINKS = 40  # as many as the kernel follows
# Distributions let a group write here (Ubuntu: syslog); its members could do worse already.
EXEMPT = frozenset({Path("/var/log")})


def refuse(path: Path) -> None:
    """Raise AvsError, with what to do, where others than root could change a file or directory, or put another in its place.

    Every directory and link on the way is checked. For a user who is not root nothing is refused, and neither is a
    missing file, which whoever reads it will report.
    """
    if os.geteuid() != 0:
        return
    try:
        for item, status in _way(path):
            _refuse(item, status)
    except FileNotFoundError:
        return
    except OSError as err:
        raise AvsError(f"{path}: {err.strerror}") from None


def refuse_foreign(top: Path, names: Sequence[str] = ()) -> None:
    """Check one of avsimage's own directories and its subdirectories, which must not be links either.

    names: the subdirectories to check, and their entries with them; without names all subdirectories are checked.
    """
    refuse(top)
    for directory in [top / name for name in names] or _directories(top):
        _refuse_link(directory)
        for inner in _directories(directory) if names else ():
            _refuse_link(inner)
            for item in _entries(inner):
                _refuse_link(item, links_only=True)


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _directories(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_dir() or path.is_symlink()]


def _refuse_link(path: Path, links_only: bool = False) -> None:
    if path.is_symlink():
        raise AvsError(
            f"{path} is a link (to {os.readlink(path)}) where avsimage keeps directories of its own, which it empties; "
            "remove the link, and set [paths] state or logs in avs.conf to have them elsewhere"
        )
    if os.geteuid() == 0 and not links_only and path.exists():
        _refuse(path, path.stat())


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each directory, link and file that a path leads through, from the top, with its lstat."""
    at, links = Path("/"), 0
    yield at, at.lstat()
    pending = list(reversed(path.absolute().parts[1:]))
    while pending:
        part = pending.pop()
        if part == "..":
            at = at.parent  # all links in it are resolved already
            continue
        here = at / part
        status = here.lstat()
        yield here, status
        if not stat.S_ISLNK(status.st_mode):
            at = here
            continue
        links += 1
        if links > LINKS:
            raise AvsError(f"{path}: too many links on the way")
        target = Path(os.readlink(here))
        at = Path("/") if target.is_absolute() else at
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _refuse(path: Path, status: os.stat_result) -> None:
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise SetupError(f"{path} is no regular file (a device, pipe or socket), and root reads no other; name a file")
    if status.st_uid != 0:
        follow = "-h " if stat.S_ISLNK(status.st_mode) else ""
        raise SetupError(
            f"{path} belongs to uid {status.st_uid}, not to root ({mode}), and root acts on it; chown {follow}root {path}"
        )
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    writable = status.st_mode & (0o002 if path in EXEMPT else 0o022)
    if writable and not sticky and not stat.S_ISLNK(status.st_mode):
        raise SetupError(f"{path} may be written by others than root ({mode}), and root acts on it; chmod go-w {path}")
