"""Publishing: a complete set of files takes the place of the served one in a single rename."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Optional

from xcat_avs import mounts
from xcat_avs.errors import AvsError
from xcat_avs.manifest import digest

AT_FDCWD = -100
RENAME_EXCHANGE = 2
RECORD = "avs.json"  # in every published set: what it is
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class PackedSet:
    """What a published directory is: which tag of which osimage, made when and by whom. Sizes in bytes."""

    osimage: str  # what nodes know it as
    source: str  # whose tag it is: another osimage where it masquerades
    tag: str
    revision: int
    date: str  # UTC, ISO 8601
    user: str
    archive: str
    previous: str = ""  # the directory that was served before it
    files: dict[str, dict[str, object]] = field(default_factory=dict)  # name -> size, sha256


def read_record(directory: Path) -> Optional[PackedSet]:
    """What a directory is (rootimgdir: what is served now), or None if it was not published here."""
    try:
        return PackedSet(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def set_directory(rootimgdir: Path, tag: str) -> Path:
    """Where the set of a tag is kept: PROFILE.TAG beside PROFILE."""
    return rootimgdir.with_name(f"{rootimgdir.name}.{tag}")


@contextmanager
def new_set(rootimgdir: Path) -> Iterator[Path]:
    """An empty private directory on the file system of rootimgdir; what is left of it at the end is removed."""
    staging = rootimgdir.with_name(f".{rootimgdir.name}.avs-new")
    try:
        rootimgdir.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as err:
        raise AvsError(f"cannot make {err.filename or rootimgdir.parent}: {err.strerror}") from None
    mounts.remove_tree(staging)  # of a run that was killed
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        mounts.remove_tree(staging)


def describe_files(directory: Path) -> dict[str, dict[str, object]]:
    """Size and checksum of each file of a set."""
    return {
        path.name: {"size": path.stat().st_size, "sha256": digest(str(path))} for path in sorted(directory.iterdir())
    }


def publish(staging: Path, rootimgdir: Path, record: PackedSet) -> tuple[PackedSet, str]:
    """Serve the set in staging at rootimgdir from one moment to the next.

    Until the rename nodes get the old set, from it on the new one. A real directory found at
    rootimgdir is exchanged in the same single step and kept beside it.
    Returns the record as published, and where a real directory was moved to, or "".
    """
    final = set_directory(rootimgdir, record.tag)
    previous = _previous(rootimgdir, final)
    record = PackedSet(**{**asdict(record), "previous": previous})
    (staging / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in staging.iterdir():
        os.chmod(path, 0o644)
        _sync(path)
    os.chmod(staging, 0o755)
    _sync(staging)
    moved = ""
    if final.exists():
        _exchange(staging, final)  # the same tag again: also where it is the one being served
    else:
        os.rename(staging, final)
    if not (rootimgdir.is_symlink() and os.readlink(rootimgdir) == final.name):
        link = rootimgdir.with_name(f".{rootimgdir.name}.avs-link")
        link.unlink(missing_ok=True)
        link.symlink_to(final.name)
        if rootimgdir.is_dir() and not rootimgdir.is_symlink():
            aside = _free_name(rootimgdir)
            _exchange(link, rootimgdir)
            os.rename(link, aside)
            moved = aside.name
        else:
            os.replace(link, rootimgdir)
    _sync(rootimgdir.parent)
    return record, moved


def _previous(rootimgdir: Path, final: Path) -> str:
    """The directory served now; for the same tag again, the one that was served before it."""
    if not rootimgdir.is_symlink():
        return _free_name(rootimgdir).name if rootimgdir.is_dir() else ""
    now = os.readlink(rootimgdir)
    if now == final.name:
        record = read_record(final)
        return record.previous if record else ""
    return now


def _free_name(rootimgdir: Path) -> Path:
    date = datetime.now().strftime("%Y-%m-%d")
    base = rootimgdir.with_name(f"{rootimgdir.name}.moved.aside.on.{date}")
    number, path = 1, base
    while os.path.lexists(path):
        number += 1
        path = base.with_name(f"{base.name}.{number}")
    return path


def finish_interrupted(rootimgdir: Path) -> str:
    """Bring to its end an exchange that was cut off between its two renames; returns where the directory went."""
    link = rootimgdir.with_name(f".{rootimgdir.name}.avs-link")
    if link.is_dir() and not link.is_symlink():
        aside = _free_name(rootimgdir)
        os.rename(link, aside)
        return aside.name
    link.unlink(missing_ok=True)
    return ""


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise AvsError(f"cannot exchange {one} and {other}: {os.strerror(code)}; the served files are as they were")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
