"""Commit a whole tree to a store, and check one out and prove it by its manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError, counted
from xcat_avs.store import kept, layout
from xcat_avs.store.carried import CARRIED, INFO, OWN, add, carried, held
from xcat_avs.store.protocol import MANIFEST, PLAIN, Content, Revision, Store, Version
from xcat_avs.system import mounts
from xcat_avs.system.meter import READ, Far
from xcat_avs.system.runner import Runner
from xcat_avs.system.scratch import own_directory, sweep
from xcat_avs.tree import initrd, manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

# The recipe, definition and lists that a version was built from: where one of them changed, so has the image.
INPUTS = f"{INFO}/inputs"
BEFORE = ".before."  # prefix of the directory beside a tree into which a commit checks out the previous revision
SHOWN = 10  # differing paths that an error lists

Warn = Callable[[str], None]
Build = Callable[[], AbstractContextManager[Optional[Path]]]  # a tree that may become a checkout, or None


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
    """Whether a path is a report or a log, which changes with every build and says nothing about the image."""
    return path == INFO or (path.startswith(f"{INFO}/") and path != INPUTS and not path.startswith(f"{INPUTS}/"))


def _lasting(found: Mapping[str, Entry]) -> Manifest:
    return {path: entry for path, entry in found.items() if not volatile(path)}


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
        mounts.remove_tree(tree / path)  # of a commit that was interrupted
    present = _scan(image, tree, warn, store.runner)
    layout.check(present, f"{image.name}, what was built")
    store.prepare(image, author)
    head = store.head(image)
    # A manifest older than the last commit of trunk is ignored: somebody else has committed since.
    known = head is not None and store.brought(image, head.number, MANIFEST)
    stored = _head_manifest(store, image, head, warn) if head and known else None
    if head and stored is not None:
        present = _same_initrds(store, image, head, tree, present, stored)
    if head and stored is not None and not manifest.compare(_lasting(stored), _lasting(present)):
        return head, False
    before: Optional[Manifest] = None
    if head:
        if stored is None:
            stored = before = stored_tree(store, image, head, tree.parent)
        else:
            before = held_by(store, image, head, stored)
        restore.restore_times(str(tree), stored, present)
        present = _same_times(present, stored)
    aside = carried(present)
    entries = held(present, add(tree, present, aside))
    content = Content(tree, entries, before, head, aside=sorted(aside))
    return store.commit(image, content, author, message), True


def held_by(store: Store, image: OsImage, head: Revision, stored: Manifest) -> Manifest:
    """What the store holds of a revision with this manifest."""
    return {**kept.in_store(stored), **_wrongly_held(store, image, head, stored)}


def _wrongly_held(store: Store, image: OsImage, head: Revision, stored: Mapping[str, Entry]) -> Manifest:
    """Devices in trunk that FSVS cannot check out: earlier versions of avsimage stored them; a commit removes them."""
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
    """The manifest of the newest revision; None where it is damaged.

    The caller then checks trunk out to learn what it holds, and the new revision gets a whole manifest.
    """
    try:
        return stored_manifest(store, image, Version(revision=head.number))
    except DamageError as err:
        warn(
            f"{err.text}. Revision {head.number} stays as it is, and what it holds is read by a checkout; the new one has its own manifest"
        )
        return None


def _scan(image: OsImage, tree: Path, warn: Warn, runner: Runner) -> Manifest:
    """The manifest of a tree that is to be committed; a warning for what no store and no archive keeps."""
    lost = restore.unkept(tree.parent)  # whose file system is the same
    if lost:
        warn(f"{image.name}: the file system of {tree} keeps no {', '.join(lost)}: what the image should have of these is "
             f"not in what is stored; {restore.ELSEWHERE}")  # fmt: skip
    flagged: list[str] = []
    found = scan.scan(str(tree), flagged=flagged, tell=lambda done: runner.tell(Far(done, 0, READ)))
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
    """The manifest of present after restore_times: all names of one file have the time of the first."""
    found: Manifest = {}
    for path, entry in present.items():  # in this order the first name of a file comes before the others
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
    """Write the stored bytes over each initrd that holds the same files as the stored one; returns the new manifest.

    Such initrds differ by times and inode numbers only.
    """
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
            continue  # without the stored one to compare with, the new one is stored
        if hashlib.sha256(data).hexdigest() == before.sha256 and initrd.same(data, file.read_bytes()):
            file.write_bytes(data)
            found[path] = present[path]._replace(size=before.size, sha256=before.sha256)
    return found


def stored_tree(store: Store, image: OsImage, revision: Revision, beside: Path) -> Manifest:
    """The manifest of a revision that has none stored, made by checking it out."""
    with own_directory(beside, BEFORE) as directory:
        try:
            store.export(image, Version(revision=revision.number), directory)
        except DamageError as err:
            raise err.prefixed(
                "", f"; to go on, {store.cure(image)}, and create with -b: tags and older revisions stay"
            ) from None
        return scan.scan(str(directory))


@contextmanager
def no_build() -> Iterator[Optional[Path]]:
    """The tree of a build that may become the checkout: none."""
    yield None


def checkout_tree(
    store: Store, image: OsImage, version: Version, target: Path, warn: Warn,
    build: Build = no_build,
) -> Manifest:  # fmt: skip
    """Check a version out into the directory target and prove it by its manifest; returns that.

    A checkout that is there already is only compared, and one of another version gets what differs. build(): yields
    the tree of a build, which is moved to target where it is just what is wanted. Raises AvsError that names the paths
    that differ.
    """
    wanted = stored_manifest(store, image, version)
    if wanted is None:
        return _unproven(store, image, version, target, warn)
    before = kept.read(target, wanted)
    if before is not None and before in ({}, wanted):
        differences = kept.differences(target, wanted, store.runner, same=before is wanted)
        if not differences:
            return wanted
        warn(
            f"{image.name}: the checkout of {version} in {target} was changed since, and is made anew: {_some(differences)}"
        )
        before = None
    with build() as built:
        if built is not None and kept.take(built, target, wanted, store.runner):
            return wanted
    stored = kept.in_store(wanted)
    more = store.paths(image, version) - stored.keys()
    if more:  # which neither of the following would notice
        raise _different(image, version, [f"+{path}" for path in sorted(more)])
    if before is None or not _brought(store, image, version, target, (before, wanted, stored)):
        with kept.anew(target, wanted) as new:
            store.export(image, version, new, stored)
            _prove(store, image, version, new, wanted)
    return wanted


def _unproven(store: Store, image: OsImage, version: Version, target: Path, warn: Warn) -> Manifest:
    with kept.anew(target) as new:
        store.export(image, version, new)
        warn(f"{image.name}: {version} has no manifest, so the checkout cannot be proven")
        found = scan.scan(str(new))
        layout.check(found, f"{image.name}, {version}")
    return found


def _brought(
    store: Store, image: OsImage, version: Version, target: Path, manifests: tuple[Manifest, Manifest, Manifest]
) -> bool:
    """Whether a checkout of one manifest could be made one of another one, proven; it is left, or gone, where not.

    manifests: of the checkout, of what is wanted, and what the store holds of that.
    """
    before, wanted, stored = manifests
    missing, new = kept.missing(before, stored, most=len(wanted) // kept.MOST), target.with_name(f"{target.name}.new")
    if missing is None or mounts.mounts_below(target):  # which must not move with it
        return False
    with kept.beside(target, kept.FETCHED) as fetched:
        store.fetch(image, version, missing, fetched)
        mounts.remove_tree(new)
        os.rename(target, new)  # a killed run leaves it under the name of what is not done
        try:
            kept.change(new, before, wanted, fetched)
        except (OSError, AvsError):  # it was not what its manifest said
            return False
    if kept.differences(new, wanted, store.runner):
        return False
    os.rename(new, target)
    return True


def _prove(store: Store, image: OsImage, version: Version, new: Path, wanted: Manifest) -> None:
    """Restore what the store cannot keep from the manifest, then compare. Raises AvsError where they still differ."""
    text = f"{image.name}: the checkout of {version} differs from its manifest"
    try:
        restore.restore(str(new), wanted, new / CARRIED)
    except AvsError as err:
        raise err.prefixed(f"{text}; nothing was packed or kept: ") from None
    differences = kept.differences(new, wanted, store.runner)
    if differences:
        raise _different(image, version, differences)


def _different(image: OsImage, version: Version, lines: Sequence[str]) -> AvsError:
    text = f"{image.name}: the checkout of {version} differs from its manifest in {counted(len(lines), 'path')}; nothing was packed or kept:"
    return AvsError(text, [ascii(line)[1:-1] for line in lines[:SHOWN]])
