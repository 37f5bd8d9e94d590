"""What the repository holds of an image, without a checkout: netboot/OSVERS/ARCH/PROFILE/{trunk,tags,branches}."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.store.fsvs import answers
from xcat_avs.store.fsvs.subversion import NO_REVISION, Subversion, quote
from xcat_avs.store.protocol import PROVENANCE, Revision, Summary, Version

MANY = 500  # targets in one command line
DIRECTORY, _, NAME = PROVENANCE.rpartition("/")
LISTED = ("", "/trunk", "/tags", f"/trunk/{DIRECTORY}")  # what summaries lists of an image
# Revision properties: who made it, as the system knows them; and of a tag, what is signed, with the signature.
REAL, SIGNATURE = "avs:real", "avs:signature"
# Of what was copied from another store: who made it, when, and with which number. svn:date stays the date of the copy, for
# it can be changed where a hook allows that only, and Subversion finds revisions by dates that never go back.
AUTHOR, DATE, ORIGINAL = "avs:author", "avs:date", "avs:original"
USER = re.compile(r"([^\s;]+); ")  # how messages begin


@dataclass(frozen=True)
class Reading(Subversion):
    """The part of the store that reads."""

    def programs(self) -> Sequence[str]:
        return ("fsvs", "svn", "svnmucc", *(("svnadmin",) if self._local() else ()))

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        parts = [self._base(), quote(image.store_path)]
        if version is not None:
            parts += ["tags", quote(version.tag)] if version.tag else ["trunk"]
        return "/".join(parts)

    def _peg(self, image: OsImage, version: Version, path: str = "") -> str:
        """A Subversion target that ends in @REVISION, so that an @ in the path is not read as one."""
        url = self.url(image, version) + (f"/{quote(path)}" if path else "")
        return f"{url}@{'HEAD' if version.revision is None else version.revision}"

    def head(self, image: OsImage) -> Optional[Revision]:
        return self._at(image, Version())

    def revision(self, image: OsImage, number: int) -> Revision:
        try:
            found = self._at(image, Version(revision=number)) if number else None
        except AvsError as err:
            if not NO_REVISION.search(str(err)):
                raise
            found = None
        if found is None:
            raise NotFoundError(
                f"{image.name} has no revision {number}; `avsimage -c log {image.profile}` shows those it has"
            )
        return found

    def _at(self, image: OsImage, version: Version) -> Optional[Revision]:
        """The last change of trunk up to a version; None where trunk is missing, or empty by an interrupted first commit."""
        trunk = self._peg(image, version)
        listing = self._xml(["svn", "ls", "--xml", trunk])
        if listing is None or listing.find(".//entry") is None:
            return None
        entries = self._log(trunk, "-l", "1", "--with-all-revprops")
        return _revision(entries[0]) if entries else None

    def tags(self, image: OsImage) -> list[Tag]:
        tags_url = self.url(image) + "/tags"
        listing = self._xml(["svn", "ls", "--xml", tags_url + "@HEAD"])
        if listing is None:
            return []
        present = {entry.findtext("name", "") for entry in listing.iter("entry") if entry.get("kind") == "dir"}
        found: dict[str, Tag] = {}
        for entry in self._log(tags_url + "@HEAD", "-v", "--with-all-revprops"):  # the newest first
            for path in entry.iter("path"):
                name = (path.text or "").rsplit("/tags/", 1)[-1]
                if path.get("action") in ("A", "R") and name in present and name not in found:
                    made = _revision(entry)
                    source = int(path.get("copyfrom-rev") or made.number)
                    found[name] = Tag(
                        name, made.number, source, made.date, author=made.author, message=made.message, real=made.real,
                        signature=_property(entry, SIGNATURE) or "", original=made.original,
                    )  # fmt: skip
        return sorted(found.values(), key=lambda tag: tag.revision)

    def newest_tags(self, images: Sequence[OsImage]) -> dict[str, str]:
        found = dict.fromkeys((image.name for image in images), "")
        for start in range(0, len(images), MANY):
            part = images[start : start + MANY]
            root = self._listings([self.url(image) + "/tags@HEAD" for image in part])
            for image, listing in zip(part, root.iter("list")):
                # A tag is never changed, so the revision of its last change is the one that made it.
                made = {int(item.get("revision", "0")): entry.findtext("name", "")
                        for entry in listing.iter("entry") if entry.get("kind") == "dir" for item in entry.iter("commit")}  # fmt: skip
                found[image.name] = made[max(made)] if made else ""
        return found

    def summaries(self, images: Sequence[OsImage]) -> dict[str, Summary]:
        found: dict[str, Summary] = {}
        step = MANY // len(LISTED)
        for part in (images[start : start + step] for start in range(0, len(images), step)):
            root = self._listings([f"{self.url(image)}{below}@HEAD" for image in part for below in LISTED])
            lists = iter([list(listing.iter("entry")) for listing in root.iter("list")])
            listed = dict(zip([image.name for image in part], zip(*[lists] * len(LISTED))))
            counts = self._counts([image for image in part if _names(listed[image.name][-1]) & {NAME}])
            for name, (top, trunk, tags, _) in listed.items():
                found[name] = answers.summarized(top if trunk else [], tags, counts.get(name, {}))
        return self._dated(found)

    def _dated(self, found: Mapping[str, Summary]) -> dict[str, Summary]:
        """The same with the dates of what was copied from another store."""
        numbers = ",".join({str(summary.revision) for summary in found.values() if summary.revision})
        entries = self._log(f"{self._base()}@HEAD", "-c", numbers, "--with-revprop", DATE) if numbers else []
        dates = {int(entry.get("revision", "0")): _property(entry, DATE) for entry in entries}
        return {name: replace(item, date=dates.get(item.revision) or item.date) for name, item in found.items()}

    def _counts(self, images: Sequence[OsImage]) -> dict[str, dict[str, Any]]:
        """Name of an image -> the provenance of its newest revision; nothing where one of them is damaged."""
        targets = [self._peg(image, Version(), PROVENANCE) for image in images]
        with suppress(AvsError):
            found = answers.documents(self._svn(["svn", "cat", *targets]).stdout, PROVENANCE) if targets else []
            return dict(zip([image.name for image in images], found)) if len(found) == len(images) else {}
        return {}

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        return self._svn(["svn", "cat", self._peg(image, version, path)]).stdout

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        ends = [f"--old={self._peg(image, old)}", f"--new={self._peg(image, new)}"]
        output = self._svn(["svn", "diff", "--summarize", "--xml", *ends])
        return answers.summary(ElementTree.fromstring(output.stdout), self.url(image, old))

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        # With an @ at the end svn does not read one in the name of target as a revision.
        self._svn(["svn", "export", "-q", "--ignore-externals", self._peg(image, version, path), f"{target}@"])

    def log(self, image: OsImage) -> list[Revision]:
        found = [
            _revision(entry)
            for entry in self._log(self._peg(image, Version()), "--stop-on-copy", "--with-all-revprops")
        ]
        while found:  # the oldest revisions, such as the one of the layout, left trunk empty
            listing = self._xml(["svn", "ls", "--xml", self._peg(image, Version(revision=found[-1].number))])
            if listing is not None and listing.find(".//entry") is not None:
                break
            found.pop()
        return found

    def provenance(self, image: OsImage) -> dict[int, dict[str, Any]]:
        numbers = self._changed(image, PROVENANCE)
        targets = [self._peg(image, Version(revision=number), PROVENANCE) for number in numbers]
        parts = [self._svn(["svn", "cat", *targets[at : at + MANY]]).stdout for at in range(0, len(targets), MANY)]
        found = answers.documents(b"\n".join(parts), f"{image.name}, the stored {PROVENANCE}")
        if len(found) != len(numbers):
            raise AvsError(f"{image.name}: the stored {PROVENANCE} of a revision is damaged")
        return dict(zip(numbers, found))

    def _changed(self, image: OsImage, path: str) -> list[int]:
        """The revisions of trunk that changed this file, the newest first; none where the newest has no such file."""
        entries = self._log(self._peg(image, Version(), path), "-q", "--stop-on-copy")
        return [int(entry.get("revision", "0")) for entry in entries]

    def brought(self, image: OsImage, number: int, path: str) -> bool:
        trunk = Version(revision=number)
        root = self._xml(["svn", "info", "--xml", self._peg(image, trunk), self._peg(image, trunk, path)])
        changes = [] if root is None else [commit.get("revision") for commit in root.iter("commit")]
        return len(changes) == 2 and changes[0] == changes[1]

    def _children(self, image: OsImage, version: Version, path: str) -> list[tuple[str, str]]:
        listing = self._xml(["svn", "ls", "--xml", self._peg(image, version, path)])
        entries = listing.iter("entry") if listing is not None else ()
        return [(entry.findtext("name", ""), entry.get("kind", "")) for entry in entries]


def _names(listing: Sequence[ElementTree.Element]) -> set[str]:
    return {entry.findtext("name", "") for entry in listing}


def _revision(entry: ElementTree.Element) -> Revision:
    message, date = entry.findtext("msg", ""), entry.findtext("date", "")
    # Many people may share one account of a server; the message names the person.
    user = USER.match(message)
    author, kept = user.group(1) if user else entry.findtext("author", ""), _property(entry, AUTHOR)
    number, original = entry.get("revision", "0"), _property(entry, ORIGINAL) or ""
    return Revision(
        int(number), _property(entry, DATE) or date, author if kept is None else kept, message,
        real=_property(entry, REAL) or "", original=int(original) if original.isdecimal() and original != number else 0,
    )  # fmt: skip


def _property(entry: ElementTree.Element, name: str) -> Optional[str]:
    """A property of a revision; None where it has none of that name."""
    return entry.findtext(f"revprops/property[@name='{name}']")
