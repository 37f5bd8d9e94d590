"""What an OSTree repository holds of an image: netboot/OSVERS/ARCH/PROFILE/{trunk,revisions/NUMBER,tags/TAG}."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store.evidence import missing
from xcat_avs.store.ostree.repository import Commit, Item, Repository
from xcat_avs.store.protocol import MANIFEST, PROVENANCE, Revision, Summary, Version
from xcat_avs.system import records
from xcat_avs.system.runner import QUIET, Runner
from xcat_avs.tree.manifest import Entry

# What a commit says of itself, beside the message.
AUTHOR, REAL, DATE, REVISION, TAG = "avs.author", "avs.real", "avs.date", "avs.revision", "avs.tag"
SIGNATURE = "avs.signature"  # of a tag: what is signed, with the signature
ORIGINAL = (
    "avs.original"  # of what was copied from another store: the number that it was made with, where that is another
)
IMAGE, MESSAGE, MADE_BY, MANIFEST_SUM = "avs.image", "avs.message", "avs.provenance", "avs.manifest"
TRUNK = "trunk"
PLAIN = re.compile(r"_(?=-)|[^A-Za-z0-9._-]")  # what a name of OSTree cannot have, and what stands for that


LONGEST = 220  # bytes of a part of a ref, which is the name of a file, and of a temporary one before


def plain(name: str) -> str:
    """A part of a ref: what OSTree does not take becomes _-HH, its bytes in hex. Different names stay different.

    Of one that is too long then the end is _-- and the SHA-256 of the name.
    """
    made = PLAIN.sub(lambda match: "".join(f"_-{byte:02X}" for byte in os.fsencode(match[0])), name)
    return made if len(made) <= LONGEST else f"{made[:100]}_--{hashlib.sha256(os.fsencode(name)).hexdigest()}"


def place(image: OsImage, version: Optional[Version] = None) -> str:
    """The directory of an image's refs, or the ref of one version."""
    base = "/".join(map(plain, image.store_path.split("/")))
    if version is None:
        return base
    if version.tag:
        return f"{base}/tags/{plain(version.tag)}"
    return f"{base}/{TRUNK}" if version.revision is None else f"{base}/revisions/{version.revision}"


