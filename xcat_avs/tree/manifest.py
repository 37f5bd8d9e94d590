"""The manifest of a tree: one record a path; writing, reading and comparing manifests.

The format is avs-manifest(5): mtree(5), one line a path, with keywords for what mtree has none for:
`./PATH type=file mode=0755 uid=0 gid=0 time=SECONDS.NANOSECONDS size=N sha256digest=HEX`, `link=TARGET`,
`device=native,MAJOR,MINOR`, `hardlink=./PATH`, `xattr.NAME=BASE64`, `sparse=yes`. Bytes that are not plain in
a word are written as a backslash and three octal digits. Sorted by path; the last line proves the rest.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple, Optional

from xcat_avs.errors import AvsError
from xcat_avs.system.descent import NO_NAMES
from xcat_avs.system.octal import Octal

HEADER, END = "#mtree", "#end"
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}  # fmt: skip
KINDS = {kind: kind for kind in TYPES.values()}  # so that all entries share one string a type
WORDS = Octal("%")
SHA256 = re.compile(r"[0-9a-f]{64}")
NOBODY = 0xFFFFFFFF  # no owner: chown(2) reads it as "leave it"
SECONDS = 1 << 63
LONGEST = 4093  # bytes of a path that an archive can hold: with `./` before it the kernel takes 4095
CAPABILITY, SELINUX = "security.capability", "security.selinux"
ACL = "system.posix_acl_access"
MODE_ONLY = bytes((1, 4, 0x20))  # owner, group, others: the tags of its entries, eight bytes each after the first four
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
        """The names of the fields that differ: mtime only if asked; holes never: the file system decides on them."""
        different = [name for name in COMPARED if getattr(self, name) != getattr(other, name)]
        if times and self.mtime != other.mtime:
            different.append("mtime")
        return different


Manifest = dict[str, Entry]


def in_order(found: Iterable[tuple[str, bytes]]) -> Xattrs:
    """Extended attributes in their order, without an ACL of only owner, group and others: that is the mode.

    FUSE file systems hand out one that `cp -a` has set, others make the mode of it; a tree is the same on both.
    """
    return tuple(sorted(item for item in found if item[0] != ACL or item[1][4::8] != MODE_ONLY))


def size(manifest: Mapping[str, Entry], by_name: bool = False) -> int:
    """The bytes of all files; one with several names counts once, or by_name once for each."""
    return sum(entry.size for entry in manifest.values() if by_name or not entry.hardlink)


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
    words = [f"./{WORDS.escape(entry.path)} type={entry.type} mode={entry.mode:04o} uid={entry.uid} gid={entry.gid}",
             f"time={entry.mtime // 10**9}.{entry.mtime % 10**9:09d}"]  # fmt: skip
    if entry.type == "file":
        words.append(f"size={entry.size} sha256digest={entry.sha256}")
    elif entry.type == "link":
        words.append(f"link={WORDS.escape(entry.link)}")
    elif entry.type in ("char", "block"):
        words.append(f"device=native,{entry.device[0]},{entry.device[1]}")
    if entry.hardlink:
        words.append(f"hardlink=./{WORDS.escape(entry.hardlink)}")
    words += [f"xattr.{WORDS.escape(name)}={b64encode(value).decode()}" for name, value in entry.xattrs]
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
            wrong = _wrong(entry, manifest)
        except (ValueError, KeyError, IndexError):
            wrong = "not a manifest record"
        if wrong:
            raise AvsError(f"{origin}, line {number}: {wrong}: {line[:120]!a}")
        manifest[entry.path] = entry
    if end != f"{END} {len(manifest)} {sha.hexdigest()}\n" or not text.endswith(end):
        raise AvsError(f"{origin} is damaged or not whole: it does not have the checksum that its last line names")
    return manifest


def _wrong(entry: Entry, before: Mapping[str, Entry]) -> str:
    """Why no tree can have this path, or "". before: the entries above it; a directory stands before its contents.

    A manifest comes from a store that others may write to, and root makes files by it: no path may lead elsewhere.
    """
    parent, slash, name = entry.path.rpartition("/")
    if name in NO_NAMES or "\0" in entry.path:
        return "not a path within a tree"
    if entry.path in before:
        return "the path is there twice"
    above = before.get(parent) if slash else None
    if slash and (above is None or above.type != "dir"):
        return "the path lies in no directory of this manifest"
    if entry.hardlink:
        first = before.get(entry.hardlink)
        if first is None or first.hardlink or first.type != entry.type or entry.type == "dir":
            return "the hard link is one of no file above it"
    return _wrong_content(entry) or _wrong_facts(entry)


def _wrong_content(entry: Entry) -> str:
    if entry.type == "file":
        if entry.size < 0 or not SHA256.fullmatch(entry.sha256):
            return "not a file's size and SHA-256"
    elif entry.size or entry.sha256 or entry.sparse:  # a device would be opened, to have its holes back
        return "what only a file has"
    if entry.type == "link" and (not entry.link or "\0" in entry.link):
        return "not a link's target"
    return "what only a link has" if entry.link and entry.type != "link" else ""


def _wrong_facts(entry: Entry) -> str:
    if any("\0" in name for name, _ in entry.xattrs):
        return "not the name of an attribute"
    major, minor = entry.device
    owners = 0 <= entry.uid < NOBODY and 0 <= entry.gid < NOBODY
    if not (owners and 0 <= entry.mode <= 0o7777 and -SECONDS <= entry.mtime // 10**9 < SECONDS
            and 0 <= major < 1 << 12 and 0 <= minor < 1 << 20):  # fmt: skip
        return "not an owner, mode, time or device that a path can have"
    return ""


def _parse(line: str) -> Entry:
    if not line.isascii():
        raise ValueError(line)
    first, *words = line.split(" ")
    fields = dict([word.split("=", 1) for word in words])
    seconds, nanoseconds = fields["time"].split(".")
    kind = KINDS[fields["type"]]
    if not first.startswith("./") or len(nanoseconds) != 9 or not nanoseconds.isdecimal():
        raise ValueError(first)
    device = (0, 0)
    if kind in ("char", "block"):
        _, major, minor = fields["device"].split(",")
        device = (int(major), int(minor))
    elif "device" in fields:
        raise ValueError(fields["device"])
    hardlink = fields.get("hardlink", "./")
    if not hardlink.startswith("./"):
        raise ValueError(hardlink)
    xattrs: Xattrs = ()
    if "xattr." in line:
        xattrs = in_order((WORDS.unescape(name[6:]), b64decode(value, validate=True))
                       for name, value in fields.items() if name.startswith("xattr."))  # fmt: skip
    return Entry(
        WORDS.unescape(first[2:]), kind, int(fields["mode"], 8), int(fields["uid"]), int(fields["gid"]),
        int(seconds) * 10**9 + int(nanoseconds), int(fields.get("size", "0")), fields.get("sha256digest", ""),
        WORDS.unescape(fields.get("link", "")), device, WORDS.unescape(hardlink[2:]), xattrs, "sparse" in fields,
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
