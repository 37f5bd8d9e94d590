"""What a tree is: one record a path, written, read and compared.

The format is avs-manifest(5): mtree(5), one line a path, with keywords for what mtree has none for:
`./PATH type=file mode=0755 uid=0 gid=0 time=SECONDS.NANOSECONDS size=N sha256digest=HEX`, `link=TARGET`,
`device=native,MAJOR,MINOR`, `hardlink=./PATH`, `xattr.NAME=BASE64`, `sparse=yes`. Bytes that are not plain in
a word are written as a backslash and three octal digits. Sorted by path; the last line proves the rest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import stat
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import NamedTuple, Optional

from xcat_avs.errors import AvsError

HEADER, END = "#mtree", "#end"
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}  # fmt: skip
KINDS = {kind: kind for kind in TYPES.values()}  # one string for all
PLAIN = re.compile(rb"[^A-Za-z0-9_./:,+@%~^-]")
ESCAPE = re.compile(rb"\\([0-7]{3})")
CHUNK = 1 << 20
BATCH, AHEAD = 256, 16  # paths that a thread takes at a time, and how many such batches may wait
LONG = 3800  # characters of a path; the kernel takes no more than 4095 bytes
HOLE = 4096  # bytes; what a file lacks on disk before it counts as sparse
GETFLAGS, IMMUTABLE, APPEND_ONLY = 0x80086601, 0x10, 0x20  # linux/fs.h
CAPABILITY, SELINUX = "security.capability", "security.selinux"
COMPARED = ("type", "mode", "uid", "gid", "size", "sha256", "link", "device", "hardlink", "xattrs")

Xattrs = tuple[tuple[str, bytes], ...]


class Entry(NamedTuple):
    """One path of a tree, relative to its top. size is in bytes, mtime in nanoseconds since 1970 UTC.

    hardlink: the first path of those that are the same file, where this is a later one.
    xattrs: name and value, by name; ACLs and capabilities are among them. sparse: it has holes.
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    sha256: str = ""
    link: str = ""
    device: tuple[int, int] = (0, 0)
    hardlink: str = ""
    xattrs: Xattrs = ()
    sparse: bool = False

    def differs(self, other: Entry, times: bool = False) -> list[str]:
        """The names of the fields that differ; mtime only if asked, and holes never: they are the file system's."""
        different = [name for name in COMPARED if getattr(self, name) != getattr(other, name)]
        if times and self.mtime != other.mtime:
            different.append("mtime")
        return different


Manifest = dict[str, Entry]


