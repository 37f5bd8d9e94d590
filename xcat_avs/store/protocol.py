"""The interface of a versioned store. trees.py commits whole trees to one and checks them out proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.system.runner import Runner
from xcat_avs.tree.manifest import Entry, Manifest

MANIFEST = "build_info/manifest"
PLAIN = ".plain."  # prefix of the directory beside a tree that holds a copy without the names no store can take
PROVENANCE = "build_info/provenance.json"


@dataclass(frozen=True)
class Revision:
    """A revision of an image's trunk. date: UTC, ISO 8601. real: who asked, as the system knows them.

    original: of one that was copied from another store the number that it was made with, where that is another; else 0.
    """

    number: int
    date: str
    author: str
    message: str
    real: str = ""
    original: int = 0

    @property
    def first(self) -> int:
        """The number that it was made with, in whichever store."""
        return self.original or self.number


@dataclass(frozen=True)
class Summary:
    """What a store has of an image: the newest revision of trunk (0: none), its size, and how many tags.

    date: UTC, ISO 8601. packages, bytes: of rootimg, where the revision says so. newest: the newest tag.
    """

    revision: int = 0
    date: str = ""
    packages: Optional[int] = None
    bytes: Optional[int] = None
    tags: int = 0
    newest: str = ""


@dataclass(frozen=True)
class Version:
    """A version to read: a tag, or trunk at a revision (None: the newest)."""

    tag: str = ""
    revision: Optional[int] = None

    def __str__(self) -> str:
        if self.tag:
            return f"tag {self.tag}"
        return "trunk" if self.revision is None else f"revision {self.revision}"


@dataclass(frozen=True)
class Content:
    """A tree that is to be stored. entries: the part of it that the store has to hold, by path.

    before: the entries of the revision that it follows; None for the first revision.
    aside: paths that are in the tree and not in entries; the store must skip them.
    copied: the revision of another store that this is a copy of. Its date and real user are kept, and its number where
    the store can choose numbers; else the number that it was made with is kept beside it.
    """

    tree: Path
    entries: Manifest
    before: Optional[Manifest] = None
    base: Optional[Revision] = None
    aside: Sequence[str] = ()
    copied: Optional[Revision] = None


@dataclass(frozen=True)
class NewTag:
    """A tag that is to be made. source: the revision of trunk. real: who makes it, as the system knows them.

    signature: goes into the store with the tag, in the same step, and is never changed; "" for none.
    date, original: of a copy from another store, when the tag was made (UTC, ISO 8601), and of which number its revision
    was there; "" and 0 otherwise.
    """

    name: str
    source: int
    author: str
    message: str
    real: str
    signature: str = ""
    date: str = ""
    original: int = 0


class Store(Protocol):
    """Keeps versions of the trees of images. Every method raises AvsError when the store fails.

    Methods that read raise NoStoreError where there is no store, so that it is never taken for an empty one.
    """

    @property
    def runner(self) -> Runner:
        """How these are run, and who is told how far it is."""

    def programs(self) -> Sequence[str]:
        """The programs that it runs."""

    def identity(self) -> str:
        """An identifier (UUID) that no other store has, at whatever URL; "" where there is no store."""

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        """Where an image, or one version of it, is kept."""

    def prepare(self, image: OsImage, author: str, anew: bool = False) -> None:
        """Make the store, and the image's directories in it, where they do not exist yet.

        anew: make a store even where there are signs of an earlier one, which is an error otherwise.
        """

    def head(self, image: OsImage) -> Optional[Revision]:
        """The newest revision of trunk, or None before the first commit."""

    def revision(self, image: OsImage, number: int) -> Revision:
        """The last change of trunk up to that revision number. Raises NotFoundError."""

    def commit(self, image: OsImage, content: Content, author: str, message: str) -> Revision:
        """Make the tree the newest revision of trunk, whole or not at all.

        Raises AvsError where trunk is no longer at content.base.
        """

    def export(self, image: OsImage, version: Version, target: Path, wanted: Optional[Manifest] = None) -> None:
        """Write a version into the empty directory target. Raises DamageError where the store is found damaged.

        wanted: what the store holds of it, where the caller restores all but the contents of files from that: what it
        has not may be left out, and what is no file as well.
        """

    def paths(self, image: OsImage, version: Version) -> set[str]:
        """All paths that the store holds of a version."""

    def fetch(self, image: OsImage, version: Version, wanted: Sequence[Entry], target: Path) -> None:
        """Write the contents of files of a version into the empty directory target, each named by its SHA-256.

        One that is not there, or not what is wanted, is left out or comes as it is. Raises DamageError where the store
        is found damaged.
        """

    def tag(self, image: OsImage, new: NewTag) -> None:
        """Make an immutable tag of trunk at a revision, with all that is said of it or not at all.

        Raises AvsError if the name is taken.
        """

    def tags(self, image: OsImage) -> list[Tag]:
        """All tags, the oldest first."""

    def newest_tags(self, images: Sequence[OsImage]) -> dict[str, str]:
        """Name of an image -> its newest tag, "" where it has none. Costs as much as asking for one image."""

    def summaries(self, images: Sequence[OsImage]) -> dict[str, Summary]:
        """Name of an image -> what there is of it. Costs little more than asking for one image."""

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        """One file of a version. Raises NotFoundError."""

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        """The paths that differ, sorted, each with `added`, `removed`, `changed` or `properties` (owner, mode, time)."""

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        """Write the files of one directory of a version to the new directory target. Raises NotFoundError."""

    def log(self, image: OsImage) -> list[Revision]:
        """The revisions of trunk that hold an image, the newest first."""

    def provenance(self, image: OsImage) -> dict[int, dict[str, Any]]:
        """Revision of trunk -> its build_info/provenance.json, for the revisions that have changed that file."""

    def brought(self, image: OsImage, number: int, path: str) -> bool:
        """Whether the last change of trunk up to revision number changed the file at path too."""

    def forget(self, image: OsImage, versions: Sequence[Version], dry_run: bool = False) -> Optional[int]:
        """Remove revisions of trunk, and tags, with the content that no other version has.

        Returns the bytes that this frees; None, and nothing is removed, where the store keeps its history for ever.
        dry_run: only say how much it would free.
        """

    def cure(self, image: OsImage) -> str:
        """What to do, in words, where trunk is so damaged that no checkout says what it holds."""

    def check(self) -> str:
        """Check the whole store with its own tools; returns a line that says what was checked.

        Raises DamageError for damage, NotFoundError where this store cannot be checked from here, AvsError where
        the check itself fails.
        """
