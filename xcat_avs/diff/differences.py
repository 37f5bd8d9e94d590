"""What differs between two versions of an image, computed from their manifests or from what the store says.

A path of the image is called as the image does (`/etc/passwd`), any other of a version as it is (`kernel`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

from xcat_avs.tree.inside import ROOT, shown
from xcat_avs.tree.manifest import CAPABILITY, Entry, Manifest
from xcat_avs.tree.packages import PackageChanges
from xcat_avs.tree.patterns import matches
from xcat_avs.tree.rights import rights

INFO, INPUTS = "build_info", "build_info/inputs"
# Field of an Entry -> what a report calls it. Times and holes are never compared.
FACTS = {
    "type": "type", "size": "content", "sha256": "content", "link": "link", "device": "device", "mode": "mode",
    "uid": "owner", "gid": "owner", "hardlink": "hard link",
}  # fmt: skip
KERNEL = re.compile(rf"{ROOT}/(?:(?:usr/)?lib/modules/|boot/vmlinuz-)(?!0-rescue-)([^/]+)")
NO_PACKAGES = PackageChanges((), (), (), ())


class FileChange(NamedTuple):
    """A path that was added, removed or changed. facts: what differs of a changed one.

    old, new: as the manifests have it; None where there is none.
    """

    path: str
    change: str
    facts: tuple[str, ...] = ()
    old: Optional[Entry] = None
    new: Optional[Entry] = None


class PrivilegeChange(NamedTuple):
    """A file whose setuid, setgid or capabilities changed; old and new in words."""

    path: str
    old: str
    new: str


class AttributeChange(NamedTuple):
    """An attribute of the definition; None where it is not set."""

    attribute: str
    old: Optional[str]
    new: Optional[str]


class InputChange(NamedTuple):
    """What the version was built from. kind: `recipe`, `procedure`, or `file` (that the definition names)."""

    kind: str
    path: str
    change: str


@dataclass(frozen=True)
class Differences:
    """All that differs. kernels: the releases on each side (only what differs, without manifests).

    sizes: bytes by top directory, old and new; None where a side has no manifest.
    """

    packages: PackageChanges = NO_PACKAGES
    privileges: Sequence[PrivilegeChange] = ()
    kernels: tuple[Sequence[str], Sequence[str]] = ((), ())
    attributes: Sequence[AttributeChange] = ()
    inputs: Sequence[InputChange] = ()
    files: Sequence[FileChange] = ()
    sizes: Optional[Mapping[str, tuple[int, int]]] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        return not (any(self.packages) or self.attributes or self.inputs or self.files)


def of_manifests(old: Manifest, new: Manifest) -> Differences:
    """What differs between two manifests: all but packages and attributes."""
    changes = _changed_files(old, new)
    found = _divided(changes, ())
    kernels = _kernels(old), _kernels(new)
    return replace(found, privileges=_privileges(changes), kernels=kernels, sizes=_sizes(old, new))


def of_summary(changes: Iterable[tuple[str, str]]) -> Differences:
    """What differs by the words of a store (path, change), where a manifest is missing."""
    listed = list(changes)
    directories = {posixpath.dirname(path) for path, _ in listed}
    files = [
        FileChange(path, "changed", ("properties",))
        if change == "properties"
        else FileChange(path, change, ("content",) if change == "changed" else ())
        for path, change in listed
    ]
    kernels = [_kernels(path for path, change in listed if change == word) for word in ("removed", "added")]
    return replace(_divided(files, directories), kernels=(kernels[0], kernels[1]), sizes=None)


def matching(found: Differences, pattern: str) -> Differences:
    """Only the files whose path the pattern of a shell matches; `*` matches any characters, `/` as well."""

    def taken(path: str) -> bool:
        return matches(path, pattern)

    return Differences(
        privileges=[item for item in found.privileges if taken(item.path)],
        files=[item for item in found.files if taken(item.path)],
        sizes=found.sizes,
    )


def attributes(old: Mapping[str, str], new: Mapping[str, str]) -> list[AttributeChange]:
    """The attributes of a definition that differ."""
    return [
        AttributeChange(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _changed_files(old: Manifest, new: Manifest) -> list[FileChange]:
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            found.append(FileChange(path, "added" if before is None else "removed", (), before, after))
        elif before != after:
            facts = _facts(before, after)
            if facts:
                found.append(FileChange(path, "changed", facts, before, after))
    return found


def _facts(old: Entry, new: Entry) -> tuple[str, ...]:
    """What differs of a path, in words; of another type nothing else is said."""
    names = old.differs(new)
    if "type" in names:
        return ("type",)
    words = [FACTS[name] for name in names if name != "xattrs"]
    if "xattrs" in names:
        differing = {name for name, _ in set(old.xattrs) ^ set(new.xattrs)}
        words += ["capabilities"] * (CAPABILITY in differing) + ["xattrs"] * bool(differing - {CAPABILITY})
    return tuple(dict.fromkeys(words))


def _divided(changes: Iterable[FileChange], directories: Iterable[str]) -> Differences:
    """Files of the image, and what it was built from, apart; the rest of build_info is no part of the image."""
    known = set(directories)
    files: list[FileChange] = []
    inputs: list[InputChange] = []
    for item in changes:
        if item.path.startswith(INPUTS + "/"):
            entry = item.new or item.old
            if item.path not in known and (entry is None or entry.type != "dir"):
                inputs += _input(item.path[len(INPUTS) + 1 :], item.change)
        elif item.path != INFO and not item.path.startswith(INFO + "/"):
            files.append(item._replace(path=shown(item.path)))
    return Differences(inputs=inputs, files=files)


def _input(path: str, change: str) -> list[InputChange]:
    top, _, rest = path.partition("/")
    if path == "osimage.stanza":
        return []  # its attributes are compared one by one
    if top in ("files", "procedures"):
        return [InputChange(*(("file", "/" + rest) if top == "files" else ("procedure", rest)), change)]
    return [InputChange("recipe", path, change)]


def _privileges(changes: Iterable[FileChange]) -> list[PrivilegeChange]:
    found = []
    for item in changes:
        old, new = privileges(item.old), privileges(item.new)
        if old != new:
            found.append(PrivilegeChange(shown(item.path), old, new))
    return found


def privileges(entry: Optional[Entry]) -> str:
    """setuid, setgid and capabilities of a file in words; empty for none, and for what is no file."""
    if entry is None or entry.type != "file":
        return ""
    return rights(entry.mode, entry.uid, entry.gid, entry.xattrs)


def _kernels(paths: Iterable[str]) -> list[str]:
    """The kernel releases that have modules, or a kernel in /boot."""
    return sorted({match.group(1) for match in map(KERNEL.fullmatch, paths) if match})


def _sizes(old: Manifest, new: Manifest) -> dict[str, tuple[int, int]]:
    """Bytes of files by top directory of the image, and by name beside it; old and new. A hard-linked file counts once."""
    before, after = _by_top(old), _by_top(new)
    return {name: (before.get(name, 0), after.get(name, 0)) for name in sorted(before.keys() | after.keys())}


def _by_top(manifest: Manifest) -> dict[str, int]:
    found: dict[str, int] = {}
    for path, entry in manifest.items():
        if not entry.size or entry.hardlink:
            continue
        first, _, rest = path.partition("/")
        if first == ROOT:
            top, slash, _ = rest.partition("/")
            first = "/" + top if slash else "/"
        if first != INFO:
            found[first] = found.get(first, 0) + entry.size
    return found
