"""What of a tree Subversion and FSVS cannot keep under its own name, and how a commit carries its content all the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from xcat_avs.store.protocol import MANIFEST
from xcat_avs.system.descent import reach
from xcat_avs.tree import manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

INFO = "build_info"
# Contents that Subversion cannot keep under their own name, by SHA-256.
CARRIED = f"{INFO}/carried"
OWN = (MANIFEST, CARRIED)  # written after the tree is known
NAME_LIMIT = 248  # bytes; FSVS makes a longer one of a file's while it checks out
PATH_LIMIT = 3000  # bytes; FSVS writes whole paths
MINOR_LIMIT = 1 << 19  # FSVS makes devices from 32 bits with a sign, and fails at those of higher minor numbers
DEPTH_LIMIT = 200  # directories in one another; a commit of 1,300 takes FSVS minutes


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


def contents(found: Mapping[str, Entry], aside: Iterable[str]) -> dict[str, Entry]:
    """SHA-256 -> a path that has this content, for what is carried; not for later names of a file that is stored."""
    files = (found[path] for path in aside if found[path].type == "file")
    return {entry.sha256: entry for entry in files if not entry.hardlink or entry.hardlink in aside}


def held(found: Mapping[str, Entry], own: Mapping[str, Entry]) -> Manifest:
    """What of a tree the store itself holds. own: the manifest and what is carried."""
    aside = carried(found)
    return {**{path: entry for path, entry in found.items() if path not in aside}, **own}


def _own(tree: Path) -> Manifest:
    """Entries of the files that a commit adds to the tree."""
    found = scan.scan(str(tree / INFO), skip={name for name in os.listdir(tree / INFO) if f"{INFO}/{name}" not in OWN})
    return {f"{INFO}/{path}": entry._replace(path=f"{INFO}/{path}") for path, entry in found.items()}


def earlier(contents: Mapping[str, Entry]) -> Manifest:
    """Stand-ins for what an earlier commit added: its manifest differs from any later one, its contents may be carried on."""
    found = [Entry(MANIFEST, "file", 0, 0, 0, 0)]
    if contents:
        found.append(Entry(CARRIED, "dir", 0o755, 0, 0, 0))
    found += [
        Entry(f"{CARRIED}/{sha256}", "file", 0o644, 0, 0, 0, entry.size, sha256) for sha256, entry in contents.items()
    ]
    return {entry.path: entry for entry in found}


def add(tree: Path, present: Manifest, aside: Iterable[str]) -> Manifest:
    """Put into a tree the contents that are carried, and its manifest; returns the entries of what was added."""
    for sha256, entry in contents(present, aside).items():
        (tree / CARRIED).mkdir(exist_ok=True)
        with reach(str(tree), entry.path) as full, reach(str(tree), f"{CARRIED}/{sha256}") as copy:
            restore.copy_content(full, copy)
    with open(tree / MANIFEST, "x", encoding="ascii") as stream:
        stream.writelines(manifest.lines(present))
    return _own(tree)
