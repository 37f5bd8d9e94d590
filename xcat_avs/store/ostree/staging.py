"""Directories that `ostree commit` reads: of a tree for the first time, and of what differs from the version before."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from xcat_avs.store.protocol import Content
from xcat_avs.system.descent import Descent, link_tree, open_regular, remove
from xcat_avs.tree.manifest import Entry, Manifest
from xcat_avs.tree.restore import restore

DEPTH = 3  # rootimg/usr/share
EACH = 20_000  # bytes that are stored in the time which a path takes by itself
FEW = 2000  # paths that one process stores as fast as several
KEPT = ("file", "dir", "link")  # OSTree refuses all others, which the manifest brings back


def kept(found: Mapping[str, Entry]) -> Manifest:
    """The part of a tree that OSTree can hold: no device, and no link whose target is not UTF-8."""
    return {path: entry for path, entry in found.items() if entry.type in KEPT and _plain(entry.link)}


def _plain(target: str) -> bool:
    try:
        target.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def without_attributes(content: Content) -> Content:
    """The same without extended attributes, for a file system that keeps none."""
    entries, before = (
        found and {path: entry._replace(xattrs=()) for path, entry in found.items()}
        for found in (content.entries, content.before)
    )
    return replace(content, entries=entries or {}, before=before)


def parts(content: Content, target: Path, count: int) -> list[Path]:
    """Make directories below target that together are the tree, by hard links, without what OSTree cannot hold.

    At most count, of about the same size, to be read at the same time; a directory of which each has a part is in all.
    """
    held = kept(content.entries)
    shares = _shares(held, count)
    made = []
    for number, share in enumerate(shares):
        others = {top for other in shares if other is not share for top in other}
        own = {path: entry for path, entry in held.items() if entry.type == "dir" and _top(path, entry) not in others}
        made.append(target / str(number))
        aside = [*content.aside, *(content.entries.keys() - held.keys()), *others]
        link_tree(str(content.tree), str(made[-1]), aside, plain=True)
        restore(str(made[-1]), own, target)  # link_tree does not keep owner and mode of directories
    return made


def _shares(held: Mapping[str, Entry], count: int) -> list[set[str]]:
    """Paths with all that is below them, in at most count sets of about the same size."""
    sizes: Counter[str] = Counter()
    for path, entry in held.items():
        sizes[_top(path, entry)] += entry.size + EACH
    del sizes[""]
    shares: list[set[str]] = [set() for _ in range(count if len(held) > FEW else 1)]
    filled = [0] * len(shares)
    for top, size in sizes.most_common():
        least = filled.index(min(filled))
        shares[least].add(top)
        filled[least] += size
    return shares


def _top(path: str, entry: Entry) -> str:
    """What goes to one part with all below it: a path of three names or fewer; "" for a directory above such."""
    names = path.split("/")
    return "" if entry.type == "dir" and len(names) < DEPTH else "/".join(names[:DEPTH])


def change(content: Content, target: Path) -> None:
    """Make target, the version before by hard links into the repository, the tree.

    A file there is the one in the repository: it is replaced, and never written to, nor changed in owner or mode.
    """
    before, after = kept(content.before or {}), kept(content.entries)
    changed = {path for path, entry in after.items() if path not in before or _differs(before[path], entry)}
    with Descent(str(target)) as made:
        gone = {
            path for path in before if path not in after or (path in changed and not _stays(before[path], after[path]))
        }
        for path in sorted(gone, reverse=True):  # what is in a directory before the directory
            _remove(made, path)
    copied = _put(content.tree, target, {path: after[path] for path in sorted(changed)})
    restore(str(target), copied, target)


def _differs(before: Entry, after: Entry) -> bool:
    """Whether OSTree sees a difference; it keeps neither times nor which names are one file."""
    return bool(before._replace(hardlink="").differs(after._replace(hardlink="")))


def _stays(before: Entry, after: Entry) -> bool:
    """Whether a directory is one as before, so that only its owner, mode or attributes change."""
    return before.type == after.type == "dir"


def _remove(made: Descent, path: str) -> None:
    try:
        directory, name = made.parent(path)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(status.st_mode):
        remove(f"/proc/self/fd/{directory}/{name}")
    else:
        os.unlink(name, dir_fd=directory)


def _put(tree: Path, target: Path, wanted: Mapping[str, Entry]) -> Manifest:
    """Put paths of the tree into target, a directory before what is in it; returns those that need owner and mode."""
    copied: Manifest = {}
    with Descent(str(tree)) as given, Descent(str(target)) as made:
        for path, entry in wanted.items():
            directory, name = made.parent(path)
            if entry.type == "dir":
                try:
                    os.mkdir(name, dir_fd=directory)
                except FileExistsError:
                    pass  # it was there, and is of another owner or mode now
                copied[path] = entry
                continue
            source, original = given.parent(path)
            try:
                os.link(original, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            except OSError as err:
                if err.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                    raise
                _copy(source, original, directory, name)
                copied[path] = entry._replace(hardlink="", sparse=False)
    return copied


def _copy(source: int, original: str, directory: int, name: str) -> None:
    """Copy a file or link to another file system; its owner and mode are not kept."""
    if stat.S_ISLNK(os.stat(original, dir_fd=source, follow_symlinks=False).st_mode):
        os.symlink(os.readlink(original, dir_fd=source), name, dir_fd=directory)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        open(open_regular(original, source), "rb") as given,
        open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as taken,
    ):
        shutil.copyfileobj(given, taken, 1 << 20)
