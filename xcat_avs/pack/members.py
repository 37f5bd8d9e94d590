"""What an archive holds, read back from it as a manifest.

tar by the tarfile of Python, squashfs by the kernel. cpio is read here: no library tells the inode numbers, by
which GNU cpio and the kernel make hard links (libarchive forgets a number once it has seen all its names).
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from xcat_avs.errors import AvsError, CommandError
from xcat_avs.pack.archive import Form
from xcat_avs.system import mounts
from xcat_avs.system.runner import Runner, Stream
from xcat_avs.tree import scan
from xcat_avs.tree.manifest import TYPES, Entry, Manifest, Xattrs, in_order
from xcat_avs.tree.scan import CHUNK

TRAILER = "TRAILER!!!"
NEWC, NEWC_HEADER = b"070701", 110
TAR_TYPES = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
             tarfile.FIFOTYPE: "fifo"}  # fmt: skip
TAR_XATTR = "SCHILY.xattr."  # what tar writes before the name of an attribute


def read(archive: Path, form: Form, runner: Runner) -> Manifest:
    """Everything in an archive, by its path from the top of the image, which itself is `.`.

    runner: the directory of its log, private and on disk, is used for what has to be unpacked.
    Raises AvsError for an archive that cannot be read to its end.
    """
    if form.method == "squashfs":
        return _squashfs(archive, runner)
    try:
        with runner.reading(form.decompressor(), stdin=archive) as stream:
            found = _cpio(stream) if form.method == "cpio" else _tar(stream)
    except (ValueError, EOFError, tarfile.TarError) as err:
        raise AvsError(f"{archive.name} cannot be read back, it ends unexpectedly or is damaged: {err}") from None
    return dict(sorted(found.items()))


def _plain(name: str) -> str:
    """A member's name as a manifest has it."""
    return name.removeprefix("./").strip("/") or "."


def _take(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{size - len(data)} bytes are missing")
    return data


def _digest(stream: Stream, size: int) -> str:
    sha = hashlib.sha256()
    while size:
        data = _take(stream, min(size, CHUNK))
        sha.update(data)
        size -= len(data)
    return sha.hexdigest()


def _cpio(stream: Stream) -> Manifest:
    """The members of a cpio archive in the newc form; what has one inode number there is one file."""
    found: Manifest = {}
    same: dict[tuple[int, int, int], list[str]] = {}
    while True:
        header = _take(stream, NEWC_HEADER)
        if header[:6] != NEWC:
            raise ValueError(f"no member begins with {header[:6]!r}")
        ino, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, length, _ = [
            int(header[at : at + 8], 16) for at in range(6, NEWC_HEADER, 8)
        ]
        name = os.fsdecode(_take(stream, length + -(NEWC_HEADER + length) % 4)[: length - 1])
        if name == TRAILER:
            break
        kind, sha256, link = TYPES[stat.S_IFMT(mode)], "", ""
        if kind == "link":
            link = os.fsdecode(_take(stream, size))
        elif kind == "file":
            sha256 = _digest(stream, size)
        _take(stream, -size % 4)
        path = _plain(name)
        found[path] = Entry(
            path, kind, 0o777 if link else stat.S_IMODE(mode), uid, gid, mtime * 10**9, size if kind == "file" else 0,
            sha256, link, (rmajor, rminor) if kind in ("char", "block") else (0, 0),
        )  # fmt: skip
        if links > 1 and kind != "dir":
            same.setdefault((major, minor, ino), []).append(path)
    for names in same.values():
        _join(found, names)
    return found


def _join(found: Manifest, names: list[str]) -> None:
    """Make names that are one file the same; one of them brings the content."""
    first = min(names)
    content = max((found[name] for name in names), key=lambda entry: entry.size)
    for name in names:
        hardlink = "" if name == first else first
        found[name] = found[name]._replace(size=content.size, sha256=content.sha256, hardlink=hardlink)


class _Forward:
    """A pipe for tarfile, which seeks forward only; its own stream mode takes three times as long."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._at = stream, 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def seek(self, position: int) -> int:
        while self._at < position and self.read(min(position - self._at, CHUNK)):
            pass
        if self._at > position:
            raise ValueError(f"{position} is behind what was read")
        return self._at


def _tar(stream: Stream) -> Manifest:
    """The members of a tar archive; a hard link is what it leads to."""
    found: Manifest = {}
    same: dict[str, list[str]] = {}
    forward = _Forward(stream)
    # tarfile works with any object that has read, tell and seek.
    with tarfile.TarFile(fileobj=forward, encoding="utf-8", errors="surrogateescape") as archive:  # type: ignore[arg-type]
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all members in memory
            path = _plain(member.name)
            if member.islnk():
                first = _plain(member.linkname)
                if first not in found:
                    raise ValueError(f"{path!a} is a hard link to {first!a}, which is not there")
                if path != first:  # tar may list a name twice
                    same.setdefault(found[first].hardlink or first, [first]).append(path)
                    found[path] = found[first]._replace(path=path, hardlink=first)
            else:
                found[path] = _member(archive, member, path, forward)
    for names in same.values():
        _join(found, names)
    return found


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, forward: _Forward) -> Entry:
    kind, sha256 = TAR_TYPES.get(member.type, "file"), ""
    if kind == "file":
        if member.issparse():
            content = archive.extractfile(member)
            assert content is not None
            sha256 = _digest(content, member.size)
        else:
            forward.seek(member.offset_data)
            sha256 = _digest(forward, member.size)
    words = member.pax_headers
    return Entry(
        path, kind, 0o777 if kind == "link" else stat.S_IMODE(member.mode), member.uid, member.gid,
        int(Decimal(words["mtime"]) * 10**9) if "mtime" in words else int(member.mtime) * 10**9,
        member.size if kind == "file" else 0, sha256, member.linkname if kind == "link" else "",
        (member.devmajor, member.devminor) if kind in ("char", "block") else (0, 0),
        xattrs=_tar_xattrs(words),
    )  # fmt: skip


def _tar_xattrs(words: Mapping[str, str]) -> Xattrs:
    """The extended attributes of a tar member, from its pax headers; tar escapes two bytes in their names."""
    return in_order((key[len(TAR_XATTR) :].replace("%3D", "=").replace("%25", "%"), value.encode("utf-8", "surrogateescape"))
                    for key, value in words.items() if key.startswith(TAR_XATTR))  # fmt: skip


def _squashfs(archive: Path, runner: Runner) -> Manifest:
    """What a squashfs holds: mounted, or unpacked where no loop device or no driver is to be had."""
    with mounts.temporary_directory(runner.directory, "proof.") as directory:
        point = directory / "root"
        point.mkdir()
        with mounts.unmounted_after(point):
            try:
                runner.run(["mount", "-t", "squashfs", "-o", "ro,loop", str(archive), str(point)])
            except CommandError:
                runner.run(["unsquashfs", "-no-progress", "-f", "-d", str(point), str(archive)])
            return scan.scan_with_top(str(point))
