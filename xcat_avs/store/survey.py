"""What there is to see of a version beside what it says itself: sizes, packages, rights, what was before it."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError
from xcat_avs.store import contents
from xcat_avs.store.protocol import MANIFEST, Revision, Store, Version
from xcat_avs.store.tags import described
from xcat_avs.store.trees import stored_manifest
from xcat_avs.tree import packages
from xcat_avs.tree.inside import ROOT, shown
from xcat_avs.tree.manifest import Entry, Manifest
from xcat_avs.tree.packages import Package, PackageList
from xcat_avs.tree.rights import rights

SMALL = 500  # of the image: a directory with less than one part in so many is not listed


def history(store: Store, image: OsImage) -> list[dict[str, Any]]:
    """Each revision, the newest first, with its tags and what its provenance counts."""
    revisions = store.log(image)
    if not revisions:
        return []
    built, tags = store.provenance(image), tags_by_revision(store.tags(image), revisions)
    return [
        {
            **described(revision),
            "packages": _number(built.get(revision.number, {}).get("packages")),
            "bytes": _number(built.get(revision.number, {}).get("bytes")),
            "seconds": _number(built.get(revision.number, {}).get("seconds")),
            "tags": tags.get(revision.number, []),
        }
        for revision in revisions
    ]


def tags_by_revision(tags: Sequence[Tag], revisions: Sequence[Revision]) -> dict[int, list[str]]:
    """Revision -> names of the tags that hold it. A tag may name a later number, at which trunk was still the same."""
    found: dict[int, list[str]] = {}
    for tag in tags:
        held = [revision.number for revision in revisions if revision.number <= tag.source]
        if held:
            found.setdefault(max(held), []).append(tag.name)
    return found


def _number(value: object) -> Any:
    return value if isinstance(value, (int, float)) else None


def survey(store: Store, image: OsImage, version: Version, number: int) -> dict[str, Any]:
    """All there is to see of a version of revision number of trunk; what is not known is None, or empty.

    bytes; sizes: directory -> bytes of all in it; packages: name, version, architecture, bytes; problem: why no bytes of
    packages are known; privileges: path, rights; previous: the tag before it, and what differs; revisions: all of them.
    """
    found, listed, problem = _own_manifest(store, image, version, number), PackageList("none"), ""
    try:
        listed = contents.package_list(store, image, version, found is not None)
        sizes = contents.package_sizes(store, image, version)
    except AvsError as err:
        sizes, problem = {}, err.text
    by_directory = directories(found or {})
    total = by_directory.get("/", 0)
    return {
        "bytes": total,
        "sizes": {path: size for path, size in by_directory.items() if size * SMALL >= total},
        "packages": [[item.name, item.full_version, item.arch, sizes.get((item.name, item.arch))] for item in listed],
        "problem": problem,
        "privileges": privileges(found or {}),
        "previous": _previous(store, image, version, number, (found, listed)),
        "revisions": [_with_seconds(store, image, item) for item in history(store, image)],
    }


def _own_manifest(store: Store, image: OsImage, version: Version, number: int) -> Optional[Manifest]:
    """The manifest of a version; None where it has none that was made with it."""
    return stored_manifest(store, image, version) if store.brought(image, number, MANIFEST) else None


def directories(found: Mapping[str, Entry]) -> dict[str, int]:
    """Directory of the image -> bytes of all files in it and below; a hard-linked file counts once."""
    sizes: Counter[str] = Counter()
    for path, entry in found.items():
        if not entry.size or entry.hardlink or not path.startswith(ROOT + "/"):
            continue
        parent = posixpath.dirname(shown(path))
        while parent != "/":
            sizes[parent] += entry.size
            parent = posixpath.dirname(parent)
        sizes["/"] += entry.size
    return dict(sorted(sizes.items()))


def privileges(found: Mapping[str, Entry]) -> list[tuple[str, str]]:
    """The files of an image with setuid, setgid or capabilities, and which."""
    said = ((shown(path), rights(entry.mode, entry.uid, entry.gid, entry.xattrs)) for path, entry in found.items()
            if entry.type == "file")  # fmt: skip
    return [(path, words) for path, words in said if words]


def _previous(store: Store, image: OsImage, version: Version, number: int,
              now: tuple[Optional[Manifest], PackageList]) -> dict[str, Any]:  # fmt: skip
    """The tag before a version, and what differs; empty where there is none. now: its manifest and packages."""
    tags = store.tags(image)
    names = [tag.name for tag in tags]
    older = tags[: names.index(version.tag)] if version.tag in names else [tag for tag in tags if tag.source < number]
    if not older:
        return {}
    tag, (found, listed) = older[-1], now
    before = Version(tag=tag.name)
    manifest = _own_manifest(store, image, before, tag.source)
    try:
        packages_before = contents.package_list(store, image, before, manifest is not None)
    except AvsError:
        packages_before = PackageList("none")
    known = "none" not in (packages_before.kind, listed.kind)
    return {
        "tag": tag.name,
        "packages": changed(packages_before, listed) if known else [],
        "sizes": _tops(manifest, found) if manifest is not None and found is not None else {},
    }


def changed(old: PackageList, new: PackageList) -> list[tuple[str, str, str, str]]:
    """What differs between two lists: name and architecture, version before and now ("" for none), and the word for it."""
    found = packages.compare(old, new, new.kind)
    pairs: list[tuple[Optional[Package], Optional[Package], str]] = [
        *((None, item, "added") for item in found.added), *((item, None, "removed") for item in found.removed),
        *((one, other, "upgraded") for one, other in found.upgraded),
        *((one, other, "downgraded") for one, other in found.downgraded),
    ]  # fmt: skip
    separator = ":" if new.kind == "deb" else "."
    rows = []
    for one, other, word in pairs:
        item = other or one
        if item is not None:
            versions = [side.full_version if side else "" for side in (one, other)]
            rows.append((f"{item.name}{separator}{item.arch}", versions[0], versions[1], word))
    return sorted(rows)


def _tops(old: Manifest, new: Manifest) -> dict[str, tuple[int, int]]:
    """Directory at the top of the image -> its bytes before and now."""
    sides = [
        {path: size for path, size in directories(side).items() if path.count("/") == 1 and path != "/"}
        for side in (old, new)
    ]
    return {path: (sides[0].get(path, 0), sides[1].get(path, 0)) for path in sorted(sides[0].keys() | sides[1].keys())}


def _with_seconds(store: Store, image: OsImage, revision: dict[str, Any]) -> dict[str, Any]:
    """A revision with how long its build took, by its steps where its provenance is too old to say it."""
    if revision["seconds"] is not None:
        return revision
    try:
        rows = json.loads(store.read(image, Version(revision=revision["number"]), "build_info/steps.json"))
        return {**revision, "seconds": sum(float(row["seconds"]) for row in rows)}
    except (AvsError, ValueError, TypeError, KeyError):
        return revision  # made by other means
