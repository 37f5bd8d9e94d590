"""What a tree is: one record a path, written, read and compared.

The format is that of mtree(5), one line a path, so that other tools can read it:
`./PATH type=file mode=0755 uid=0 gid=0 size=N time=SECONDS.NANOSECONDS sha256digest=HEX`,
with `link=TARGET` for symbolic links and `device=native,MAJOR,MINOR` for devices. Bytes that are not
plain in a word are written as a backslash and three octal digits. Sorted by path.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Optional

from xcat_avs.errors import AvsError

HEADER = "#mtree"
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}  # fmt: skip
PLAIN = re.compile(rb"[^A-Za-z0-9_./:,+@%~^-]")
ESCAPE = re.compile(rb"\\([0-7]{3})")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One path of a tree, relative to its top. size is in bytes, mtime in nanoseconds since 1970 UTC."""

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
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def differs(self, other: Entry, times: bool = False) -> list[str]:
        """The names of the fields that differ; mtime only if asked, and to the microsecond that FSVS keeps."""
        names = ["type", "mode", "uid", "gid", "size", "sha256", "link", "device", "hardlink", "xattrs"]
        different = [name for name in names if getattr(self, name) != getattr(other, name)]
        if times and self.mtime // 1000 != other.mtime // 1000:
            different.append("mtime")
        return different


Manifest = dict[str, Entry]


def walk(top: str, skip: Iterable[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below top, relative, with its lstat; other file systems are not entered."""
    skipped = set(skip)
    device = os.lstat(top).st_dev
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(top, directory)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = os.path.join(directory, entry.name)
            if path in skipped:
                continue
            status = entry.stat(follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                pending.append(path)


def digest(path: str) -> str:
    """The SHA-256 of a file's content, in hex."""
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def scan(top: str, skip: Iterable[str] = ()) -> Manifest:
    """The manifest of the tree at top, without the paths in skip; hashed on all cores."""
    entries: Manifest = {}
    files: list[str] = []
    for path, status in walk(top, skip):
        kind = TYPES[stat.S_IFMT(status.st_mode)]
        entry = Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        if kind == "file":
            entry = replace(entry, size=status.st_size)
            files.append(path)
        elif kind == "link":
            target = os.readlink(os.path.join(top, path))
            entry = replace(entry, link=target, mode=0o777)
        elif kind in ("char", "block"):
            entry = replace(entry, device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
        entries[path] = entry
    # hashlib lets go of the interpreter's lock while it works, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        for path, sha in zip(files, pool.map(lambda path: digest(os.path.join(top, path)), files)):
            entries[path] = replace(entries[path], sha256=sha)
    return dict(sorted(entries.items()))


def _escape(text: str) -> str:
    return PLAIN.sub(lambda match: b"\\%03o" % match.group()[0], os.fsencode(text)).decode("ascii")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return os.fsdecode(ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), text.encode("ascii")))


def dump(manifest: Mapping[str, Entry]) -> str:
    """The manifest as text."""
    lines = [HEADER]
    for entry in manifest.values():
        words = [f"./{_escape(entry.path)} type={entry.type} mode={entry.mode:04o} uid={entry.uid} gid={entry.gid}",
                 f"time={entry.mtime // 10**9}.{entry.mtime % 10**9:09d}"]  # fmt: skip
        if entry.type == "file":
            words.append(f"size={entry.size} sha256digest={entry.sha256}")
        elif entry.type == "link":
            words.append(f"link={_escape(entry.link)}")
        elif entry.type in ("char", "block"):
            words.append(f"device=native,{entry.device[0]},{entry.device[1]}")
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def load(text: str, origin: str) -> Manifest:
    """A manifest from its text. Raises AvsError with origin and line for what is not one."""
    lines = text.split("\n")
    if lines[0] != HEADER or lines[-1] != "":
        raise AvsError(f"{origin} is no whole manifest")
    manifest: Manifest = {}
    for number, line in enumerate(lines[1:-1], 2):
        try:
            first, *words = line.split(" ")
            fields = dict(word.split("=", 1) for word in words)
            seconds, nanoseconds = fields["time"].split(".")
            if not first.startswith("./") or len(nanoseconds) != 9 or fields["type"] not in TYPES.values():
                raise ValueError(first)
            path = _unescape(first[2:])
            device = fields.get("device", "native,0,0").split(",")
            manifest[path] = Entry(
                path, fields["type"], int(fields["mode"], 8), int(fields["uid"]), int(fields["gid"]),
                int(seconds) * 10**9 + int(nanoseconds), int(fields.get("size", "0")), fields.get("sha256digest", ""),
                _unescape(fields.get("link", "")), (int(device[1]), int(device[2])),
            )  # fmt: skip
        except (ValueError, KeyError, IndexError):
            raise AvsError(f"{origin}, line {number}: not a manifest record: {line[:120]!r}") from None
    return manifest


def compare(old: Mapping[str, Entry], new: Mapping[str, Entry], times: bool = False) -> list[str]:
    """What differs, a line a path: `+path`, `-path`, `path: mode, size`."""
    lines = []
    for path in sorted(old.keys() | new.keys()):
        before: Optional[Entry] = old.get(path)
        after: Optional[Entry] = new.get(path)
        if before is None or after is None:
            lines.append(("+" if before is None else "-") + path)
        else:
            fields = before.differs(after, times)
            if fields:
                lines.append(f"{path}: {', '.join(fields)}")
    return lines


def restore_times(top: str, wanted: Mapping[str, Entry], present: Optional[Mapping[str, Entry]] = None) -> None:
    """Set mtimes in the tree at top to those of the manifest where they are others.

    present: what the tree is, to leave alone paths that differ in more than time.
    """
    for path in sorted(wanted, reverse=True):  # what is in a directory before the directory
        entry = wanted[path]
        if present is not None and (path not in present or present[path].differs(entry)):
            continue
        full = os.path.join(top, path)
        status = os.lstat(full)
        if status.st_mtime_ns != entry.mtime:
            os.utime(full, ns=(status.st_atime_ns, entry.mtime), follow_symlinks=False)


def restore_owners(top: str, wanted: Mapping[str, Entry], present: Manifest) -> None:
    """Set owner and mode in the tree at top to those of the manifest, where nothing else differs; present follows."""
    for path, entry in wanted.items():
        found = present.get(path)
        differing = set(entry.differs(found)) if found else set()
        if found is None or not differing or differing - {"uid", "gid", "mode"}:
            continue
        full = os.path.join(top, path)
        os.lchown(full, entry.uid, entry.gid)
        if entry.type != "link":
            os.chmod(full, entry.mode)
        present[path] = replace(found, uid=entry.uid, gid=entry.gid, mode=entry.mode)


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
