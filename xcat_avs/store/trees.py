"""How a whole tree goes into a store and comes out of it proven."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError, counted
from xcat_avs.store import layout
from xcat_avs.store.protocol import MANIFEST, PLAIN, Content, Revision, Store, Version
from xcat_avs.system import mounts
from xcat_avs.system.descent import reach, read_file
from xcat_avs.system.scratch import own_directory, sweep
from xcat_avs.tree import initrd, manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

INFO = "build_info"
# What says how a version was built, and is a part of it: a change of these is a change.
INPUTS = f"{INFO}/inputs"
# Contents that Subversion cannot keep under their own name, by SHA-256.
CARRIED = f"{INFO}/carried"
OWN = (MANIFEST, CARRIED)  # written after the tree is known
NAME_LIMIT = 248  # bytes; FSVS makes a longer one of a file's while it checks out
PATH_LIMIT = 3000  # bytes; FSVS writes whole paths
MINOR_LIMIT = 1 << 19  # FSVS makes devices from 32 bits with a sign, and fails at those of higher minor numbers
BEFORE = ".before."  # how the directory beside a tree begins that a commit checks out to
DEPTH_LIMIT = 200  # directories in one another; a commit of 1,300 takes FSVS minutes
SHOWN = 10  # differing paths that an error lists

Warn = Callable[[str], None]


def stored_manifest(store: Store, image: OsImage, version: Version) -> Optional[Manifest]:
    """The manifest of a version, or None where it has none. Raises DamageError for a damaged one."""
    try:
        text = store.read(image, version, MANIFEST)
    except NotFoundError:
        return None
    except AvsError as err:
        raise err.prefixed(f"{image.name}: {MANIFEST} of {version} cannot be read: ") from None
    origin = f"{image.name}, the stored manifest of {version},"
    try:
        found = manifest.load(text.decode("ascii"), origin)
    except UnicodeDecodeError:
        raise DamageError(f"{origin} is damaged") from None
    except AvsError as err:
        raise DamageError(err.text) from None
    layout.check(found, f"{image.name}, {version}")
    return found


def volatile(path: str) -> bool:
    """Whether a path changes with every build and says nothing about the image: reports, logs."""
    return path == INFO or (path.startswith(f"{INFO}/") and path != INPUTS and not path.startswith(f"{INPUTS}/"))


def _lasting(found: Mapping[str, Entry]) -> Manifest:
    return {path: entry for path, entry in found.items() if not volatile(path)}


def _fits(path: str, entry: Entry) -> bool:
    """Whether Subversion and FSVS take the last part of a path."""
    name = path.rpartition("/")[2]
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    if (
        size > PATH_LIMIT
        or entry.device[1] >= MINOR_LIMIT
        or path.count("/") > DEPTH_LIMIT
        or (entry.type != "dir" and len(name.encode("utf-8")) > NAME_LIMIT)
    ):
        return False
    return entry.type != "fifo" and not any(char < " " or char == "\x7f" for char in name)


def carried(found: Mapping[str, Entry]) -> set[str]:
    """The paths that the manifest alone brings back: names FSVS cannot store, what is below them, FIFOs, some devices."""
    aside: set[str] = set()
    for path, entry in sorted(found.items()):
        if path.rpartition("/")[0] in aside or not _fits(path, entry):
            aside.add(path)
    return aside


def _contents(found: Mapping[str, Entry], aside: Iterable[str]) -> dict[str, Entry]:
    """SHA-256 -> a path that has this content, for what is carried; not for later names of a file that is stored."""
    files = (found[path] for path in aside if found[path].type == "file")
    return {entry.sha256: entry for entry in files if not entry.hardlink or entry.hardlink in aside}


def _held(found: Mapping[str, Entry], own: Mapping[str, Entry]) -> Manifest:
    """What of a tree the store itself holds. own: the manifest and what is carried."""
    aside = carried(found)
    return {**{path: entry for path, entry in found.items() if path not in aside}, **own}


def commit_tree(
    store: Store, image: OsImage, tree: Path, author: str, message: str, warn: Warn
) -> tuple[Revision, bool]:
    """Commit a built tree if it differs from the newest revision in more than times.

    Returns the revision that trunk is at and whether it is a new one. Where nothing but the time
    of a path changed, it gets the stored time back, so that it is not stored again; an initrd that
    holds the same files gets the stored bytes back.
    """
    for prefix in (BEFORE, PLAIN):
        sweep(tree.parent, prefix)
    for path in OWN:
        mounts.remove_tree(tree / path)  # of a commit that was cut off
    present = _scan(image, tree, warn)
    layout.check(present, f"{image.name}, what was built")
    store.prepare(image, author)
    head = store.head(image)
    # One that did not change with trunk is not that of what somebody else has put there since.
    known = head is not None and store.brought(image, head.number, MANIFEST)
    stored = _head_manifest(store, image, head, warn) if head and known else None
    if head and stored is not None:
        present = _same_initrds(store, image, head, tree, present, stored)
    if head and stored is not None and not manifest.compare(_lasting(stored), _lasting(present)):
        return head, False
    before: Optional[Manifest] = None
    if head:
        if stored is None:
            stored = before = _stored_tree(store, image, head, tree.parent)
        else:
            before = {
                **_held(stored, _earlier(_contents(stored, carried(stored)))),
                **_wrongly_held(store, image, head, stored),
            }
        restore.restore_times(str(tree), stored, present)
        present = _same_times(present, stored)
    aside = carried(present)
    contents = _contents(present, aside)
    for sha256, entry in contents.items():
        (tree / CARRIED).mkdir(exist_ok=True)
        with reach(str(tree), entry.path) as full, reach(str(tree), f"{CARRIED}/{sha256}") as copy:
            restore.copy_content(full, copy)
    with open(tree / MANIFEST, "x", encoding="ascii") as stream:
        stream.writelines(manifest.lines(present))
    content = Content(tree, _held(present, _own(tree)), before, head, sorted(aside))
    return store.commit(image, content, author, message), True


def _wrongly_held(store: Store, image: OsImage, head: Revision, stored: Mapping[str, Entry]) -> Manifest:
    """Devices that earlier versions of avsimage stored though FSVS cannot make them: they have to go from trunk."""
    names = carried({path: entry._replace(device=(0, 0)) for path, entry in stored.items()})
    found = {}
    for path in carried(stored) - names:
        try:
            store.read(image, Version(revision=head.number), path)
        except NotFoundError:
            continue
        found[path] = stored[path]
    return found


def _head_manifest(store: Store, image: OsImage, head: Revision, warn: Warn) -> Optional[Manifest]:
    """The manifest of the newest revision; None for a damaged one, which the next revision does not need.

    What trunk holds is learned by a checkout then, and the new revision has a whole manifest: nothing is lost by it.
    """
    try:
        return stored_manifest(store, image, Version(revision=head.number))
    except DamageError as err:
        warn(
            f"{err.text}. Revision {head.number} stays as it is, and what it holds is read by a checkout; the new one has its own manifest"
        )
        return None


def _own(tree: Path) -> Manifest:
    """Entries of the files that a commit adds to the tree."""
    found = scan.scan(str(tree / INFO), skip={name for name in os.listdir(tree / INFO) if f"{INFO}/{name}" not in OWN})
    return {f"{INFO}/{path}": entry._replace(path=f"{INFO}/{path}") for path, entry in found.items()}


def _earlier(contents: Mapping[str, Entry]) -> Manifest:
    """The same of an earlier commit: its manifest is never that of a later one, a carried content always."""
    found = [Entry(MANIFEST, "file", 0, 0, 0, 0)]
    if contents:
        found.append(Entry(CARRIED, "dir", 0o755, 0, 0, 0))
    found += [
        Entry(f"{CARRIED}/{sha256}", "file", 0o644, 0, 0, 0, entry.size, sha256) for sha256, entry in contents.items()
    ]
    return {entry.path: entry for entry in found}


def _scan(image: OsImage, tree: Path, warn: Warn) -> Manifest:
    """The manifest of a tree that is to be committed; a warning for what no store and no archive keeps."""
    lost = restore.unkept(tree.parent)  # whose file system is the same
    if lost:
        warn(f"{image.name}: the file system of {tree} keeps no {', '.join(lost)}: what the image should have of these is "
             f"not in what is stored; {restore.ELSEWHERE}")  # fmt: skip
    flagged: list[str] = []
    found = scan.scan(str(tree), flagged=flagged)
    if flagged:
        warn(f"{image.name}: immutable and append-only flags are not kept: {_some(sorted(flagged))}")
    sockets = [path for path, entry in found.items() if entry.type == "socket"]
    if sockets:
        warn(f"{image.name}: sockets are left out: {_some(sockets)}")
    for path in sockets:
        del found[path]
    long = [path for path in found if len(os.fsencode(path)) > manifest.LONGEST + len("rootimg/")]
    if long:
        warn(f"{image.name}: no archive can hold paths longer than {manifest.LONGEST} bytes; have an exlist leave them "
             f"out, or remove them: {len(long)} from {long[0][:60]!a}... on")  # fmt: skip
    return found


def _some(items: Iterable[str]) -> str:
    listed = [ascii(item)[1:-1] for item in items]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more


def _same_times(present: Mapping[str, Entry], stored: Mapping[str, Entry]) -> Manifest:
    """present as restore_times leaves it: all names of one file have the time of the first."""
    found: Manifest = {}
    for path, entry in present.items():  # the first name of a file before the others
        before = stored.get(path)
        if entry.hardlink:
            entry = entry._replace(mtime=found[entry.hardlink].mtime)
        elif before is not None and not entry.differs(before):
            entry = entry._replace(mtime=before.mtime)
        found[path] = entry
    return found


def _same_initrds(
    store: Store, image: OsImage, head: Revision, tree: Path, present: Manifest, stored: Mapping[str, Entry]
) -> Manifest:
    """present, once initrds that only differ from the stored ones by times and inode numbers are the stored ones."""
    found = dict(present)
    for path in filter(initrd.PATH.fullmatch, present):
        before, file = stored.get(path), tree / path
        if before is None or (present[path].type, before.type) != ("file", "file") or file.stat().st_nlink > 1:
            continue
        if present[path].sha256 == before.sha256:
            continue
        try:
            data = store.read(image, Version(revision=head.number), path)
        except AvsError:
            continue  # then it is stored anew
        if hashlib.sha256(data).hexdigest() == before.sha256 and initrd.same(data, file.read_bytes()):
            file.write_bytes(data)
            found[path] = present[path]._replace(size=before.size, sha256=before.sha256)
    return found


def _stored_tree(store: Store, image: OsImage, revision: Revision, beside: Path) -> Manifest:
    """What a revision without a manifest holds: it is checked out, once."""
    with own_directory(beside, BEFORE) as directory:
        try:
            store.export(image, Version(revision=revision.number), directory)
        except DamageError as err:
            url = store.url(image, Version())
            advice = f"; to go on, remove it from the newest revision with `svn rm -m damaged {url}`, and create with -b: tags and older revisions stay"
            raise err.prefixed("", advice) from None
        return scan.scan(str(directory))


def checkout_tree(store: Store, image: OsImage, version: Version, target: Path, warn: Warn) -> Manifest:
    """Have a version in the directory target, proven against its manifest; one that is there already is only compared.

    Raises AvsError that names the paths where the two differ.
    """
    wanted = stored_manifest(store, image, version)
    if wanted is not None and target.is_dir() and os.listdir(target):
        differences = _differences(target, wanted)
        if not differences:
            return wanted
        if not _is_other(target, wanted):
            warn(
                f"{image.name}: the checkout of {version} in {target} was changed since, and is made anew: {_some(differences)}"
            )
    new = target.with_name(f"{target.name}.new")
    for old in (target, new):
        mounts.remove_tree(old)
    new.mkdir(parents=True, mode=0o700)
    try:
        store.export(image, version, new)
        if wanted is not None:
            _prove(image, version, new, wanted)
        else:
            warn(f"{image.name}: {version} has no manifest, so the checkout cannot be proven")
            wanted = scan.scan(str(new))
            layout.check(wanted, f"{image.name}, {version}")
    except AvsError:
        mounts.remove_tree(new)
        raise
    os.rename(new, target)
    return wanted


def _prove(image: OsImage, version: Version, new: Path, wanted: Manifest) -> None:
    """Make a checkout what its manifest says, as far as the store cannot. Raises AvsError where it is not that then."""
    text = f"{image.name}: the checkout of {version} differs from its manifest"
    try:
        restore.restore(str(new), wanted, new / CARRIED)
    except AvsError as err:
        raise err.prefixed(f"{text}; nothing was packed: ") from None
    differences = _differences(new, wanted)
    if differences:
        raise AvsError(
            f"{text} in {counted(len(differences), 'path')}; nothing was packed:",
            [ascii(line)[1:-1] for line in differences[:SHOWN]],
        )


def _is_other(target: Path, wanted: Manifest) -> bool:
    """Whether a checkout is one of another version, by a whole manifest that it came with, or by having none."""
    text = read_file(str(target), MANIFEST)
    if text is None:
        return True
    try:
        return manifest.load(text.decode("ascii"), MANIFEST) != wanted
    except (AvsError, UnicodeDecodeError):
        return False  # damaged, whichever it was


def _differences(target: Path, wanted: Manifest) -> list[str]:
    """Where a checkout is not what its manifest says, the manifest that lies in it included."""
    found = scan.scan(str(target), OWN)
    same = read_file(str(target), MANIFEST) == "".join(manifest.lines(wanted)).encode("ascii")
    return [*([] if same else [f"{MANIFEST}: not the stored one"]), *manifest.compare(wanted, found, times=True)]
