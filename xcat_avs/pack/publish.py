"""Publishing: a complete set of files takes the place of the served one in a single rename."""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Collection, Iterator
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
LOOKUP = 1.0  # seconds
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
    by_design: dict[str, str] = field(default_factory=dict)  # path that packimage changed by design -> why


def read_record(directory: Path) -> Optional[PackedSet]:
    """What a directory is (rootimgdir: what is served now), or None if it was not published here."""
    try:
        return PackedSet(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def set_directory(rootimgdir: Path, record: PackedSet, reserved: Collection[Path] = ()) -> Path:
    """Where a set is kept: PROFILE.TAG beside PROFILE, the same again for the same tag of the same osimage.

    Where something else has that name, or it is the rootimgdir of another osimage (reserved): PROFILE.TAG.2 and so on.
    """
    number, final = 1, rootimgdir.with_name(f"{rootimgdir.name}.{record.tag}")
    while True:
        if not os.path.lexists(final):
            if final not in reserved:
                return final
        elif not final.is_symlink() and final not in reserved:
            there = read_record(final)
            if there is not None and (there.osimage, there.source, there.tag) == (
                record.osimage,
                record.source,
                record.tag,
            ):
                return final
        number += 1
        final = rootimgdir.with_name(f"{rootimgdir.name}.{record.tag}.{number}")


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
    """Size and checksum of each file of a set, by its path in it (`addons/kvm.cpio.gz`)."""
    files = sorted(path for path in directory.rglob("*") if not path.is_dir())
    return {
        str(path.relative_to(directory)): {"size": path.stat().st_size, "sha256": digest(str(path))} for path in files
    }


def publish(staging: Path, rootimgdir: Path, record: PackedSet, reserved: Collection[Path] = ()) -> tuple[Path, str]:
    """Serve the set in staging at rootimgdir from one moment to the next.

    Until the rename nodes get the old set, from it on the new one. A real directory found at
    rootimgdir is exchanged in the same single step and kept beside it. reserved: names that are not free.
    Returns the directory of the set, and where a real directory was moved to, or "".
    """
    final = set_directory(rootimgdir, record, reserved)
    (staging / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in [*sorted(staging.rglob("*"), reverse=True), staging]:  # what is in a directory before the directory
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
        _sync(path)
    again = final.exists()
    if again:
        _exchange(staging, final)  # the same tag again: also where it is the one being served
    else:
        os.rename(staging, final)
    try:
        moved = switch(rootimgdir, final.name)
    except BaseException:
        if current(rootimgdir) == final.name and not again:
            pass  # it is served: cut off after the one step that counts
        elif again:
            _exchange(staging, final)
        else:
            os.rename(final, staging)
        raise
    if again:
        time.sleep(LOOKUP)  # the old files go after this; whoever was on the way to them has opened them
    return final, moved


def switch(rootimgdir: Path, name: str) -> str:
    """Serve the directory of that name, beside rootimgdir, in a single step.

    Returns where a real directory found at rootimgdir was moved to, or "".
    """
    now = current(rootimgdir)
    moved = ""
    if now == name:
        return moved
    real = rootimgdir.is_dir() and not rootimgdir.is_symlink()
    aside = _free_name(rootimgdir)
    before = aside.name if real else now
    remembered = _previous_link(rootimgdir)
    older = os.readlink(remembered) if remembered.is_symlink() else None
    # First what is to be gone back to: killed after it, this says "none", and never the wrong one.
    if before is not None:
        _link(remembered, before)
    try:
        if real:
            link = rootimgdir.with_name(f".{rootimgdir.name}.avs-link")
            _link(link, name)
            try:
                _exchange(link, rootimgdir)
            except BaseException:
                link.unlink(missing_ok=True)
                raise
            os.rename(link, aside)
            moved = aside.name
        else:
            _link(rootimgdir, name)
    except BaseException:
        if before is not None and current(rootimgdir) != name:
            remembered.unlink(missing_ok=True)
            if older is not None:
                remembered.symlink_to(older)
        raise
    _sync(rootimgdir.parent)
    return moved


def _link(path: Path, target: str) -> None:
    """Make path a link to target, in place of the link that may be there."""
    new = path.with_name(f".{path.name.lstrip('.')}.avs-link.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    try:
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _previous_link(rootimgdir: Path) -> Path:
    return rootimgdir.with_name(f".{rootimgdir.name}.avs-previous")


def current(rootimgdir: Path) -> Optional[str]:
    """The name of the directory that rootimgdir serves, or None where it is no link."""
    if not rootimgdir.is_symlink():
        return None
    target = os.readlink(rootimgdir)
    path = rootimgdir.parent / target
    return path.name if path.parent == rootimgdir.parent else target


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
