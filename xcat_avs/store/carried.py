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
# Files whose names or kinds Subversion cannot store are stored here, each named by its SHA-256.
CARRIED = f"{INFO}/carried"
OWN = (MANIFEST, CARRIED)  # a commit writes these into the tree, after it has scanned it
NAME_LIMIT = 248  # bytes; FSVS checks a file out under a longer, temporary name
PATH_LIMIT = 3000  # bytes; FSVS opens files by their whole paths
MINOR_LIMIT = 1 << 19  # FSVS keeps device numbers in 32 signed bits and fails where the minor number is higher
DEPTH_LIMIT = 200  # nested directories; FSVS takes minutes to commit 1,300


def _fits(path: str, entry: Entry) -> bool:
    """Whether Subversion and FSVS can store this path under its own name."""
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
    """The paths that the store cannot hold, so that a checkout makes them from the manifest alone.

    These are names that FSVS cannot store, all that is below them, FIFOs, and some devices.
    """
    aside: set[str] = set()
    for path, entry in sorted(found.items()):
        if path.rpartition("/")[0] in aside or not _fits(path, entry):
            aside.add(path)
    return aside


def contents(found: Mapping[str, Entry], aside: Iterable[str]) -> dict[str, Entry]:
    """SHA-256 -> a path with this content, for each carried file whose content is not stored under another name."""
    files = (found[path] for path in aside if found[path].type == "file")
    return {entry.sha256: entry for entry in files if not entry.hardlink or entry.hardlink in aside}


def held(found: Mapping[str, Entry], added: Mapping[str, Entry]) -> Manifest:
    """The part of a tree that the store itself holds. added: the manifest and the carried contents."""
    aside = carried(found)
    return {**{path: entry for path, entry in found.items() if path not in aside}, **added}


def own(tree: Path) -> Manifest:
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
    restore.restore_times(str(tree), {INFO: present[INFO]})  # so that the tree is what its manifest says
    return own(tree)
