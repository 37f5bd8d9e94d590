"""Published sets: what they are, and which is served."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.serve import contents
from xcat_avs.serve.contents import changes
from xcat_avs.system import records
from xcat_avs.system.descent import open_file
from xcat_avs.tree.manifest import TYPES
from xcat_avs.tree.scan import digest, walk

SHOWN = 5  # changed files that a line names
# Neither a profile nor a tag may hold it, so no osimage is ever served from the name of a set.
MARK = "@"
RECORD = contents.RECORD


@dataclass(frozen=True)
class Target:
    """An osimage, and the directory that nodes get it from."""

    image: OsImage
    rootimgdir: Path


@dataclass(frozen=True)
class PackedSet:
    """What a published directory is: which tag of which osimage, made when and by whom. Sizes in bytes."""

    osimage: str  # what nodes know it as
    source: str  # whose tag it is: another osimage where it masquerades
    tag: str
    revision: int
    date: str  # UTC, ISO 8601
    user: str
    archive: str
    inputs: str = ""  # a hash of what else decided how it was packed
    files: dict[str, dict[str, object]] = field(default_factory=dict)  # name -> size, sha256
    version: str = ""  # a hash of what the tag was; "" in records that are older than this field
    by_design: dict[str, str] = field(default_factory=dict)  # path that packimage changed by design -> why
    programs: dict[str, str] = field(default_factory=dict)  # program of our own packer -> its version


def read_record(directory: Path) -> Optional[PackedSet]:
    """What a directory is (rootimgdir: what is served now), or None if it was not published here."""
    try:
        record = records.load(PackedSet, (directory / RECORD).read_bytes())
    except OSError:
        return None
    # Others may have written it.
    whole = record is not None and all({"size", "sha256"} <= facts.keys() for facts in record.files.values())
    return record if whole else None


def describe_files(directory: Path) -> dict[str, dict[str, object]]:
    """Size and checksum of each file of a set, by its path in it (`addons/kvm.cpio.gz`); of what is none, its type."""
    top = os.path.realpath(directory)
    found: dict[str, dict[str, object]] = {}
    for path, status in sorted(walk(top), key=lambda item: item[0]) if os.path.isdir(top) else ():
        if stat.S_ISREG(status.st_mode):
            found[path] = {"size": status.st_size, "sha256": digest(open_file(top, path))}
        elif not stat.S_ISDIR(status.st_mode):
            found[path] = {"type": TYPES[stat.S_IFMT(status.st_mode)]}
    return found


def _previous_link(rootimgdir: Path) -> Path:
    return rootimgdir.with_name(f".{rootimgdir.name}.avs-previous")


def current(rootimgdir: Path) -> Optional[str]:
    """The name of the directory that rootimgdir serves, or None where it is no link."""
    if not rootimgdir.is_symlink():
        return None
    target = os.readlink(rootimgdir)
    path = rootimgdir.parent / target
    return path.name if path.parent == rootimgdir.parent else target


def previous(rootimgdir: Path) -> str:
    """The name of the directory that was served before the present one and is still there, or ""."""
    link = _previous_link(rootimgdir)
    name = os.readlink(link) if link.is_symlink() else ""
    return name if name and name != current(rootimgdir) and (rootimgdir.parent / name).is_dir() else ""


def altered(rootimgdir: Path, name: str = "", sums: bool = False) -> str:
    """In words, how a set is not what was packed, or "": the one of that name beside rootimgdir, else the one that is served."""
    name = name or current(rootimgdir) or ""
    record = read_record(rootimgdir.parent / name) if name else None
    if record is None:
        real = Path(os.path.realpath(rootimgdir.parent / name))
        return f"{name} has no record of a pack" if name and MARK in real.name and real.is_dir() else ""
    found = changes(rootimgdir.parent / name, record.files, sums)
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{name} differs from what was packed from tag {record.tag}: {', '.join(found[:SHOWN])}{more}"


def kept(rootimgdir: Path, osimage: str, tag: str = "") -> dict[str, PackedSet]:
    """Every packed set of an osimage that is still there, by the name it is known by: PROFILE.TAG, else PROFILE@TAG.

    tag: only those of this tag.
    """
    found, names = {}, dict[str, str]()
    for path in sorted(rootimgdir.parent.glob(f"{rootimgdir.name}[.{MARK}]{tag}*")):
        if path.is_symlink():
            names[os.readlink(path)] = path.name
            continue
        record = read_record(path)
        if record is not None and record.osimage == osimage and tag in ("", record.tag):
            found[path.name] = record
    return {names.get(name, name): record for name, record in found.items()}


def directories(rootimgdir: Path, osimage: str) -> list[Path]:
    """Every directory that is, or was, served of an osimage and is still there."""
    packed = [rootimgdir.parent / name for name in kept(rootimgdir, osimage)]
    aside = rootimgdir.parent.glob(f"{rootimgdir.name}.moved.aside.on.*")
    return sorted({Path(os.path.realpath(path)) for path in (rootimgdir, *packed, *aside)})


def packed_as(image: OsImage, targets: Iterable[Target]) -> dict[str, list[str]]:
    """Tag of an image -> profiles (or names) of the osimages that serve it now."""
    found: dict[str, list[str]] = {}
    for target in targets:
        record, other = read_record(target.rootimgdir), target.image
        if record is not None and record.source == image.name and record.osimage == other.name:
            found.setdefault(record.tag, []).append(other.profile or other.name)
    return {tag: sorted(names) for tag, names in found.items()}


def mentions(directories: Iterable[Path]) -> Iterator[str]:
    """What the records of directories say of a store, a sentence each."""
    records = ((directory, read_record(directory)) for directory in directories)
    return (f"{where} serves tag {record.tag} of {record.source}" for where, record in records if record)
