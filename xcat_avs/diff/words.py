"""What mode diff answers: the blocks for people, the parts of the document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from xcat_avs.clock import local
from xcat_avs.diff.differences import Differences, FileChange
from xcat_avs.escape import printable
from xcat_avs.report import LEFT, RIGHT, Table, as_lines, short_size
from xcat_avs.tree.inside import shown
from xcat_avs.tree.manifest import Entry
from xcat_avs.tree.packages import Package, PackageChanges, PackageList

SHOWN = 40  # files in a report that was not asked for files
EVERY_FILE = "*"  # what --files means without a pattern


@dataclass(frozen=True)
class Side:
    """One of the two versions. tag: empty for a revision of trunk. date: UTC; of the tag, or of the revision."""

    tag: str
    revision: int
    date: str
    author: str


def name(side: Side) -> str:
    return f"tag {side.tag}" if side.tag else f"revision {side.revision}"


def label(path: str, side: Side) -> str:
    """A file of one side, as a unified diff names it."""
    return f"{printable(shown(path))} ({name(side)})"


def heading(old: Side, new: Side) -> Table:
    rows = [
        (word, side.tag or "-", str(side.revision), local(side.date), side.author)
        for word, side in (("old", old), ("new", new))
    ]
    return Table(("", "TAG", "REVISION", "DATE", "AUTHOR"), rows, [LEFT, LEFT, RIGHT, LEFT, LEFT])


def package_blocks(changes: PackageChanges, kind: str) -> list[object]:
    counts = ", ".join(f"{len(items)} {word}" for word, items in zip(changes._fields, changes))
    rows = [(item, "-", item.full_version, "added") for item in changes.added]
    rows += [(item, item.full_version, "-", "removed") for item in changes.removed]
    for word, pairs in (("upgraded", changes.upgraded), ("downgraded", changes.downgraded)):
        rows += [(new, old.full_version, new.full_version, word) for old, new in pairs]
    rows.sort(key=lambda row: (row[0].name, row[0].arch, row[3]))
    if not rows:
        return [f"Packages: {counts}"]
    separator = ":" if kind == "deb" else "."
    cells = [(f"{item.name}{separator}{item.arch}", *rest) for item, *rest in rows]
    return [f"Packages: {counts}", Table(("PACKAGE", "OLD", "NEW", "CHANGE"), cells, [LEFT] * 4)]


def all_blocks(found: Differences, old: Side, new: Side) -> list[object]:
    if found.identical:
        return [f"No differences: {name(old)} and {name(new)} hold the same packages, files and definition."]
    blocks = privilege_blocks(found)
    if found.kernels[0] != found.kernels[1]:
        before, after = (", ".join(releases) or "none" for releases in found.kernels)
        blocks.append(as_lines([f"Kernel: {before} -> {after}"]))
    if found.attributes:
        rows = [(item.attribute, *(_value(value) for value in item[1:])) for item in found.attributes]
        blocks += ["Osimage attributes:", Table(("ATTRIBUTE", "OLD", "NEW"), rows, [LEFT] * 3)]
    if found.inputs:
        lines = [f"  {item.change:<7}  {item.kind} {item.path}" for item in found.inputs]
        blocks.append(as_lines(["What it was built from:", *lines]))
    blocks += file_blocks(found.files, SHOWN)
    if found.sizes:
        blocks.append(_size_table(found))
    return blocks


def _value(value: Optional[str]) -> str:
    return "-" if value is None else repr(value) if value in ("", "-") else value


def privilege_blocks(found: Differences) -> list[object]:
    if not found.privileges:
        return []
    rows = [(printable(item.path), item.old or "-", item.new or "-") for item in found.privileges]
    heading = f"*** LOOK: setuid, setgid or capabilities of {len(rows)} file{'s' * (len(rows) > 1)} ***"
    return [heading, Table(("FILE", "OLD", "NEW"), rows, [LEFT] * 3)]


def file_blocks(files: Sequence[FileChange], limit: int, pattern: str = "") -> list[object]:
    """The files and their number; limit: how many are listed, 0 for all. pattern: what they were chosen by, "" for none."""
    if not files and pattern:
        return [f"No file that differs matches {pattern!r}"]
    counts = {word: sum(1 for item in files if item.change == word) for word in ("added", "removed", "changed")}
    heading = "Files: " + ", ".join(f"{count} {word}" for word, count in counts.items())
    taken = files[:limit] if limit else files
    lines = [f"  {item.change:<7}  {item.path}" + _details(item) for item in taken]
    if len(taken) < len(files):
        lines.append(f"  and {len(files) - len(taken)} more; --files lists all, --match PATTERN some, --content one")
    return [as_lines([heading, *lines])]


def _details(item: FileChange) -> str:
    if not item.facts:
        return ""
    words = list(item.facts)
    if item.old is not None and item.new is not None:
        one, other = _texts(item.old), _texts(item.new)
        words = [f"{fact} {one[fact]} -> {other[fact]}" if fact in one else fact for fact in item.facts]
    return f": {', '.join(words)}"


def _texts(entry: Entry) -> dict[str, str]:
    return {"type": entry.type, "mode": f"{entry.mode:04o}", "owner": f"{entry.uid}:{entry.gid}", "link": entry.link}


def _size_table(found: Differences) -> Table:
    sizes = {name: pair for name, pair in (found.sizes or {}).items() if any(pair)}
    sizes["TOTAL"] = (sum(pair[0] for pair in sizes.values()), sum(pair[1] for pair in sizes.values()))
    rows = [(name, short_size(old), short_size(new), short_size(new - old)) for name, (old, new) in sizes.items()]
    return Table(("SIZE OF", "OLD", "NEW", "+/-"), rows, [LEFT, RIGHT, RIGHT, RIGHT])


def without_manifest(side: Side) -> str:
    text = name(side)
    return (
        f"{text[0].upper()}{text[1:]} has no manifest, as what avs_image_mgr made: that the owner, mode or time of a file "
        "changed is known as `properties` only, and sizes, setuid and capabilities are not known."
    )


def packages_document(kind: str, old: PackageList, new: PackageList, changes: PackageChanges) -> dict[str, Any]:
    def pair(before: Package, after: Package) -> dict[str, Any]:
        return {"old": before._asdict(), "new": after._asdict()}

    return {
        "kind": kind, "old": len(old), "new": len(new),
        "added": [item._asdict() for item in changes.added], "removed": [item._asdict() for item in changes.removed],
        "upgraded": [pair(*item) for item in changes.upgraded], "downgraded": [pair(*item) for item in changes.downgraded],
    }  # fmt: skip


def facts_document(found: Differences) -> dict[str, Any]:
    sizes = found.sizes
    return {
        "kernels": {"old": list(found.kernels[0]), "new": list(found.kernels[1])},
        "attributes": [item._asdict() for item in found.attributes],
        "inputs": [item._asdict() for item in found.inputs],
        "sizes": None if sizes is None else {name: {"old": old, "new": new} for name, (old, new) in sizes.items()},
    }


def file_document(item: FileChange) -> dict[str, Any]:
    return {"path": item.path, "change": item.change, "facts": list(item.facts),
            "old": entry_document(item.old), "new": entry_document(item.new)}  # fmt: skip


def entry_document(entry: Optional[Entry]) -> Optional[dict[str, Any]]:
    if entry is None:
        return None
    return {
        "type": entry.type, "mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid, "size": entry.size,
        "sha256": entry.sha256, "link": entry.link, "device": list(entry.device), "hardlink": shown(entry.hardlink),
        "xattrs": {name: value.hex() for name, value in entry.xattrs},
    }  # fmt: skip
