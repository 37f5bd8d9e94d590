"""What nodes will boot: the published set beside the copies in TFTPDIR."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Node
from xcat_avs.serve import nodes
from xcat_avs.serve.nodes import Served
from xcat_avs.serve.sets import RECORD, PackedSet

BOOT = {
    "xnba": "#!gpxe\n#netboot rocky9.4-x86_64-compute\nimgfetch -n kernel http://${{next-server}}/tftpboot/{kernel}\nimgload kernel\n"
    "imgargs kernel imgurl=http://!myipfn!:80/{archive} XCAT=mgmt:3001 NODE=cn001 FC=0 BOOTIF=01-${{netX/mac:hexhyp}}\nimgexec kernel\n",
    "grub2": '#netboot rocky9.4-x86_64-compute\nset timeout=5\nmenuentry "xCAT OS Deployment" {{\n    set root=http,10.0.0.1\n'
    "    linuxefi {tftpdir}/{kernel} imgurl=http://10.0.0.1:8080/{archive} XCAT=10.0.0.1:3001 NODE=cn001 BOOTIF=$net_default_mac\n}}",
    "petitboot": "#netboot rocky9.4-ppc64le-compute\ndefault xCAT\nlabel xCAT\n\tkernel http://10.0.0.1:80{tftpdir}/{kernel}\n"
    '\tappend "imgurl=http://10.0.0.1:80/{archive}.metainfo XCAT=10.0.0.1:3001"\n',
    "pxe": "#netboot rocky9.4-x86_64-compute\nDEFAULT xCAT\nLABEL xCAT\n KERNEL {kernel}\n APPEND imgurl=https://[fd00::1]:80/{archive} NODE=cn001\n",
}
NAME = "rocky9.4-x86_64-netboot-compute"
IMAGE = OsImage(NAME, {"osvers": "rocky9.4", "osarch": "x86_64", "profile": "compute", "provmethod": "netboot"})


class Directories:
    """INSTALLDIR and TFTPDIR with one published image."""

    def __init__(self, top: Path) -> None:
        self.installdir, self.tftpdir = top / "install", top / "tftpboot"
        self.rootimgdir = IMAGE.rootimgdir(self.installdir)
        self.copies = self.tftpdir / "xcat/osimage" / NAME

    def publish(self, **files: bytes) -> None:
        names = {"kernel": "kernel", "initrd": "initrd-stateless.gz", "archive": "rootimg.cpio.gz"}
        self.rootimgdir.mkdir(parents=True, exist_ok=True)
        described: dict[str, dict[str, object]] = {}
        for key, data in {"archive": b"archive", **files}.items():
            (self.rootimgdir / names[key]).write_bytes(data)
            described[names[key]] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        record = PackedSet(NAME, NAME, "v1", 1, "2026-01-02T03:04:05Z", "user", "rootimg.cpio.gz", "", described)
        (self.rootimgdir / RECORD).write_text(json.dumps(asdict(record)))

    def copy(self, **files: bytes) -> None:
        self.copies.mkdir(parents=True, exist_ok=True)
        for key, data in files.items():
            (self.copies / {"kernel": "kernel", "initrd": "initrd-stateless.gz"}[key]).write_bytes(data)

    def boot(self, *names: str, kind: str = "xnba", archive: str = "", osimage: str = NAME) -> None:
        """The boot files of nodes, as that plugin of xCAT writes them."""
        archive = archive or f"{self.rootimgdir}/rootimg.cpio.gz"
        kernel = f"xcat/osimage/{osimage}/kernel"
        for node in names:
            path = self.tftpdir / nodes.BOOT_FILES[kind] / node
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(BOOT[kind].format(kernel=kernel, archive=archive, tftpdir=self.tftpdir))

    def look(self, *names: str, image: OsImage = IMAGE, **known: Node) -> Served:
        table = {"other": Node("another image"), **dict.fromkeys(names, Node(NAME)), **known}
        return nodes.look(image, self.installdir, self.tftpdir, table)


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories(tmp_path)


def test_nothing_published(directories: Directories) -> None:
    state = directories.look("cn001")
    assert (state.record, state.coherent, state.nodeset_due) == (None, "-", False)


def test_before_the_first_nodeset(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    state = directories.look("cn001", "cn002", "cn003")
    assert (state.coherent, state.differing, state.nodeset_due) == ("-", (), True)
    assert state.nodeset == ("nodeset", "cn001-cn003", f"osimage={NAME}")
    lines = nodes.advice(state)
    assert lines[0] == "Used by 3 nodes: cn001-cn003"
    assert lines[-1] == f"Before they reboot: nodeset cn001-cn003 osimage={NAME}"


def test_the_same_kernel_and_initrd(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    directories.boot("cn001")
    state = directories.look("cn001")
    assert (state.coherent, state.nodeset_due) == ("yes", False)
    assert "a reboot is enough" in nodes.advice(state)[-1]
    assert not any("nodeset" in line for line in nodes.advice(state))


@pytest.mark.parametrize(
    ("copies", "differing"),
    [
        ({"kernel": b"K", "initrd": b"i"}, ["kernel"]),
        ({"kernel": b"k", "initrd": b"longer"}, ["initrd-stateless.gz"]),
        ({"kernel": b"K"}, ["kernel", "initrd-stateless.gz"]),
        ({}, ["kernel", "initrd-stateless.gz"]),
    ],
)
def test_other_copies(directories: Directories, copies: dict[str, bytes], differing: list[str]) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(**copies)
    state = directories.look("cn001")
    assert (state.coherent, state.nodeset_due) == ("no", True)
    assert state.differing == tuple(str(directories.copies / name) for name in differing)
    lines = nodes.advice(state)
    assert [line for line in lines if line.startswith("Not the published one: ")] == [
        f"Not the published one: {path}" for path in state.differing
    ]
    assert lines[-1].startswith("Before they reboot: nodeset cn001 ")


def test_one_node_is_no_nodes(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    assert nodes.advice(directories.look("cn001"))[0] == "Used by 1 node: cn001"


def test_nobody_uses_it(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"old", initrd=b"old")
    state = directories.look()
    assert (state.coherent, state.nodeset_due) == ("no", False)
    assert nodes.advice(state) == [f"No node has provmethod {NAME}"]


def test_a_set_that_changed_below_us_is_not_believed(directories: Directories) -> None:
    """The files that are there count, not what was once written down of them."""
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    (directories.rootimgdir / "kernel").write_bytes(b"x")
    assert directories.look("cn001").coherent == "no"


def test_a_directory_that_packimage_left_is_looked_at_as_well(directories: Directories) -> None:
    """After a rollback to it, its kernel counts just the same."""
    directories.publish(kernel=b"k", initrd=b"i")
    (directories.rootimgdir / RECORD).unlink()
    directories.copy(kernel=b"other", initrd=b"i")
    state = directories.look("cn001")
    assert state.record is None
    assert (state.coherent, state.nodeset_due) == ("no", True)
    directories.copy(kernel=b"k")
    directories.boot("cn001")
    assert directories.look("cn001").coherent == "yes"


@pytest.mark.parametrize("kind", BOOT)
def test_a_boot_file_of_every_loader(directories: Directories, kind: str) -> None:
    """The whole path of the archive counts, and whose kernel it is."""
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    node = Node(NAME, "grub2-http" if kind == "grub2" else kind)
    directories.boot("cn001", kind=kind)
    assert not directories.look(cn001=node).nodeset_due
    defined = SimpleNamespace(
        tftpdir=directories.tftpdir, nodes=lambda: {"cn000": replace(node, provmethod="x"), "cn001": node}
    )
    told = nodes.arguments(IMAGE, defined)
    assert told[0].endswith(("rootimg.cpio.gz", "rootimg.cpio.gz.metainfo"))
    assert told[0].startswith("imgurl=http")
    for other in (
        {"archive": "/install/netboot/rocky9.4/x86_64/other/rootimg.cpio.gz"},
        {"archive": f"{directories.rootimgdir}/rootimg.sfs"},
        {"archive": f"{directories.rootimgdir}.v1/rootimg.cpio.gz"},
        {"archive": f"/elsewhere{directories.rootimgdir}/rootimg.cpio.gz"},
        {"osimage": "rocky9.4-x86_64-netboot-console"},
    ):
        directories.boot("cn001", kind=kind, **other)
        state = directories.look(cn001=node)
        assert (state.coherent, list(state.stale), state.nodeset_due) == ("no", ["cn001"], True), other
        assert "a reboot is enough" not in "".join(nodes.advice(state))


def test_a_node_that_boots_from_its_disk_or_has_no_boot_file(directories: Directories) -> None:
    """nodeset is due for these alone."""
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    directories.boot("cn001", "cn003")
    (directories.tftpdir / nodes.BOOT_FILES["xnba"] / "cn002").write_text("#!gpxe\n#boot\nexit\n")
    state = directories.look("cn001", "cn002", "cn003", "cn004")
    assert (list(state.stale), state.unset, state.coherent) == (["cn002"], ("cn004",), "no")
    lines = nodes.advice(state)
    assert lines[-1] == f"Before they reboot: nodeset cn002,cn004 osimage={NAME}"
    assert "They have no boot file yet: cn004" in lines


def test_the_boot_file_of_the_loader_that_a_node_has(directories: Directories) -> None:
    """What another one left is nothing; where nobody says which it is, the newest file counts."""
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    directories.boot("cn001", archive="/install/netboot/old/rootimg.gz")
    os.utime(directories.tftpdir / nodes.BOOT_FILES["xnba"] / "cn001", (1, 1))
    directories.boot("cn001", kind="grub2")
    assert not directories.look(cn001=Node(NAME, "grub2")).nodeset_due
    assert not directories.look(cn001=Node(NAME)).nodeset_due
    assert directories.look(cn001=Node(NAME, "xnba")).nodeset_due
    assert not directories.look(cn001=Node(NAME, "zvm")).nodeset_due  # nothing is known of its files


@pytest.mark.parametrize("copies", [("INSTALLDIR",), ("TFTPDIR",), ("INSTALLDIR", "TFTPDIR")])
def test_service_nodes_with_copies_of_their_own(directories: Directories, copies: tuple[str, ...]) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    directories.boot("cn001", "cn002", "cn003")
    behind = Node(NAME, service="sn01,sn02", copies=copies)
    lines = nodes.advice(directories.look("cn003", cn001=behind, cn002=behind))
    text = "\n".join(lines)
    assert "cn001,cn002 boot from service nodes sn01, sn02, which have their own copy of " in text
    assert (f"rsync -auv --exclude autoinst {directories.installdir} sn02:" in text) == ("INSTALLDIR" in copies)
    assert (f"  nodeset cn001,cn002 osimage={NAME}" in lines) == ("TFTPDIR" in copies)
    assert "cn001 boots from service nodes sn01, sn02" in "\n".join(nodes.advice(directories.look(cn001=behind)))
    assert lines[-1] == "The kernel and initrd of cn003 are the published ones: a reboot is enough"
    assert "a reboot is enough" not in "\n".join(nodes.advice(directories.look(cn001=behind, cn002=behind)))
