"""Make a tree what its manifest says, in all that Subversion and FSVS do not bring back."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Optional

from xcat_avs import command, manifest
from xcat_avs.errors import AvsError
from xcat_avs.manifest import Entry, reach

MODES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
ELSEWHERE = "put [paths] state on a file system with extended attributes and ACLs, such as ext4 or xfs"
ATTRIBUTES = {
    "security.avs": "capabilities", "user.avs": "user.*", "trusted.avs": "trusted.*", "system.posix_acl_access": "ACLs",
}  # fmt: skip
NO_ACL = bytes.fromhex("0200000001000600ffffffff04000000ffffffff20000000ffffffff")  # no more than mode 0600


def unkept(directory: Path) -> list[str]:
    """The kinds of extended attributes that the file system of a directory does not keep, in words."""
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
    """Give every path owner, mode, xattrs, hard links, holes and time, and make those that are not there.

    contents: a directory with the content of missing files, by SHA-256. What is there keeps its content.
    Raises AvsError that names the path.
    """
    for path, entry in wanted.items():  # a directory stands before what is in it
        try:
            if entry.hardlink:
                _link(top, path, entry.hardlink)
                continue
            with reach(top, path) as full:
                _restore(path, full, entry, contents)
        except OSError as err:
            reason = (
                f"the file system keeps no such attributes; {ELSEWHERE}" if err.errno == errno.ENOTSUP else err.strerror
            )
            raise AvsError(f"{path!a} cannot be made what its manifest says: {reason}") from None
    restore_times(top, wanted)


def _link(top: str, path: str, first: str) -> None:
    with reach(top, path) as full, reach(top, first) as source:
        if os.path.lexists(full):
            if os.path.samestat(os.lstat(full), os.lstat(source)):
                return
            os.unlink(full)
        os.link(source, full, follow_symlinks=False)


def _restore(path: str, full: str, entry: Entry, contents: Path) -> None:
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        _make(full, entry, contents)
        status = os.lstat(full)
    found_type = manifest.TYPES[stat.S_IFMT(status.st_mode)]
    if found_type != entry.type:  # nothing may be changed through a link that leads to somewhere on this machine
        raise AvsError(f"{path!a} is of type {found_type}, and {entry.type} by its manifest")
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        os.lchown(full, entry.uid, entry.gid)
        status = os.lstat(full)  # without setuid now
    if entry.type != "link" and stat.S_IMODE(status.st_mode) != entry.mode:
        os.chmod(full, entry.mode)
    found, xattrs = dict(manifest.read_xattrs(full)), dict(entry.xattrs)
    if found != xattrs:
        for name in found.keys() - xattrs.keys():
            os.removexattr(full, name, follow_symlinks=False)
        for name, value in xattrs.items():
            if found.get(name) != value:
                os.setxattr(full, name, value, follow_symlinks=False)
    if entry.sparse and status.st_size - status.st_blocks * 512 < manifest.HOLE:
        with open(full, "rb") as stream:
            command.capture(["fallocate", "--dig-holes", _name(stream)])


def _make(full: str, entry: Entry, contents: Path) -> None:
    if entry.type == "dir":
        os.mkdir(full)
    elif entry.type == "link":
        os.symlink(entry.link, full)
    elif entry.type in MODES:
        os.mknod(full, entry.mode | MODES[entry.type], os.makedev(*entry.device))
    elif (contents / entry.sha256).is_file():
        copy_content(str(contents / entry.sha256), full)


def copy_content(source: str, target: str) -> None:
    """Copy the content of a file, holes and all, to a new one; the names may be any that `reach` gives."""
    with open(source, "rb") as given, open(target, "xb") as taken:
        command.capture(["cp", "--reflink=auto", "--", _name(given), _name(taken)])


def _name(stream: IO[bytes]) -> str:
    """A name for an open file that can be handed to any program: real ones may not be UTF-8, or be too long."""
    return f"/proc/{os.getpid()}/fd/{stream.fileno()}"


def restore_times(top: str, wanted: Mapping[str, Entry], present: Optional[Mapping[str, Entry]] = None) -> None:
    """Set mtimes in the tree at top to those of the manifest where they are others.

    present: what the tree is, to leave alone paths that differ in more than time.
    """
    for path in sorted(wanted, reverse=True):  # what is in a directory before the directory
        entry = wanted[path]
        if present is not None and (path not in present or present[path].differs(entry)):
            continue
        with reach(top, path) as full:
            try:
                status = os.lstat(full)
            except FileNotFoundError:
                continue  # left out: the comparison says so
            if status.st_mtime_ns != entry.mtime:
                os.utime(full, ns=(status.st_atime_ns, entry.mtime), follow_symlinks=False)
