"""The versioned store: what it can do, and how a whole tree goes in and comes out proven."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from xcat_avs import manifest
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.image import OsImage, Tag
from xcat_avs.manifest import Entry, Manifest

MANIFEST = "build_info/manifest"
# What says how a version was built, and is a part of it: a change of these is a change.
INPUTS = "build_info/inputs"
PROVENANCE = "build_info/provenance.json"
SPECIAL, PLAIN_TYPES = ("link", "char", "block"), ("file", "dir")
NAME_LIMIT = 248  # bytes; FSVS makes a longer one of a file's while it checks out
SHOWN = 10  # differing paths that an error lists

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Revision:
    """A revision of an image's trunk. date: UTC, ISO 8601. real: who asked, as the system knows them."""

    number: int
    date: str
    author: str
    message: str
    real: str = ""


@dataclass(frozen=True)
class Version:
    """Something that can be read: a tag, or trunk at a revision (None: the newest)."""

    tag: str = ""
    revision: Optional[int] = None

    def __str__(self) -> str:
        if self.tag:
            return f"tag {self.tag}"
        return "trunk" if self.revision is None else f"revision {self.revision}"


@dataclass(frozen=True)
class Hidden:
    """replaced: paths that were links or devices and are so no longer. owners: paths of another owner or mode."""

    replaced: tuple[str, ...] = ()
    owners: Manifest = field(default_factory=dict)


class Store(Protocol):
    """Keeps versions of the trees of images. Every method raises AvsError when the store fails."""

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        """Where an image, or one version of it, is kept."""

    def prepare(self, image: OsImage, author: str) -> None:
        """Make the store and the image's place in it, where they are not there yet."""

    def head(self, image: OsImage) -> Optional[Revision]:
        """The newest revision of trunk, or None before the first commit."""

    def revision(self, image: OsImage, number: int) -> Revision:
        """The revision that trunk was at, at that number. Raises NotFoundError."""

    def commit(self, image: OsImage, tree: Path, author: str, message: str, hidden: Hidden) -> Revision:
        """Make the tree the newest revision of trunk, whole or not at all.

        hidden: changes that FSVS needs help with.
        """

    def export(self, image: OsImage, version: Version, target: Path) -> None:
        """Write a version into the empty directory target."""

    def tag(self, image: OsImage, name: str, revision: int, author: str, message: str, real: str) -> None:
        """Make an immutable tag of trunk at a revision; real: who that is to the system.

        Raises AvsError if the name is taken.
        """

    def tags(self, image: OsImage) -> list[Tag]:
        """All tags, the oldest first."""

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        """One file of a version. Raises NotFoundError."""

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        """The paths that differ, sorted, each with `added`, `removed`, `changed` or `properties` (owner, mode, time)."""

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        """Write the files of one directory of a version to the new directory target. Raises NotFoundError."""

    def log(self, image: OsImage) -> list[Revision]:
        """The revisions of trunk that hold an image, the newest first."""

    def provenance(self, image: OsImage) -> dict[int, dict[str, Any]]:
        """Revision of trunk -> what its build_info/provenance.json says, for those that brought one."""


def stored_manifest(store: Store, image: OsImage, version: Version) -> Optional[Manifest]:
    """The manifest of a version, or None where it has none."""
    try:
        text = store.read(image, version, MANIFEST).decode("ascii")
    except NotFoundError:
        return None
    except UnicodeDecodeError:
        raise AvsError(f"{image.name}: the stored manifest of {version} is damaged") from None
    return manifest.load(text, f"{image.name}, the stored manifest of {version}")


def _volatile(tree: Path) -> set[str]:
    """Paths that change with every build and say nothing about the image: reports, logs, the manifest."""
    info = tree / "build_info"
    if not info.is_dir():
        return set()
    return {f"build_info/{name}" for name in os.listdir(info) if f"build_info/{name}" != INPUTS}