@contextmanager
def reach(top: str, path: str) -> Iterator[str]:
    """A name for a path below top that every system call takes, however deep it lies."""
    if len(top) + len(path) < LONG:
        yield f"{top}/{path}"
        return
    directory = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        *parents, name = path.split("/")
        while parents:
            taken, length = 0, 0
            while taken < len(parents) and length + len(parents[taken]) < LONG:
                length += len(parents[taken]) + 1
                taken += 1
            following = os.open("/".join(parents[:taken]), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory, parents = following, parents[taken:]
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


def walk(top: str, skip: Iterable[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below top, relative, with its lstat; other file systems are not entered."""
    skipped = set(skip)
    device = os.lstat(top).st_dev
    pending = [""]
    while pending:
        directory = pending.pop()
        with reach(top, directory) as full, os.scandir(full) as found:
            entries = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in found)
        for name, status in entries:
            path = f"{directory}/{name}" if directory else name
            if path in skipped:
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                pending.append(path)


def digest(path: str) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open(path, "rb", buffering=0) as stream:
        return _hash(stream.fileno(), os.fstat(stream.fileno()).st_size)


def _hash(descriptor: int, size: int) -> str:
    """The SHA-256 of an open file, in hex. size: what it should have, so that a small one needs no large buffer."""
    sha = hashlib.sha256()
    step = min(size + 1, CHUNK)
    while chunk := os.read(descriptor, step):
        sha.update(chunk)
        if len(chunk) < step and size < CHUNK:
            break
    return sha.hexdigest()


def scan(top: str, skip: Iterable[str] = (), flagged: Optional[list[str]] = None) -> Manifest:
    """The manifest of the tree at top, without the paths in skip; read on all cores.

    flagged: takes the paths that are immutable or append-only, which no archive and no store keeps.
    """
    entries: Manifest = {}
    same: dict[tuple[int, int], list[str]] = {}  # a file of several names -> its names

    def describe(batch: Sequence[tuple[str, os.stat_result]]) -> list[Entry]:
        return [_entry(top, path, status, flagged) for path, status in batch]

    def alone() -> Iterator[tuple[str, os.stat_result]]:
        for path, status in walk(top, skip):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                names = same.setdefault((status.st_dev, status.st_ino), [])
                names.append(path)
                if len(names) > 1:
                    continue
            yield path, status

    # hashlib and system calls let go of the interpreter's lock while they work, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        pending: deque[Future[list[Entry]]] = deque()
        batches = iter(alone())
        while batch := list(islice(batches, BATCH)):
            pending.append(pool.submit(describe, batch))
            if len(pending) > AHEAD:
                entries.update((entry.path, entry) for entry in pending.popleft().result())
        for future in pending:
            entries.update((entry.path, entry) for entry in future.result())
    for names in same.values():
        first = min(names)
        for path in names:
            entries[path] = entries[names[0]]._replace(path=path, hardlink="" if path == first else first)
    return dict(sorted(entries.items()))


def scan_with_top(top: str) -> Manifest:
    """The manifest of a tree, with the directory itself as `.`."""
    return {".": _entry(top, ".", os.lstat(top), None), **scan(top)}


def look(top: str, path: str) -> Optional[Entry]:
    """What is at one path of a tree, of however many names; None where nothing is."""
    try:
        with reach(top, path) as full:
            status = os.lstat(full)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _entry(top, path, status, None)


def _entry(top: str, path: str, status: os.stat_result, flagged: Optional[list[str]]) -> Entry:
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    mode = 0o777 if kind == "link" else stat.S_IMODE(status.st_mode)
    size, sha256, link, device, sparse = 0, "", "", (0, 0), False
    with reach(top, path) as full:
        if kind == "file" or (kind == "dir" and flagged is not None):
            descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if kind == "file":
                    size, sparse = status.st_size, status.st_size - status.st_blocks * 512 >= HOLE
                    sha256 = _hash(descriptor, size)
                if flagged is not None and _flags(descriptor) & (IMMUTABLE | APPEND_ONLY):
                    flagged.append(path)
            finally:
                os.close(descriptor)
        elif kind == "link":
            link = os.readlink(full)
        elif kind in ("char", "block"):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        xattrs = read_xattrs(full)
    return Entry(path, kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, sha256, link, device, "", xattrs, sparse)  # fmt: skip


def _flags(descriptor: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, GETFLAGS, b"\0" * 8)[:4], "little")
    except OSError:
        return 0  # a file system without them


def read_xattrs(path: str) -> Xattrs:
    """All extended attributes of a path, by name; a link is not followed."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)) if names else ()
    except OSError as err:
        if err.errno == errno.ENOTSUP:
            return ()
        raise


def _escape(text: str) -> str:
    return PLAIN.sub(lambda match: b"\\%03o" % match.group()[0], os.fsencode(text)).decode("ascii")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return os.fsdecode(ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), text.encode("ascii")))


def dump(manifest: Mapping[str, Entry]) -> str:
    """The manifest as text."""
    return "".join(lines(manifest))


def lines(manifest: Mapping[str, Entry]) -> Iterator[str]:
    """The manifest line by line, each with its end."""
    sha = hashlib.sha256()
    for line in chain([HEADER], map(_line, manifest.values())):
        whole = line + "\n"
        sha.update(whole.encode("ascii"))
        yield whole
    yield f"{END} {len(manifest)} {sha.hexdigest()}\n"


def _line(entry: Entry) -> str:
    words = [f"./{_escape(entry.path)} type={entry.type} mode={entry.mode:04o} uid={entry.uid} gid={entry.gid}",
             f"time={entry.mtime // 10**9}.{entry.mtime % 10**9:09d}"]  # fmt: skip
    if entry.type == "file":
        words.append(f"size={entry.size} sha256digest={entry.sha256}")
    elif entry.type == "link":
        words.append(f"link={_escape(entry.link)}")
    elif entry.type in ("char", "block"):
        words.append(f"device=native,{entry.device[0]},{entry.device[1]}")
    if entry.hardlink:
        words.append(f"hardlink=./{_escape(entry.hardlink)}")
    words += [f"xattr.{_escape(name)}={b64encode(value).decode()}" for name, value in entry.xattrs]
    if entry.sparse:
        words.append("sparse=yes")
    return " ".join(words)


def load(text: str, origin: str) -> Manifest:
    """A manifest from its text. Raises AvsError with origin and line for what is not one, or was changed since."""
    manifest: Manifest = {}
    sha = hashlib.sha256()
    end = ""
    if not text.startswith(HEADER + "\n") or not text.endswith("\n"):
        raise AvsError(f"{origin} is no whole manifest")
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if line.startswith(END):
            end = line
            break
        sha.update(line.encode("ascii", "replace"))
        if number == 1:
            continue
        try:
            entry = _parse(line[:-1])
        except (ValueError, KeyError, IndexError):
            raise AvsError(f"{origin}, line {number}: not a manifest record: {line[:120]!r}") from None
        manifest[entry.path] = entry
    if end != f"{END} {len(manifest)} {sha.hexdigest()}\n" or not text.endswith(end):
        raise AvsError(f"{origin} is damaged or not whole: it does not have the checksum that its last line names")
    return manifest


def _parse(line: str) -> Entry:
    first, *words = line.split(" ")
    fields = dict([word.split("=", 1) for word in words])
    seconds, nanoseconds = fields["time"].split(".")
    kind = KINDS[fields["type"]]
    if not first.startswith("./") or len(nanoseconds) != 9:
        raise ValueError(first)
    device = (0, 0)
    if "device" in fields:
        _, major, minor = fields["device"].split(",")
        device = (int(major), int(minor))
    xattrs: Xattrs = ()
    if "xattr." in line:
        xattrs = tuple(sorted((_unescape(name[6:]), b64decode(value, validate=True))
                              for name, value in fields.items() if name.startswith("xattr.")))  # fmt: skip
    return Entry(
        _unescape(first[2:]), kind, int(fields["mode"], 8), int(fields["uid"]), int(fields["gid"]),
        int(seconds) * 10**9 + int(nanoseconds), int(fields.get("size", "0")), fields.get("sha256digest", ""),
        _unescape(fields.get("link", "")), device, _unescape(fields.get("hardlink", "")[2:]), xattrs, "sparse" in fields,
    )  # fmt: skip


def compare(old: Mapping[str, Entry], new: Mapping[str, Entry], times: bool = False) -> list[str]:
    """What differs, a line a path: `+path`, `-path`, `path: mode, size`."""
    lines = []
    for path in sorted(old.keys() | new.keys()):
        before: Optional[Entry] = old.get(path)
        after: Optional[Entry] = new.get(path)
        if before is None or after is None:
            lines.append(("+" if before is None else "-") + path)
        elif before != after:
            fields = before.differs(after, times)
            if fields:
                lines.append(f"{path}: {', '.join(fields)}")
    return lines


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
