"""Compute the svnmucc transaction, in FSVS's own form, that makes one manifest into another."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from xcat_avs.tree.manifest import Entry

EPOCH = datetime(1970, 1, 1)
EARLIEST, LATEST = (
    int((year - EPOCH).total_seconds()) * 10**6 for year in (datetime(1000, 1, 1), datetime(9999, 12, 31))
)
SPECIAL = {"char": "cdev", "block": "bdev"}


def actions(old: Mapping[str, Entry], new: Mapping[str, Entry], anew: Collection[str] = ()) -> Iterator[Sequence[str]]:
    """The svnmucc actions that make old into new, in the order that it needs; the last word is the path in the store.

    The caller adds the source file to a `put`. anew: files that are removed and added even where they exist.
    """
    gone: set[str] = set()  # removed paths; svnmucc removes what is below them too
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if path.rpartition("/")[0] in gone:
            gone.add(path)
            before = None
        elif before is not None and (after is None or before.type != after.type or path in anew):
            yield ("rm", path)
            gone.add(path)
            before = None
        if after is None:
            continue
        if before is None:
            yield ("mkdir" if after.type == "dir" else "put", path)
            if special_text(after):
                yield ("propset", "svn:special", "*", path)
        elif content_differs(before, after):
            yield ("put", path)
        wanted, present = properties(after), properties(before) if before else {}
        for name, value in wanted.items():
            if present.get(name) != value:
                yield ("propset", name, value, path)


def uploads(old: Mapping[str, Entry], new: Mapping[str, Entry], tree: Path, directory: Path) -> dict[str, str]:
    """Path in the store -> the local file with its new content, for each path whose content changes.

    directory: where the texts that stand for links and devices are written.
    """
    found: dict[str, str] = {}
    for word, *_, path in actions(old, new):
        if word == "put":
            text = special_text(new[path])
            found[path] = str(directory / str(len(found))) if text else f"{tree}/{path}"
            if text:
                Path(found[path]).write_bytes(os.fsencode(text))
    return found


def content_differs(before: Entry, after: Entry) -> bool:
    """Whether two entries of one type have different contents."""
    return (before.sha256, before.size, before.link, before.device) != (
        after.sha256,
        after.size,
        after.link,
        after.device,
    )


def special_text(entry: Entry) -> str:
    """The text that FSVS stores as the content of a link or a device; empty for a file."""
    if entry.type == "link":
        return f"link {entry.link}"
    if entry.type in SPECIAL:
        number = os.makedev(
            *entry.device
        )  # FSVS reads the lowest 8 bits as the minor number and all above as the major
        return f"{SPECIAL[entry.type]} 0x{number >> 8:x}:0x{number & 0xFF:x}"
    return ""


def properties(entry: Entry) -> dict[str, str]:
    """The Subversion properties in which FSVS keeps owner, mode and time."""
    # FSVS cannot write a year that has not four digits; such a time is in the manifest only.
    time = EPOCH + timedelta(microseconds=min(max(entry.mtime // 1000, EARLIEST), LATEST))
    found = {
        "svn:owner": f"{entry.uid} {_user(entry.uid)}",
        "svn:group": f"{entry.gid} {_group(entry.gid)}",
        "svn:text-time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if entry.type != "link":
        found["svn:unix-mode"] = f"0{entry.mode:03o}"
    return found


@cache
def _user(uid: int) -> str:
    """The user or group name that FSVS writes beside the number; empty where this machine has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
