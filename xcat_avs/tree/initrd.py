"""Compare initrds by the files in them: times and inode numbers make other bytes of the same files."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from xcat_avs.errors import AvsError
from xcat_avs.system import command
from xcat_avs.system.runner import capture

# The initrds that nodes boot, and those of the image's own kernels.
PATH = re.compile(r"(?:rootimg/boot/)?initr(?:d|amfs)[^/]*")
HEADER, TRAILER = 110, b"TRAILER!!!"  # of cpio, newc
MAGIC = (b"070701", b"070702")
# Magic number of a compression that Python cannot read -> the program that can.
PROGRAMS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4", b"\x04\x22\x4d\x18": "lz4", b"\x89LZO": "lzop"}
LIMIT = 1 << 31  # bytes; a part that decompresses to more is refused


class Member(NamedTuple):
    """A path of an initrd, without its times. links: all names of a file that has several, sorted."""

    name: bytes
    mode: int
    uid: int
    gid: int
    device: tuple[int, int]
    sha256: str
    links: tuple[bytes, ...] = ()


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def same(one: bytes, other: bytes) -> bool:
    """Whether two initrds hold the same files; False where one of them cannot be read."""
    try:
        return contents(one) == contents(other)
    except (ValueError, IndexError, AvsError, zlib.error, lzma.LZMAError, OSError):
        return False


def holds(data: bytes, name: bytes) -> bool:
    """Whether a path of an initrd ends in name; False where it cannot be read."""
    try:
        return any(member.name.endswith(name) for archive in contents(data) for member in archive)
    except (ValueError, IndexError, AvsError, zlib.error, lzma.LZMAError, OSError):
        return False


def contents(data: bytes) -> list[list[Member]]:
    """The archives that an initrd is made of (microcode, then the rest), each with its members by name.

    Raises ValueError, or the error of the decompressor, for data that is no initrd.
    """
    return [sorted(_linked(archive)) for archive in _archives(data)]


def _archives(data: bytes) -> Iterator[list[tuple[tuple[int, int, int], Member]]]:
    """The members of each archive, each with the device and inode number that identify its file."""
    while data := data.lstrip(b"\0"):
        if data[:6] in MAGIC:
            archive, end = _read(data)
            yield archive
            data = data[end:]
        else:
            inner, data = _decompress(data)
            yield from _archives(inner)


def _read(data: bytes) -> tuple[list[tuple[tuple[int, int, int], Member]], int]:
    """The members of the archive that data begins with, and where it ends."""
    found: list[tuple[tuple[int, int, int], Member]] = []
    at = 0
    while True:
        if data[at : at + 6] not in MAGIC:
            raise ValueError("not a cpio archive")
        fields = [int(data[start : start + 8], 16) for start in range(at + 6, at + HEADER, 8)]
        inode, mode, uid, gid, nlink, _, size, major, minor, *device, length, _ = fields
        name = data[at + HEADER : at + HEADER + length].rstrip(b"\0")
        start = _padded(at + HEADER + length)
        at = _padded(start + size)
        if at > len(data) + 3:
            raise ValueError("not a whole cpio archive")
        if name == TRAILER:
            return found, at
        several = nlink > 1 and stat.S_ISREG(mode)
        sha256 = hashlib.sha256(data[start : start + size]).hexdigest() if size else ""
        member = Member(name.removeprefix(b"./"), mode, uid, gid, (device[0], device[1]), sha256)
        found.append(((major, minor, inode) if several else (0, 0, 0), member))


def _linked(archive: list[tuple[tuple[int, int, int], Member]]) -> Iterator[Member]:
    """Give members that are one file all its names, and its content, which cpio stores with the last name only."""
    files: dict[tuple[int, int, int], list[Member]] = {}
    for number, member in archive:
        files.setdefault(number, []).append(member)
    for number, members in files.items():
        if number == (0, 0, 0):
            yield from members
            continue
        links, sha256 = tuple(sorted(member.name for member in members)), max(member.sha256 for member in members)
        yield from (member._replace(links=links, sha256=sha256) for member in members)


def _padded(at: int) -> int:
    return at + -at % 4


def _decompress(data: bytes) -> tuple[bytes, bytes]:
    """What a compressed part holds, and what follows it."""
    decompressor: _Decompressor
    if data[:2] == b"\x1f\x8b":
        decompressor = zlib.decompressobj(wbits=31)
    elif data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
        decompressor = lzma.LZMADecompressor()
    elif data[:3] == b"BZh":
        decompressor = bz2.BZ2Decompressor()
    else:
        return _decompress_by_program(data), b""
    inner = decompressor.decompress(data, LIMIT)
    if not decompressor.eof:
        raise ValueError("not whole, or too large")
    return inner, decompressor.unused_data


def _decompress_by_program(data: bytes) -> bytes:
    program = PROGRAMS.get(data[:4])
    if program is None or command.find(program) is None:
        raise ValueError("compressed in a way that is not known")
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        return capture([program, "-dc", stream.name]).stdout
