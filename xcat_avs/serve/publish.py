"""Publishing: a complete set of files takes the place of the served one in a single rename."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from xcat_avs.errors import AvsError, Interrupted
from xcat_avs.serve.contents import changes
from xcat_avs.serve.sets import MARK, RECORD, PackedSet, Target, _previous_link, altered, current, kept, previous
from xcat_avs.system import libc, mounts
from xcat_avs.system.files import sync

RENAME_EXCHANGE = 2
# What a file system says that cannot exchange two names: NFS, FUSE, an old kernel.
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
Warn = Callable[[str], None]


class Published(NamedTuple):
    """directory: the name of the set that is served. moved: where a real directory found at rootimgdir was moved to, or ""."""

    directory: str
    moved: str


def _silent(text: str) -> None:
    """Nobody is told."""


def warn_altered(target: Target, warn: Warn) -> None:
    """Say that what is served is not what was packed: somebody has packed over it by hand, or it is damaged."""
    text = altered(target.rootimgdir)
    if text:
        warn(f"{target.image.name}: {text}; it is kept as it is")


@contextmanager
def served(say: Warn, text: str) -> Iterator[None]:
    """What comes after the switch: an interrupt there does not hide what is served already."""
    try:
        yield
    except Interrupted:
        say(text)
        raise


def make_parent(rootimgdir: Path) -> None:
    """Have the directory that a set is to be served in."""
    try:
        rootimgdir.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as err:
        raise AvsError(f"cannot make {err.filename or rootimgdir.parent}: {err.strerror}") from None


@contextmanager
def new_set(rootimgdir: Path) -> Iterator[Path]:
    """An empty private directory on the file system of rootimgdir; what is left of it at the end is removed."""
    staging = rootimgdir.with_name(f".{rootimgdir.name}.avs-new")
    make_parent(rootimgdir)
    mounts.remove_tree(staging)  # of a run that was killed
    staging.mkdir(mode=0o700)
    try:
        _try_modes(staging)
        yield staging
    finally:
        mounts.remove_tree(staging)


def _try_modes(directory: Path) -> None:
    """Refuse before any work a file system on which nothing can be made readable for the web server."""
    try:
        os.chmod(directory, 0o711)
        os.chmod(directory, 0o700)
    except OSError as err:
        raise AvsError(
            f"cannot change modes in {directory.parent}: {err.strerror}; what is packed there could not be read by the web server. "
            "Export it without squashing root, or pack where the disk is"
        ) from None


def publish(
    staging: Path, rootimgdir: Path, record: PackedSet, reserved: Collection[Path] = (), warn: Warn = _silent
) -> Published:
    """Serve the set in staging at rootimgdir from one moment to the next.

    Until the rename nodes get the old set, from it on the new one. The set always gets a directory of its own, so
    that the one before stays whole, of the same tag as well. reserved: the rootimgdirs of all osimages.
    """
    (staging / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in [*sorted(staging.rglob("*"), reverse=True), staging]:  # entries come before their directory
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
        sync(path)
    final = _unused(rootimgdir.with_name(f"{rootimgdir.name}{MARK}{record.tag}"), MARK)
    name = final.name
    os.rename(staging, final)
    try:
        known = _known_name(rootimgdir, record.tag, reserved)
        if known is not None:
            known.symlink_to(final.name)
            name = known.name
        moved = switch(rootimgdir, name, warn)
    except BaseException:
        if current(rootimgdir) != name:  # else it is served: interrupted after the one step that counts
            _forget_names(final)
            os.rename(final, staging)
        raise
    _remove_superseded(rootimgdir, record, warn)
    return Published(name, moved)


def _known_name(rootimgdir: Path, tag: str, reserved: Collection[Path]) -> Optional[Path]:
    """Another name for a set, PROFILE.TAG, which scripts and people know; it is a link.

    A profile may be called so. A tag without a digit (`gpu`, `test`) might well be the last word of one, and gets no such link.
    """
    if not any(char.isdigit() for char in tag):
        return None
    return _unused(rootimgdir.with_name(f"{rootimgdir.name}.{tag}"), ".", reserved)


def _forget_names(directory: Path) -> None:
    """Remove the links beside a set that are other names for it."""
    for path in directory.parent.glob(f"{directory.name.partition(MARK)[0]}.*"):
        if path.is_symlink() and os.readlink(path) == directory.name:
            path.unlink()


def remove_set(directory: Path) -> None:
    """Remove a set that is not served, and its other names. Raises OSError, AvsError."""
    _forget_names(directory)
    mounts.remove_tree(directory)


def _remove_superseded(rootimgdir: Path, served: PackedSet, warn: Warn) -> None:
    """Of the tag that is served now only this set stays, and the one before it; so does what somebody has changed, or copied."""
    keep = (current(rootimgdir), previous(rootimgdir))
    ours = re.compile(rf"{re.escape(rootimgdir.name)}([.{MARK}]){re.escape(served.tag)}(?:\1[0-9]+)?")
    for name, record in kept(rootimgdir, served.osimage, served.tag).items():
        directory = Path(os.path.realpath(rootimgdir.with_name(name)))
        if name in keep or record.source != served.source or not ours.fullmatch(directory.name):
            continue
        if changes(directory, record.files, sums=True):
            continue
        try:
            remove_set(directory)
        except (OSError, AvsError) as err:
            warn(f"the superseded set {directory} stays: {err}")


def switch(rootimgdir: Path, name: str, warn: Warn = _silent) -> str:
    """Serve the directory of that name, beside rootimgdir, in a single step.

    Returns where a real directory found at rootimgdir was moved to, or "".
    """
    now = current(rootimgdir)
    if now == name:
        return ""
    real = rootimgdir.is_dir() and not rootimgdir.is_symlink()
    aside = _unused(rootimgdir.with_name(f"{rootimgdir.name}.moved.aside.on.{datetime.now():%Y-%m-%d}"), ".")
    stranger = _is_anothers(rootimgdir, now)
    # To what somebody has changed nobody goes back by just `rollback`, where there is something better.
    spoiled = bool(previous(rootimgdir)) and altered(rootimgdir)
    before = aside.name if real else None if stranger or spoiled else now
    remembered = _previous_link(rootimgdir)
    older = os.readlink(remembered) if remembered.is_symlink() else None
    # First what is to be gone back to: killed after it, this says "none", and never the wrong one.
    if before is not None:
        _link(remembered, before)
    try:
        if real:
            _replace_directory(rootimgdir, name, aside, warn)
        else:
            if stranger and now:
                _lead_past(rootimgdir, now)
            _link(rootimgdir, name)
    except BaseException:
        if before is not None and current(rootimgdir) != name:
            remembered.unlink(missing_ok=True)
            if older is not None:
                remembered.symlink_to(older)
        raise
    sync(rootimgdir.parent)
    return aside.name if real else ""


def _is_anothers(rootimgdir: Path, now: Optional[str]) -> bool:
    """Whether rootimgdir is, so far, the other name of a set of another osimage: `compute.v2` of compute."""
    return bool(now) and MARK in str(now) and str(now).partition(MARK)[0] != rootimgdir.name


def _lead_past(rootimgdir: Path, target: str) -> None:
    """Have whoever goes to a set by the name of rootimgdir go to the set itself."""
    for path in rootimgdir.parent.iterdir():
        if path.is_symlink() and os.readlink(path) == rootimgdir.name:
            _link(path, target)


def _replace_directory(rootimgdir: Path, name: str, aside: Path, warn: Warn) -> None:
    """Have a link where a real directory is, which goes aside: in one step where the file system can, else in two."""
    link = _waiting_link(rootimgdir)
    _link(link, name)
    try:
        if _exchange(link, rootimgdir):
            os.rename(link, aside)
            return
        started = time.monotonic()
        try:
            os.rename(rootimgdir, aside)
            os.rename(link, rootimgdir)
        except BaseException:
            if not os.path.lexists(rootimgdir):
                os.rename(aside, rootimgdir)
            raise
        warn(
            f"the file system of {rootimgdir} cannot exchange two names, so for {(time.monotonic() - started) * 1000:.1f} ms "
            "there was nothing; this happens only where a real directory is replaced"
        )
    except BaseException:
        if link.is_symlink():
            link.unlink(missing_ok=True)
        raise


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


def _waiting_link(rootimgdir: Path) -> Path:
    """The link that is to take the place of a real directory, as long as it has not."""
    return rootimgdir.with_name(f".{rootimgdir.name}.avs-link")


def _unused(path: Path, mark: str, reserved: Collection[Path] = ()) -> Path:
    """That path, or the first of path + mark + 2, 3 … that nothing has."""
    number, free = 1, path
    while os.path.lexists(free) or free in reserved:
        number += 1
        free = path.with_name(f"{path.name}{mark}{number}")
    return free


def finish_interrupted(rootimgdir: Path) -> str:
    """Bring to its end what was killed between two renames; returns where the directory went, or ""."""
    link = _waiting_link(rootimgdir)
    if link.is_dir() and not link.is_symlink():  # exchanged, and not yet put aside
        aside = _unused(rootimgdir.with_name(f"{rootimgdir.name}.moved.aside.on.{datetime.now():%Y-%m-%d}"), ".")
        os.rename(link, aside)
        return aside.name
    if link.is_dir() and not os.path.lexists(rootimgdir):  # put aside, and the link not yet in its place
        os.rename(link, rootimgdir)
        return previous(rootimgdir)
    if link.is_symlink():
        link.unlink()
    return ""


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the file system, the kernel or the C library cannot."""
    try:
        libc.renameat2(one, other, RENAME_EXCHANGE)
    except OSError as err:
        if err.errno in NO_EXCHANGE:
            return False
        raise AvsError(
            f"cannot exchange {one} and {other}: {err.strerror}; the served files are as they were"
        ) from None
    return True
