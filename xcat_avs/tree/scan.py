"""Reading a tree, path by path, on all cores."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Callable, Optional, Union

from xcat_avs.system.descent import FILE, Descent
from xcat_avs.tree.manifest import TYPES, Entry, Manifest, Xattrs, in_order

CHUNK = 1 << 20
BATCH, AHEAD = 256, 16  # paths in a batch for one thread, and how many batches may wait
HOLE = 4096  # bytes that a file must lack on disk to count as sparse
GETFLAGS, IMMUTABLE, APPEND_ONLY = 0x80086601, 0x10, 0x20  # linux/fs.h


def walk(top: str, skip: Iterable[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every path below top, relative, with its lstat. Other file systems are not entered."""
    skipped = set(skip)
    with Descent(top) as tree:
        device = os.fstat(tree.directory("")).st_dev
        pending = [""]
        while pending:
            directory = pending.pop()
            with os.scandir(tree.directory(directory)) as found:
                entries = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in found)
            for name, status in entries:
                path = f"{directory}/{name}" if directory else name
                if path in skipped:
                    continue
                yield path, status
                if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                    pending.append(path)


def digest(path: Union[str, int]) -> str:
    """The SHA-256 of a file's content, in hex. An open file is closed after it."""
    with open(path, "rb", buffering=0) as stream:
        return _hash(stream.fileno(), os.fstat(stream.fileno()).st_size)


def _hash(descriptor: int, size: int) -> str:
    """The SHA-256 of an open file, in hex. size: the expected size; a small file then needs no large buffer."""
    sha = hashlib.sha256()
    step = min(size + 1, CHUNK)
    while chunk := os.read(descriptor, step):
        sha.update(chunk)
        if len(chunk) < step and size < CHUNK:
            break
    return sha.hexdigest()


def scan(top: str, skip: Iterable[str] = (), flagged: Optional[list[str]] = None,
         tell: Callable[[int], None] = lambda _: None) -> Manifest:  # fmt: skip
    """The manifest of the tree at top, without the paths in skip; read on all cores.

    flagged: is filled with the paths that are immutable or append-only; no archive and no store keeps these flags.
    tell(): is called, as more is read, with how many bytes.
    """
    entries: Manifest = {}
    same: dict[tuple[int, int], list[str]] = {}  # (device, inode) of a file with several names -> these names
    done = 0

    def take(batch: Iterable[Entry]) -> None:
        nonlocal done
        for entry in batch:
            entries[entry.path] = entry
            done += entry.size
        tell(done)

    def alone() -> Iterator[tuple[str, os.stat_result]]:
        for path, status in walk(top, skip):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                names = same.setdefault((status.st_dev, status.st_ino), [])
                names.append(path)
                if len(names) > 1:
                    continue
            yield path, status

    # hashlib and system calls release the interpreter lock while they work, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        pending: deque[Future[list[Entry]]] = deque()
        batches = iter(alone())
        while batch := list(islice(batches, BATCH)):
            pending.append(pool.submit(_describe, top, batch, flagged))
            if len(pending) > AHEAD:
                take(pending.popleft().result())
        for future in pending:
            take(future.result())
    _join(entries, same.values())
    return dict(sorted(entries.items()))


def _describe(top: str, batch: Sequence[tuple[str, os.stat_result]], flagged: Optional[list[str]]) -> list[Entry]:
    with Descent(top) as tree:
        return [_entry(tree, path, status, flagged) for path, status in batch]


def _join(entries: Manifest, files: Iterable[Sequence[str]]) -> None:
    """Give every name of a file the entry of the one that was read. files: the names of each."""
    for names in files:
        first = min(names)
        for path in names:
            entries[path] = entries[names[0]]._replace(path=path, hardlink="" if path == first else first)


def scan_with_top(top: str) -> Manifest:
    """The manifest of a tree, with the directory itself as `.`."""
    with Descent(top) as tree:
        return {".": _entry(tree, "", os.lstat(top), None)._replace(path="."), **scan(top)}


def look(top: str, path: str) -> Optional[Entry]:
    """The entry of one path, whatever other names its file has; None where nothing is there."""
    try:
        with Descent(top) as tree:
            directory, name = tree.parent(path)
            return _entry(tree, path, os.stat(name, dir_fd=directory, follow_symlinks=False), None)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _entry(tree: Descent, path: str, status: os.stat_result, flagged: Optional[list[str]]) -> Entry:
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    mode = 0o777 if kind == "link" else stat.S_IMODE(status.st_mode)
    size, sha256, link, device, sparse = 0, "", "", (0, 0), False
    directory, name = tree.parent(path)
    if kind == "file" or (kind == "dir" and flagged is not None):
        descriptor = os.open(name, os.O_RDONLY | FILE, dir_fd=directory)
        try:
            if not os.path.samestat(os.fstat(descriptor), status):
                raise OSError(errno.ESTALE, "the path was changed while its tree was read", path)
            if kind == "file":
                size, sparse = status.st_size, status.st_size - status.st_blocks * 512 >= HOLE
                sha256 = _hash(descriptor, size)
            if flagged is not None and _flags(descriptor) & (IMMUTABLE | APPEND_ONLY):
                flagged.append(path)
            xattrs = read_xattrs(descriptor)
        finally:
            os.close(descriptor)
    else:
        if kind == "link":
            link = os.readlink(name, dir_fd=directory)
        elif kind in ("char", "block"):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        xattrs = read_xattrs(f"/proc/self/fd/{directory}/{name}")
    return Entry(path, kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, sha256, link, device, "", xattrs, sparse)  # fmt: skip


def _flags(descriptor: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, GETFLAGS, b"\0" * 8)[:4], "little")
    except OSError:
        return 0  # this file system has no such flags


def read_xattrs(path: Union[str, int]) -> Xattrs:
    """All extended attributes of a path, or of an open file, by name; a link is not followed."""
    follow = isinstance(path, int)  # of a descriptor nothing else is allowed
    try:
        names = os.listxattr(path, follow_symlinks=follow)
        return in_order((name, os.getxattr(path, name, follow_symlinks=follow)) for name in names) if names else ()
    except OSError as err:
        if err.errno == errno.ENOTSUP:
            return ()
        raise


def tree_size(top: str) -> int:
    """Bytes of all files below top, a hard-linked file once, other file systems left out."""
    total = 0
    linked: set[tuple[int, int]] = set()
    for _, status in walk(top):
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            if status.st_nlink > 1:
                key = (status.st_dev, status.st_ino)
                if key in linked:
                    continue
                linked.add(key)
            total += status.st_size
    return total
