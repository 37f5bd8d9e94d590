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
    inputs: str = ""  # a hash of what else decided how it was packed
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


def check_name(rootimgdir: Path, osimage: str, tag: str) -> Path:
    """The directory a set goes to. Raises AvsError if something else has that name."""
    final = set_directory(rootimgdir, tag)
    if os.path.lexists(final):
        record = None if final.is_symlink() else read_record(final)
        if record is None or (record.osimage, record.tag) != (osimage, tag):
            raise AvsError(
                f"{osimage}: the packed tag would be kept as {final}, which is there and is something else; take another tag name"
            )
    return final


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


def publish(staging: Path, rootimgdir: Path, record: PackedSet) -> str:
    """Serve the set in staging at rootimgdir from one moment to the next.

    Until the rename nodes get the old set, from it on the new one. A real directory found at
    rootimgdir is exchanged in the same single step and kept beside it.
    Returns where a real directory was moved to, or "".
    """
    final = check_name(rootimgdir, record.osimage, record.tag)
    (staging / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in staging.iterdir():
        os.chmod(path, 0o644)
        _sync(path)
    os.chmod(staging, 0o755)
    _sync(staging)
    if final.exists():
        _exchange(staging, final)  # the same tag again: also where it is the one being served
    else:
        os.rename(staging, final)
    return switch(rootimgdir, final.name)


def switch(rootimgdir: Path, name: str) -> str:
    """Serve the directory of that name, beside rootimgdir, in a single step.

    Returns where a real directory found at rootimgdir was moved to, or "".
    """
    moved = ""
    now = current(rootimgdir)
    if now != name:
        if now is not None:
            _link(_previous_link(rootimgdir), now)
        link = rootimgdir.with_name(f".{rootimgdir.name}.avs-link")
        if rootimgdir.is_dir() and not rootimgdir.is_symlink():
            aside = _free_name(rootimgdir)
            _link(_previous_link(rootimgdir), aside.name)
            link.unlink(missing_ok=True)
            link.symlink_to(name)
            _exchange(link, rootimgdir)
            os.rename(link, aside)
            moved = aside.name
        else:
            _link(rootimgdir, name)
    _sync(rootimgdir.parent)
    return moved


def _link(path: Path, target: str) -> None:
    """Make path a link to target, in place of the link that may be there."""
    new = path.with_name(f".{path.name.lstrip('.')}.avs-link")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, path)


def _previous_link(rootimgdir: Path) -> Path:
    return rootimgdir.with_name(f".{rootimgdir.name}.avs-previous")


def current(rootimgdir: Path) -> Optional[str]:
    """The name of the directory that rootimgdir serves, or None where it is no link."""
    if not rootimgdir.is_symlink():
        return None
    target = rootimgdir.parent / os.readlink(rootimgdir)
    return target.name if target.parent == rootimgdir.parent else str(target)


def previous(rootimgdir: Path) -> str:
    """The name of the directory that was served before the present one and is still there, or ""."""
    link = _previous_link(rootimgdir)
    name = os.readlink(link) if link.is_symlink() else ""
    return name if name and name != current(rootimgdir) and (rootimgdir.parent / name).is_dir() else ""


def kept(rootimgdir: Path, osimage: str) -> dict[str, PackedSet]:
    """Every packed set of an osimage that is still there, by the name of its directory."""
    found = {}
    for path in rootimgdir.parent.glob(f"{rootimgdir.name}.*"):
        record = None if path.is_symlink() else read_record(path)
        if record is not None and record.osimage == osimage:
            found[path.name] = record
    return found


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
