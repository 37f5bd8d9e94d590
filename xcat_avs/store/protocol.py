"""The versioned store: what every store can do. trees.py puts whole trees in and takes them out proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.tree.manifest import Manifest

MANIFEST = "build_info/manifest"
PLAIN = ".plain."  # how the directory beside a tree begins that has a copy without names no store takes
PROVENANCE = "build_info/provenance.json"


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
class Content:
    """A tree that is to be stored. entries: what of it a store has to hold, by path.

    before: the same of the revision that it follows, None for the first one.
    aside: paths of the tree that are no entries and that a store must not look at.
    """

    tree: Path
    entries: Manifest
    before: Optional[Manifest] = None
    base: Optional[Revision] = None
    aside: Sequence[str] = ()


class Store(Protocol):
    """Keeps versions of the trees of images. Every method raises AvsError when the store fails.

    Those that read raise NoStoreError where there is none: that nothing is in it would be another answer.
    """

    def identity(self) -> str:
        """What tells this store from any other at the same URL; "" where there is none."""

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        """Where an image, or one version of it, is kept."""

    def prepare(self, image: OsImage, author: str, anew: bool = False) -> None:
        """Make the store and the image's place in it, where they are not there yet.

        anew: also where something says that there was a store already; else that is an error.
        """

    def head(self, image: OsImage) -> Optional[Revision]:
        """The newest revision of trunk, or None before the first commit."""

    def revision(self, image: OsImage, number: int) -> Revision:
        """The revision that trunk was at, at that number. Raises NotFoundError."""

    def commit(self, image: OsImage, content: Content, author: str, message: str) -> Revision:
        """Make the tree the newest revision of trunk, whole or not at all.

        Raises AvsError where trunk is no longer at content.base.
        """

    def export(self, image: OsImage, version: Version, target: Path) -> None:
        """Write a version into the empty directory target. Raises DamageError where the store is found damaged."""

    def tag(self, image: OsImage, name: str, revision: int, author: str, message: str, real: str) -> None:
        """Make an immutable tag of trunk at a revision; real: who that is to the system.

        Raises AvsError if the name is taken.
        """

    def tags(self, image: OsImage) -> list[Tag]:
        """All tags, the oldest first."""

    def newest_tags(self, images: Sequence[OsImage]) -> dict[str, str]:
        """Name of an image -> its newest tag, "" where it has none; the cost is that of one question."""

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

    def brought(self, image: OsImage, number: int, path: str) -> bool:
        """Whether the last change of trunk up to a revision changed this file of it as well."""

    def check(self) -> str:
        """Check all that the store keeps by its own means; a line that says what was checked.

        Raises DamageError for damage, NotFoundError where this store cannot be checked from here, AvsError where
        the check itself fails.
        """
