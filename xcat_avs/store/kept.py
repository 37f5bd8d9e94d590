"""The checkout that is kept for the next time: of what version it is, and how it becomes one of another version."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

from xcat_avs.errors import AvsError
from xcat_avs.store.carried import CARRIED, OWN, carried, contents, earlier, held
from xcat_avs.store.protocol import MANIFEST
from xcat_avs.system import mounts
from xcat_avs.system.descent import Descent, read_file, write_file
from xcat_avs.system.meter import COMPARED, Far
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

CONTENT = ("type", "size", "sha256", "link", "device", "hardlink")  # where one of these differs, a path is made anew
LENT = "lent"  # beside the tree of a build: of which manifest the one was that became the kept checkout
# Directories beside a checkout: with parts of an export, and with the contents that it lacks to be another version.
PARTS, FETCHED = ".parts", ".fetched"
ROOM = 2  # times the size of a checkout must be free where the one before it is removed after it
MOST = 4  # of so many paths one may be missing, or a checkout from nothing is faster


def in_store(wanted: Mapping[str, Entry]) -> Manifest:
    """What the store holds of a version with this manifest."""
    return held(wanted, earlier(contents(wanted, carried(wanted))))


def read(target: Path, wanted: Manifest) -> Optional[Manifest]:
    """The manifest that lies in a checkout: None where there is none, an empty one where it is damaged.

    Where it is the wanted one to the byte, that itself is returned.
    """
    text = read_file(str(target), MANIFEST) if target.is_dir() else None
    if text is None:
        return None
    if text == _text(wanted):
        return wanted
    try:
        return manifest.load(text.decode("ascii"), MANIFEST)
    except (AvsError, UnicodeDecodeError):
        return {}


def differences(target: Path, wanted: Manifest, runner: Runner, same: bool = False) -> list[str]:
    """The paths where a checkout differs from the manifest, a line each; the manifest file in it is compared too.

    runner: is told how far it is. same: that file is known to be the wanted one.
    """
    total = manifest.size(wanted)
    found = scan.scan(str(target), OWN, tell=lambda done: runner.tell(Far(done, total, COMPARED)))
    same = same or read_file(str(target), MANIFEST) == _text(wanted)
    return [*([] if same else [f"{MANIFEST}: not the stored one"]), *manifest.compare(wanted, found, times=True)]


def _text(wanted: Manifest) -> bytes:
    return "".join(manifest.lines(wanted)).encode("ascii")


@contextmanager
def beside(target: Path, suffix: str) -> Iterator[Path]:
    """Yield a new directory beside a checkout, and remove it at the end of the block; only one run works there."""
    directory = target.with_name(target.name + suffix)
    mounts.remove_tree(directory)  # of a run that was killed
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        mounts.remove_tree(directory)


@contextmanager
def anew(target: Path, wanted: Optional[Manifest] = None) -> Iterator[Path]:
    """Yield an empty directory, which takes the place of target if the block raises no error.

    Where the disk has no room for what is wanted beside it, or that is not known, target is gone before.
    """
    new = target.with_name(f"{target.name}.new")
    for old in (new, new.with_name(new.name + PARTS), target.with_name(target.name + FETCHED)):
        mounts.remove_tree(old)
    new.mkdir(parents=True, mode=0o700)
    size = manifest.size(wanted, by_name=True) if wanted else 0
    # ext4 makes files many times slower in the minute after as many were removed. What is mounted there is told at once.
    if not size or shutil.disk_usage(new).free < ROOM * size or mounts.mounts_below(target):
        mounts.remove_tree(target)
    try:
        yield new
    except AvsError:
        mounts.remove_tree(new)
        raise
    mounts.remove_tree(target)
    os.rename(new, target)


def missing(before: Manifest, stored: Manifest, most: int) -> Optional[list[Entry]]:
    """The files whose contents a checkout lacks that is to become another one; None where these are more than most.

    stored: what the store holds of that one.
    """
    found = [
        entry for path, entry in stored.items()
        if entry.type == "file" and not entry.hardlink and path != MANIFEST and _anew(before.get(path), entry)
    ]  # fmt: skip
    return found if len(found) <= most else None


def _anew(before: Optional[Entry], after: Entry) -> bool:
    return before is None or any(getattr(before, name) != getattr(after, name) for name in CONTENT)


def change(tree: Path, before: Manifest, wanted: Manifest, fetched: Path) -> None:
    """Make of a checkout another one. fetched: a directory with the missing contents, by SHA-256.

    Raises OSError or AvsError where the checkout was not what its manifest says; who wants to know more compares.
    """
    with Descent(str(tree)) as top:
        for path in sorted(before, reverse=True):  # entries come before their directory
            if path in wanted and not _anew(before[path], wanted[path]):
                continue
            directory, name = top.parent(path)
            remove = os.rmdir if before[path].type == "dir" else os.unlink
            remove(name, dir_fd=directory)
    mounts.remove_tree(tree / CARRIED)
    different = {path: entry for path, entry in wanted.items() if before.get(path) != entry}
    restore.restore(str(tree), different, fetched)
    write_file(str(tree), MANIFEST, _text(wanted))
    for sha256 in contents(wanted, carried(wanted)):
        (tree / CARRIED).mkdir(exist_ok=True)
        os.rename(fetched / sha256, tree / CARRIED / sha256)
    restore.restore_times(str(tree), wanted)


def take(build: Path, target: Path, wanted: Manifest, runner: Runner) -> bool:
    """Have the tree of a build as the checkout, where it is just that; a note beside it says so."""
    if read(build, wanted) is not wanted or differences(build, wanted, runner, same=True):
        return False
    mounts.remove_tree(target)
    build.with_name(LENT).write_text(hashlib.sha256(_text(wanted)).hexdigest(), encoding="ascii")
    with suppress(OSError):  # another file system
        os.rename(build, target)
        return True
    return False


def lent(build: Path, target: Path) -> bool:
    """Whether a checkout is the tree of this build."""
    try:
        text = build.with_name(LENT).read_text(encoding="ascii")
    except OSError:  # none, or not for this user
        return False
    found = read_file(str(target), MANIFEST) if target.is_dir() and not os.path.lexists(build) else None
    return found is not None and text == hashlib.sha256(found).hexdigest()


def give_back(build: Path, target: Path) -> None:
    """Have the tree of a build in its place again; where the checkout is of another version by now, there is none."""
    if lent(build, target):
        os.rename(target, build)
    build.with_name(LENT).unlink(missing_ok=True)