@dataclass(frozen=True)
class Reading:
    """The part of the store that reads; it starts no process.

    repository: ostree:/DIR. runner: how programs are run. evidence(): the signs that there was a store before, in words, or "".
    """

    repository: str
    runner: Runner = QUIET
    evidence: Callable[[], str] = str

    def __post_init__(self) -> None:
        self.files.uuid()  # refuses what is no repository

    @cached_property
    def files(self) -> Repository:
        return Repository.at(self.repository)

    def programs(self) -> Sequence[str]:
        return ("ostree",)

    def identity(self) -> str:
        return self.files.uuid()

    def _need(self) -> None:
        """Raise NoStoreError where there is no store, so that a missing one is not taken for an empty one."""
        if self.files.absent():
            raise missing(self.repository, self.files.path, self.evidence())

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        number = version is not None and version.revision is not None
        return f"{self.files.url}#{place(image, Version() if number else version)}"

    def _read(self, image: OsImage, version: Version) -> Optional[Commit]:
        """The commit of a version; None where there is none."""
        self._need()
        name = place(image, version)
        sum = self.files.ref(name)
        return self._commit(image, name, sum) if sum else None

    def _commit(self, image: OsImage, name: str, sum: str) -> Commit:
        """Raises AvsError where the ref is of no version of the image."""
        found = self.files.commit(sum, f"{image.name}, {name}")
        if found.meta.get(IMAGE) != image.store_path or not found.meta.get(REVISION, "").isdecimal():
            raise AvsError(
                f"{image.name}: {name} in the store {self.repository} is a commit that avsimage has not made ({sum[:12]}...)"
            )
        return found

    def _found(self, image: OsImage, version: Version) -> Commit:
        found = self._read(image, version)
        if found is None:
            raise NotFoundError(f"{image.name} has no {version} in the store {self.repository}")
        return found

    def head(self, image: OsImage) -> Optional[Revision]:
        found = self._read(image, Version())
        return _revision(found) if found else None

    def revision(self, image: OsImage, number: int) -> Revision:
        head = self._read(image, Version())
        # A revision that is newer than trunk is of a commit that was interrupted before its end.
        found = self._read(image, Version(revision=number)) if head and number <= _number(head) else None
        if found is None:
            raise NotFoundError(
                f"{image.name} has no revision {number}; `avsimage -c log {image.profile}` shows those it has"
            )
        return _revision(found)

    def _revisions(self, image: OsImage) -> list[Commit]:
        """The commits of trunk, the newest first."""
        head = self._read(image, Version())
        if head is None:
            return []
        names = self.files.refs(f"{place(image)}/revisions")
        found = [self._commit(image, name, sum) for name, sum in names.items()]
        return sorted((commit for commit in found if _number(commit) <= _number(head)), key=_number, reverse=True)

    def log(self, image: OsImage) -> list[Revision]:
        return [_revision(commit) for commit in self._revisions(image)]

    def tags(self, image: OsImage) -> list[Tag]:
        self._need()
        names = self.files.refs(f"{place(image)}/tags")
        found = {name: _tag(self._commit(image, f"tags/{name}", sum)) for name, sum in names.items()}
        for name, tag in found.items():
            if plain(tag.name) != name:
                raise AvsError(f"{image.name}: tags/{name} in the store {self.repository} is that of {tag.name!a}")
        return sorted(found.values(), key=lambda tag: (tag.date, tag.name))

    def newest_tags(self, images: Sequence[OsImage]) -> dict[str, str]:
        return {image.name: next((tag.name for tag in reversed(self.tags(image))), "") for image in images}

    def summaries(self, images: Sequence[OsImage]) -> dict[str, Summary]:
        return {image.name: self._summary(image) for image in images}

    def _summary(self, image: OsImage) -> Summary:
        head, tags = self._read(image, Version()), self.tags(image)
        newest = tags[-1].name if tags else ""
        if head is None:
            return Summary(tags=len(tags), newest=newest)
        document = _document(head) or {}
        counts = {
            key: value for key, value in document.items() if key in ("packages", "bytes") and isinstance(value, int)
        }
        return Summary(_number(head), head.meta.get(DATE, ""), tags=len(tags), newest=newest, **counts)

    def provenance(self, image: OsImage) -> dict[int, dict[str, Any]]:
        found = {}
        for commit in self._revisions(image):
            if MADE_BY in commit.meta:
                document = _document(commit)
                if document is None:
                    raise AvsError(f"{image.name}: the stored {PROVENANCE} of revision {_number(commit)} is damaged")
                found[_number(commit)] = document
        return found

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        commit = self._found(image, version)
        item = self.files.find(commit, path)
        if item is None or item.meta:
            if path == MANIFEST:
                raise DamageError(f"{image.name}: {version} has no manifest, so it is not as avsimage has stored it")
            raise NotFoundError(f"not in the store {self.repository}: {path!a} of {version}")
        data = self.files.content(item)
        if path == MANIFEST and hashlib.sha256(data).hexdigest() != commit.meta.get(MANIFEST_SUM):
            raise DamageError(f"{image.name}: {MANIFEST} of {version} is damaged, or that of another version")
        return data

    def paths(self, image: OsImage, version: Version) -> set[str]:
        return {item.path for item in self.files.walk(self._found(image, version).tree)}

    def fetch(self, image: OsImage, version: Version, wanted: Sequence[Entry], target: Path) -> None:
        commit = self._found(image, version)
        for entry in wanted:
            item = self.files.find(commit, entry.path)
            if item is not None and not item.meta:
                (target / entry.sha256).write_bytes(self.files.content(item))

    def brought(self, image: OsImage, number: int, path: str) -> bool:
        now = self._found(image, Version(revision=number))
        if path == MANIFEST:  # that of each commit is its own, by the sum that the commit has of it
            return MANIFEST_SUM in now.meta
        before, found = self._read(image, Version(revision=number - 1)), self.files.find(now, path)
        return found is not None and (before is None or self.files.find(before, path) != found)

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        found: dict[str, str] = {}
        one, other = (self._found(image, version) for version in (old, new))
        pending = [(Item("", one.tree), Item("", other.tree))]
        while pending:
            pair = pending.pop()
            if pair[0].sum == pair[1].sum:
                continue  # all below it is the same
            before, after = (
                {item.path: item for part in self.files.directory(at.sum, at.path) for item in part} for at in pair
            )
            for path in before.keys() | after.keys():
                was, now = before.get(path), after.get(path)
                if was and now and bool(was.meta) == bool(now.meta):
                    if was.meta:
                        pending.append((was, now))
                    if was.meta != now.meta or (not was.meta and was.sum != now.sum):
                        found[path] = "properties" if was.meta or self._same_content(was, now) else "changed"
                    continue
                for word, item in (("removed", was), ("added", now)):
                    for inner in self._with_all(item):
                        found[inner] = "changed" if inner in found else word
        return sorted(found.items())

    def _with_all(self, item: Optional[Item]) -> list[str]:
        below = self.files.walk(item.sum, item.path) if item and item.meta else ()
        return [found.path for found in ([item] if item else []) + list(below)]

    def _same_content(self, one: Item, other: Item) -> bool:
        paths = [self.files.object(item.sum, "file") for item in (one, other)]
        if any(path.is_symlink() for path in paths):
            return all(path.is_symlink() for path in paths) and len({os.readlink(path) for path in paths}) == 1
        return filecmp.cmp(paths[0], paths[1], shallow=False)


def _document(commit: Commit) -> Optional[dict[str, Any]]:
    """The provenance in a commit; None where there is none, or where it is damaged."""
    return records.document(commit.meta.get(MADE_BY, ""))


def _number(commit: Commit) -> int:
    return int(commit.meta[REVISION])


def _revision(commit: Commit) -> Revision:
    say = commit.meta.get
    original = say(ORIGINAL, "")
    return Revision(
        _number(commit), say(DATE, ""), say(AUTHOR, ""), say(MESSAGE, ""),
        real=say(REAL, ""), original=int(original) if original.isdecimal() else 0,
    )  # fmt: skip


def facts_of(copied: Optional[Revision], number: int) -> dict[str, str]:
    """What a commit says of the revision of another store that it is a copy of, beside author and message."""
    original = str(copied.first) if copied and copied.first != number else ""
    found = {DATE: copied.date, REAL: copied.real, ORIGINAL: original} if copied else {}
    return {key: value for key, value in found.items() if value}


def _tag(commit: Commit) -> Tag:
    made = _revision(commit)
    return Tag(
        commit.meta.get(TAG, ""), made.number, made.number, made.date, author=made.author, message=made.message, real=made.real,
        signature=commit.meta.get(SIGNATURE, ""), original=made.original,
    )  # fmt: skip
