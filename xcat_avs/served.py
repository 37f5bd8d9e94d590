"""What nodes will boot: the published set, the copies nodeset made of its kernel, the nodes that use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs import xcat
from xcat_avs.generate import INITRD, KERNEL
from xcat_avs.image import OsImage
from xcat_avs.manifest import digest
from xcat_avs.pack.publish import PackedSet, read_record

# Below TFTPDIR, a file a node; the archive is named in it.
BOOT_FILES = ("xcat/xnba/nodes", "boot/grub2", "petitboot")
ARCHIVE = re.compile(rb"rootimg\.[a-z]+(?:\.[a-z]+)?")
COHERENT, NODESET_DUE, NOT_THERE = "yes", "no", "-"


@dataclass(frozen=True)
class Served:
    """An osimage as its nodes see it. coherent: whether TFTPDIR holds the published kernel and initrd ("-": none yet)."""

    image: OsImage
    record: Optional[PackedSet]
    bootable: bool  # a kernel is published
    coherent: str
    differing: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def noderange(self) -> str:
        return xcat.collapse(self.nodes)

    @property
    def nodeset_due(self) -> bool:
        return self.bootable and bool(self.nodes) and self.coherent != COHERENT

    @property
    def nodeset(self) -> tuple[str, ...]:
        """The command that makes the nodes boot what is published."""
        return ("nodeset", self.noderange, f"osimage={self.image.name}")


def look(image: OsImage, installdir: Path, tftpdir: Path, table: Mapping[str, str]) -> Served:
    """What an osimage serves. table: node -> provmethod."""
    rootimgdir = image.rootimgdir(installdir)
    record = read_record(rootimgdir)
    copies = tftpdir / "xcat/osimage" / image.name
    nodes = tuple(xcat.parse_nodes(table, image))
    names = [name for name in (KERNEL, INITRD) if (rootimgdir / name).is_file()]
    coherent, differing = NOT_THERE, []
    if names and copies.is_dir():
        differing = [str(copies / name) for name in names if not _same(rootimgdir / name, copies / name)]
        differing += _renamed(record, tftpdir, nodes)
        coherent = NODESET_DUE if differing else COHERENT
    return Served(image, record, bool(names), coherent, tuple(differing), nodes)


def _renamed(record: Optional[PackedSet], tftpdir: Path, nodes: Sequence[str]) -> list[str]:
    """nodeset writes the archive's name into the boot files of nodes: those with another name need it again."""
    if record is None:
        return []
    for node in nodes:
        for directory in BOOT_FILES:
            path = tftpdir / directory / node
            names = ARCHIVE.findall(path.read_bytes()) if path.is_file() else []
            if names and record.archive.encode() not in names:
                return [str(path)]
    return []


def _same(published: Path, copy: Path) -> bool:
    if not copy.is_file() or copy.stat().st_size != published.stat().st_size:
        return False
    return digest(str(copy)) == digest(str(published))


def advice(served: Served) -> Sequence[str]:
    """Lines to print after a publish: who uses it, and what is due."""
    if not served.nodes:
        return [f"No node has provmethod {served.image.name}"]
    lines = [f"Used by {len(served.nodes)} node{'s' if len(served.nodes) > 1 else ''}: {served.noderange}"]
    if served.coherent == COHERENT:
        return [*lines, "Their kernel and initrd are the published ones: a reboot is enough"]
    for path in served.differing:
        lines.append(f"Not the published one: {path}")
    return [*lines, f"Before they reboot: {' '.join(served.nodeset)}"]
