"""Restore from the manifest all of a tree that Subversion and FSVS do not keep."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Optional

from xcat_avs.errors import AvsError
from xcat_avs.system.descent import Descent, open_regular, reach
from xcat_avs.system.runner import capture
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry

SMALL = 1 << 20  # bytes
MODES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
ELSEWHERE = "put [paths] state on a file system with extended attributes and ACLs, such as ext4 or xfs"
ATTRIBUTES = {
    "security.avs": "capabilities", "user.avs": "user.*", "trusted.avs": "trusted.*", "system.posix_acl_access": "ACLs",
}  # fmt: skip
NO_ACL = bytes.fromhex("0200000001000600ffffffff04000000ffffffff20000000ffffffff")  # no more than mode 0600


def unkept(directory: Path) -> list[str]:
    """The kinds of extended attributes, in words, that the file system of a directory cannot keep."""
    lost = []
    with tempfile.NamedTemporaryFile(dir=directory) as probe:
        for name, kind in ATTRIBUTES.items():
            try:
                os.setxattr(probe.fileno(), name, NO_ACL)
            except OSError as err:
                if err.errno == errno.ENOTSUP:
                    lost.append(kind)
    return lost


def restore(top: str, wanted: Mapping[str, Entry], contents: Path) -> None:
    """Set owner, mode, xattrs, hard links, holes and time of every path, and make missing paths.

    contents: a directory with the contents of missing files, by SHA-256. Contents of files that exist stay as they are.
    Raises AvsError that names the path.
    """
    with Descent(top) as tree, Descent(top) as other:
        for path, entry in wanted.items():  # a directory comes before its entries
            try:
                if entry.hardlink:
                    _link(tree.parent(path), other.parent(entry.hardlink))
                else:
                    _restore(tree, path, entry, contents)
            except OSError as err:
                reason = (
                    f"the file system keeps no such attributes; {ELSEWHERE}"
                    if err.errno == errno.ENOTSUP
                    else err.strerror
                )
                raise AvsError(f"{path!a} cannot be made what its manifest says: {reason}") from None
    restore_times(top, wanted)


def _link(place: tuple[int, str], first: tuple[int, str]) -> None:
    (directory, name), (source, original) = place, first
    try:
        if os.path.samestat(_lstat(directory, name), _lstat(source, original)):
            return
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass  # a missing original is reported by os.link
    os.link(original, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)


def _lstat(directory: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _restore(tree: Descent, path: str, entry: Entry, contents: Path) -> None:
    full = tree.name(path)
    directory, name = tree.parent(path)
    try:
        status = _lstat(directory, name)
    except FileNotFoundError:
        _make(directory, name, full, entry, contents)
        status = _lstat(directory, name)
    found_type = manifest.TYPES[stat.S_IFMT(status.st_mode)]
    if found_type != entry.type:  # a link here may lead anywhere on this machine
        raise AvsError(f"{path!a} is of type {found_type}, and {entry.type} by its manifest")
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        status = _lstat(directory, name)  # chown has cleared setuid and setgid
    if entry.type != "link" and stat.S_IMODE(status.st_mode) != entry.mode:
        _chmod(directory, name, entry.mode)
    found, xattrs = dict(scan.read_xattrs(full)), dict(entry.xattrs)
    if found != xattrs:
        for attribute in found.keys() - xattrs.keys():
            os.removexattr(full, attribute, follow_symlinks=False)
        for attribute, value in xattrs.items():
            if found.get(attribute) != value:
                os.setxattr(full, attribute, value, follow_symlinks=False)
    if entry.sparse and entry.type == "file" and status.st_size - status.st_blocks * 512 < scan.HOLE:
        with open(open_regular(name, directory), "rb") as stream:
            capture(["fallocate", "--dig-holes", _name(stream)])


def _chmod(directory: int, name: str, mode: int) -> None:
    """Change the mode without following a link, which chmod would do."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def _make(directory: int, name: str, full: str, entry: Entry, contents: Path) -> None:
    if entry.type == "dir":
        os.mkdir(name, dir_fd=directory)
    elif entry.type == "link":
        os.symlink(entry.link, name, dir_fd=directory)
    elif entry.type in MODES:
        os.mknod(name, entry.mode | MODES[entry.type], os.makedev(*entry.device), dir_fd=directory)
    else:
        with reach(str(contents), entry.sha256) as source:
            copy_content(source, full)


def copy_content(source: str, target: str) -> None:
    """Copy the content of a regular file, holes and all, to a new one; the names may be any that `reach` gives.

    Raises OSError for a link, a device or a FIFO.
    """
    with open(open_regular(source), "rb") as given, open(target, "xb") as taken:
        if os.fstat(given.fileno()).st_size <= SMALL:  # a process takes longer; the caller digs the holes
            taken.write(given.read())
            return
        capture(["cp", "--reflink=auto", "--", _name(given), _name(taken)])


def _name(stream: IO[bytes]) -> str:
    """A /proc name of an open file, for a program: its own path may be too long, or not UTF-8."""
    return f"/proc/{os.getpid()}/fd/{stream.fileno()}"


def restore_times(top: str, wanted: Mapping[str, Entry], present: Optional[Mapping[str, Entry]] = None) -> None:
    """Set mtimes in the tree at top to those of the manifest where they are others.

    present: what the tree is, to leave alone paths that differ in more than time.
    """
    with Descent(top) as tree:
        for path in sorted(wanted, reverse=True):  # entries come before their directory
            entry = wanted[path]
            if present is not None and (path not in present or present[path].differs(entry)):
                continue
            try:
                directory, name = tree.parent(path)
                status = _lstat(directory, name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a missing path is reported by the comparison that follows
            if status.st_mtime_ns != entry.mtime:
                os.utime(name, ns=(status.st_atime_ns, entry.mtime), dir_fd=directory, follow_symlinks=False)
