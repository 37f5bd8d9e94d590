"""Initrds: the same by what is in them, whatever the clock said."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from xcat_avs import generate
from xcat_avs.tree import initrd

Member = tuple[str, int, bytes, int, int]  # name, mode, data, inode, number of links


def cpio(members: Sequence[Member], mtime: int = 0, uid: int = 0) -> bytes:
    """A newc archive."""
    out = b""
    for name, mode, data, inode, links in [*members, ("TRAILER!!!", 0, b"", 0, 1)]:
        fields = (inode, mode, uid, 0, links, mtime, len(data), 8, 1, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % number for number in fields) + name.encode() + b"\0"
        for part in (head, data):
            out += part + b"\0" * (-len(part) % 4)
    return out


def some(first: int = 1, text: bytes = b"#!/bin/sh\n", linked: bool = True) -> list[Member]:
    links = 2 if linked else 1
    return [
        (".", 0o40755, b"", first, 2),
        ("init", 0o100755, text, first + 1, 1),
        ("bin/a", 0o100755, b"", first + 2, links),
        ("bin/b", 0o100755, b"TRAILER!!!\0 is a word of cpio's own", first + 2 if linked else first + 3, links),
        ("lib", 0o120777, b"usr/lib", first + 4, 1),
    ]


MICROCODE = cpio([("kernel/x86/microcode/AuthenticAMD.bin", 0o100644, b"microcode", 7, 1)])
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("form", sorted(COMPRESSED))
def test_times_inodes_and_order_do_not_count(form: str) -> None:
    compress = COMPRESSED[form]
    one = MICROCODE + b"\0" * 512 + compress(cpio(some())) + b"\0" * 256
    # cpio keeps the content of a file of several names with the one that comes last.
    other = MICROCODE + compress(cpio([*some(90)[:2], some(90)[4], *some(90)[2:4]], mtime=99))
    assert one != other
    assert initrd.same(one, other)
    assert [[member.name for member in archive] for archive in initrd.contents(one)] == [
        [b"kernel/x86/microcode/AuthenticAMD.bin"],
        [b".", b"bin/a", b"bin/b", b"init", b"lib"],
    ]


@pytest.mark.parametrize(
    "other",
    [
        cpio(some(text=b"#!/bin/ksh\n")),
        cpio(some(), uid=1),
        cpio(some(linked=False)),
        cpio(some()[:-1]),
        cpio([*some()[:-1], ("lib", 0o120777, b"usr/lib64", 5, 1)]),
        cpio([*some()[:1], ("init", 0o100750, b"#!/bin/sh\n", 2, 1), *some()[2:]]),
        MICROCODE + cpio(some()),
        cpio(some())[:-200],
        gzip.compress(cpio(some()), mtime=0)[:-20],
        b"an initrd\n",
        b"070701" + b"x" * 200,
        b"070701",
        b"",
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_differs_or_cannot_be_read(other: bytes) -> None:
    assert not initrd.same(cpio(some()), other)
    assert not initrd.same(other, cpio(some()))


@pytest.mark.parametrize("program", ["zstd", "lz4"])
def test_compressions_of_programs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"not installed: {program}")
    packed = [
        MICROCODE + subprocess.run([program, "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
        for data in (cpio(some()), cpio(some(50), mtime=9), cpio(some(), uid=3))
    ]
    assert initrd.same(packed[0], packed[1])
    assert not initrd.same(packed[0], packed[2])


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("initrd-stateless.gz", True), ("initrd-statelite.gz", True), ("rootimg/boot/initramfs-5.14.0-1.el9.x86_64.img", True),
        ("rootimg/boot/initrd.img-6.1.0-18-amd64", True), ("rootimg/boot/vmlinuz-6.1", False), ("rootimg/initrd", False),
        ("rootimg/boot/initrd/x", False),
    ],
)  # fmt: skip
def test_which_paths_are_initrds(path: str, is_one: bool) -> None:
    assert bool(initrd.PATH.fullmatch(path)) == is_one


@pytest.mark.slow
def test_what_the_real_dracut_makes(tmp_path: Path) -> None:
    """Other bytes each time, and the same with the setting that the generators give."""
    if shutil.which("dracut") is None:
        pytest.skip("not installed: dracut")

    def make(number: int) -> bytes:
        target = tmp_path / f"{number}.gz"
        words = [
            "dracut",
            "--conf",
            "/dev/null",
            "--confdir",
            str(tmp_path / "root/etc/dracut.conf.d"),
            "--tmpdir",
            str(tmp_path),
        ]
        words += ["-N", "--no-kernel", "--kver", "0.0", "-m", "bash", "-f", str(target)]
        subprocess.run(words, check=True, capture_output=True)
        return target.read_bytes()

    (tmp_path / "root/etc/dracut.conf.d").mkdir(parents=True)
    one, other = make(1), make(2)
    assert one != other
    assert initrd.same(one, other)
    with generate.reproducible_initrds(tmp_path / "root"):
        assert make(3) == make(4)
