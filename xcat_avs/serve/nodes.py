"""What nodes will boot: the published set, the copies nodeset made of its kernel, the nodes that use it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions, Node
from xcat_avs.errors import counted
from xcat_avs.serve.sets import PackedSet, read_record
from xcat_avs.tree.kernels import INITRD, KERNEL
from xcat_avs.xcat import noderange

# noderes.netboot up to its first dash -> where below TFTPDIR that boot loader has a file for each node.
BOOT_FILES = {"xnba": "xcat/xnba/nodes", "grub2": "boot/grub2", "petitboot": "petitboot", "pxe": "pxelinux.cfg", "yaboot": "etc"}  # fmt: skip
# Every form of boot file hands the kernel the URL of the archive, and names the kernel by its osimage.
ARCHIVE = re.compile(rb"\bimgurl=(?:[a-z]+://[^/\s]*)?(/[^\s\"]*)")
ARGUMENTS = re.compile(rb"\bimgurl=[^\n\"]*")
OSIMAGE = re.compile(rb"xcat/osimage/([^/\s]+)/")
# In the order in which nodes and nodeset look for them.
ARCHIVES = ("rootimg.cpio.gz", "rootimg.cpio.xz", "rootimg.tar.gz", "rootimg.tar.xz", "rootimg.sfs", "rootimg.gz")
COHERENT, NODESET_DUE, NOT_THERE = "yes", "no", "-"
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Served:
    """An osimage as its nodes see it.

    coherent: whether TFTPDIR holds the published kernel and initrd, and no boot file that names something else ("-": none yet).
    differing: the kernel and the initrd there that do not. stale: nodes whose boot file names something else -> that file;
    unset: those that have none. behind: service nodes with copies of their own -> the nodes that boot from these; copies:
    of what. installdir: what they would copy.
    """

    image: OsImage
    record: Optional[PackedSet]
    bootable: bool  # a kernel is published
    coherent: str
    differing: tuple[str, ...]
    nodes: tuple[str, ...]
    stale: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    behind: Mapping[str, Sequence[str]] = field(default_factory=dict)
    copies: tuple[str, ...] = ()
    installdir: Path = Path("/install")

    @property
    def noderange(self) -> str:
        return noderange.collapse(self.nodes)

    @property
    def nodeset_due(self) -> bool:
        return bool(self.due)

    @property
    def due(self) -> tuple[str, ...]:
        """The nodes that nodeset has to be run for, as far as it can be seen here."""
        if not self.bootable:
            return ()
        everyone = self.coherent == NOT_THERE or bool(self.differing)
        return tuple(node for node in self.nodes if everyone or node in self.stale or node in self.unset)

    @property
    def nodeset(self) -> tuple[str, ...]:
        """The command that makes the nodes boot what is published."""
        return ("nodeset", noderange.collapse(self.due or self.nodes), f"osimage={self.image.name}")

    def document(self) -> dict[str, Any]:
        """What reports say of the nodes."""
        return {
            "nodes": list(self.nodes), "noderange": self.noderange, "nodeset_due": self.nodeset_due,
            "differing": [*self.differing, *self.stale.values()], "nodeset": list(self.nodeset) if self.nodeset_due else [],
            "service_nodes": {service: list(nodes) for service, nodes in self.behind.items()},
        }  # fmt: skip


def counts(table: Mapping[str, Node]) -> Mapping[str, int]:
    """Osimage -> how many nodes boot it."""
    return Counter(node.provmethod for node in table.values())


def look(image: OsImage, installdir: Path, tftpdir: Path, table: Mapping[str, Node]) -> Served:
    """What an osimage serves. table: all nodes."""
    rootimgdir = image.rootimgdir(installdir)
    record = read_record(rootimgdir)
    mine = {name: table[name] for name in sorted(name for name, node in table.items() if node.provmethod == image.name)}
    names = [name for name in (KERNEL, INITRD) if (rootimgdir / name).is_file()]
    copies = tftpdir / "xcat/osimage" / image.name
    coherent, differing, stale, unset = NOT_THERE, list[str](), dict[str, str](), list[str]()
    if names:
        archive = record.archive if record else next((name for name in ARCHIVES if (rootimgdir / name).is_file()), "")
        stale, unset = _boot_files(mine, tftpdir, rootimgdir / archive, image.name)
    if names and copies.is_dir():
        differing = [str(copies / name) for name in names if not _same(rootimgdir / name, copies / name)]
        coherent = NODESET_DUE if differing or stale else COHERENT
    behind: dict[str, list[str]] = {}
    for name, node in mine.items():
        if node.service:
            behind.setdefault(node.service, []).append(name)
    kinds = next((node.copies for node in mine.values() if node.copies), ())  # the site says it, for all of them
    return Served(
        image=image, record=record, bootable=bool(names), coherent=coherent, differing=tuple(differing), nodes=tuple(mine),
        stale=stale, unset=tuple(unset), behind=behind, copies=kinds, installdir=installdir,
    )  # fmt: skip


def _boot_files(
    nodes: Mapping[str, Node], tftpdir: Path, archive: Path, osimage: str
) -> tuple[dict[str, str], list[str]]:
    """The nodes whose boot file makes them boot something else, with that file, and those that have none."""
    stale, unset = dict[str, str](), list[str]()
    for name, node in nodes.items():
        if node.netboot and _loader(node) not in BOOT_FILES:
            continue  # nothing is known of what that one reads
        path, data = _boot_file(tftpdir, name, node)
        if path is None:
            unset += [name] if "TFTPDIR" not in node.copies else []  # else it is on a service node
        elif not _boots(data, archive, osimage):
            stale[name] = str(path)
    return stale, unset


def arguments(image: OsImage, definitions: Definitions) -> list[str]:
    """What the boot file of a node of the osimage hands its kernel, from imgurl= on; nothing where no node has one."""
    for name, node in sorted(definitions.nodes().items()):
        if node.provmethod == image.name:
            match = ARGUMENTS.search(_boot_file(definitions.tftpdir, name, node)[1])
            if match:
                return match.group().decode("ascii", "replace").split()
    return []


def look_all(image: OsImage, definitions: Definitions) -> list[Served]:
    """What an osimage serves, and then each other one whose rootimgdir is the same directory, by name or by a link."""
    installdir, tftpdir, table = definitions.installdir, definitions.tftpdir, definitions.nodes()
    real = os.path.realpath(image.rootimgdir(installdir))
    others = [
        other
        for other in definitions.osimages().values()
        if other.name != image.name and boots(other) and os.path.realpath(other.rootimgdir(installdir)) == real
    ]
    return [look(one, installdir, tftpdir, table) for one in (image, *others)]


def boots(image: OsImage) -> bool:
    """Whether nodes load the archive of an osimage: not of one that is installed or mounted, nor of an unusable definition."""
    return bool(image.profile) and image.provmethod in ("netboot", "")


def _boot_file(tftpdir: Path, name: str, node: Node) -> tuple[Optional[Path], bytes]:
    """The boot file of a node and what is in it; where nobody says by which boot loader it boots, the newest that it has."""
    known = BOOT_FILES.get(_loader(node))
    newest: tuple[float, Optional[Path], bytes] = (-1.0, None, b"")
    for directory in [known] if known else BOOT_FILES.values():
        path = tftpdir / directory / name
        try:
            with open(path, "rb") as stream:
                changed = os.fstat(stream.fileno()).st_mtime
                if changed > newest[0]:
                    newest = (changed, path, stream.read())
        except OSError:
            continue  # it boots by another one, or has not been told yet
    return newest[1], newest[2]


def _loader(node: Node) -> str:
    return node.netboot.partition("-")[0]  # grub2-http


def _boots(data: bytes, archive: Path, osimage: str) -> bool:
    """Whether a boot file makes a node load that archive, with the kernel of that osimage."""
    found = {os.path.normpath(b"/" + path.lstrip(b"/")).removesuffix(b".metainfo") for path in ARCHIVE.findall(data)}
    kernels = set(OSIMAGE.findall(data))
    return found == {os.fsencode(os.path.normpath(archive))} and kernels <= {osimage.encode()}


def _same(published: Path, copy: Path) -> bool:
    try:
        with open(published, "rb") as one, open(copy, "rb") as other:
            if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
                return False
            while block := one.read(BLOCK):
                if block != other.read(BLOCK):
                    return False
    except OSError:
        return False
    return True


def advice(served: Served) -> Sequence[str]:
    """Lines to print after a publish: who uses it, and what is due."""
    if not served.nodes:
        return [f"No node has provmethod {served.image.name}"]
    lines = [used_by(served), *(f"Not the published one: {path}" for path in served.differing)]
    if served.stale:
        lines.append(f"Their boot files name another image or archive: {noderange.collapse(list(served.stale))}")
    if served.unset and served.coherent != NOT_THERE:
        lines.append(f"They have no boot file yet: {noderange.collapse(served.unset)}")
    lines += service_lines(served)
    behind = {node for nodes in served.behind.values() for node in nodes}
    direct = [node for node in served.nodes if node not in behind]
    # Of those behind service nodes it was said just now.
    due = [node for node in served.due if node not in behind or "TFTPDIR" not in served.copies]
    if due:
        lines.append(f"Before they reboot: nodeset {noderange.collapse(due)} osimage={served.image.name}")
    elif direct and served.coherent == COHERENT:
        which = f"The kernel and initrd of {noderange.collapse(direct)}" if behind else "Their kernel and initrd"
        lines.append(f"{which} are the published ones: a reboot is enough")
    return lines


def used_by(served: Served) -> str:
    return f"Used by {counted(len(served.nodes), 'node')}: {served.noderange}"


def service_lines(served: Served) -> list[str]:
    """What is to be done for nodes behind service nodes that hold copies, of which nothing can be seen here."""
    lines = []
    for service, nodes in sorted(served.behind.items()):
        whose, names = noderange.collapse(nodes), service.split(",")
        which = (
            f"service node {names[0]}, which has its"
            if len(names) == 1
            else f"service nodes {', '.join(names)}, which have their"
        )
        boot = "boots" if len(nodes) == 1 else "boot"
        lines.append(f"{whose} {boot} from {which} own copy of {' and '.join(served.copies)}; before a reboot:")
        if "INSTALLDIR" in served.copies:
            place = served.installdir
            lines += [f"  rsync -auv --exclude autoinst {place} {name}:{place.parent}" for name in names]
        if "TFTPDIR" in served.copies:
            lines.append(f"  nodeset {whose} osimage={served.image.name}")
    return lines