def scan(image: OsImage, tree: Path, warn: Warn) -> Manifest:
    """The manifest of a tree that is to be committed: all that FSVS keeps; a warning for what it drops.

    Raises AvsError for names that FSVS cannot store.
    """
    found = manifest.scan(str(tree), _volatile(tree))
    bad = [path for path, entry in found.items() if not _storable(path, entry)]
    if bad:
        raise AvsError(
            f"{image.name}: {len(bad)} names hold control characters, are not UTF-8 or are longer than {NAME_LIMIT} bytes, "
            "and cannot be stored; rename or remove them:",
            [ascii(path) for path in bad[:SHOWN]],
        )
    dropped = {path for path, entry in found.items() if entry.type in ("fifo", "socket")}
    if dropped:
        warn(
            f"{image.name}: FIFOs and sockets are not kept in the store: {_some(path for path in found if path in dropped)}"
        )
    # A directory's time changes with its build_info, which is not compared.
    return {path: entry for path, entry in found.items() if path not in dropped and path != "build_info"}


def _storable(path: str, entry: Entry) -> bool:
    """Whether Subversion and FSVS take the name."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    if entry.type != "dir" and len(os.fsencode(os.path.basename(path))) > NAME_LIMIT:
        return False
    return not any(char < " " or char == "\x7f" for char in path)


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more


def commit_tree(
    store: Store, image: OsImage, tree: Path, author: str, message: str, warn: Warn
) -> tuple[Revision, bool]:
    """Commit a built tree if it differs from the newest revision in more than times.

    Returns the revision that trunk is at and whether it is a new one. Where nothing but the time
    of a path changed, it gets the stored time back, so that FSVS does not store it again.
    """
    present = scan(image, tree, warn)
    head = store.head(image)
    stored = stored_manifest(store, image, Version(revision=head.number)) if head else None
    if head and stored is not None and not manifest.compare(stored, present):
        return head, False
    if stored is not None:
        manifest.restore_times(str(tree), stored, present)
        present = {path: _same_time(entry, stored.get(path)) for path, entry in present.items()}
    (tree / MANIFEST).write_text(manifest.dump(present), encoding="ascii")
    store.prepare(image, author)
    return store.commit(image, tree, author, message, _hidden(stored or {}, present)), True


def _same_time(entry: Entry, before: Optional[Entry]) -> Entry:
    """entry as restore_times leaves it."""
    return entry if before is None or entry.differs(before) else before


def _hidden(stored: Manifest, present: Manifest) -> Hidden:
    """What FSVS would not see, or could not store, of the way from one tree to the other."""
    replaced, owners = [], {}
    for path, entry in present.items():
        before = stored.get(path)
        if before is None:
            continue
        if before.type in SPECIAL and entry.type in PLAIN_TYPES:
            replaced.append(path)
        elif entry.type == before.type and {"uid", "gid", "mode"} & set(entry.differs(before)):
            owners[path] = entry
    return Hidden(tuple(replaced), owners)


def checkout_tree(store: Store, image: OsImage, version: Version, target: Path, warn: Warn) -> Manifest:
    """Write a version to the empty directory target and prove it against its manifest.

    Raises AvsError that names the paths where the two differ.
    """
    wanted = stored_manifest(store, image, version)
    store.export(image, version, target)
    if wanted is None:
        warn(f"{image.name}: {version} has no manifest, so the checkout cannot be proven")
        return manifest.scan(str(target))
    found = manifest.scan(str(target), _volatile(target))
    found.pop("build_info", None)
    # FSVS goes by the names of users, and another machine may have given a name to another number.
    manifest.restore_owners(str(target), wanted, found)
    differences = manifest.compare(wanted, found)
    if differences:
        raise AvsError(
            f"{image.name}: the checkout of {version} differs from its manifest in {len(differences)} paths; nothing was packed:",
            differences[:SHOWN],
        )
    manifest.restore_times(str(target), wanted)
    return wanted
