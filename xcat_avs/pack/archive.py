"""Root image archives: what goes in, in which form, and whether all of it is there."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from xcat_avs import command, manifest
from xcat_avs.descent import Descent
from xcat_avs.errors import AvsError
from xcat_avs.generate import SOURCE_DATE_EPOCH

CPIO_LIMIT = 2**32 - 1  # bytes of a file in the newc form
EXIST_DIRECTIVE = re.compile(r"#INCLUDE:([^#]+)#")
SUFFIXES = {"gzip": "gz", "zstd": "zst", "xz": "xz"}
# All archives xCAT's initrd could pick, in its order; a published set holds just one.
MARK = "rootimg."
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Form:
    """A method (cpio, tar, squashfs) and a compression (gzip, zstd, xz)."""

    method: str
    compress: str

    @classmethod
    def of(cls, filename: str) -> Form:
        """The form of an archive by its name, `rootimg.cpio.gz`."""
        method, _, suffix = filename[len(MARK) :].partition(".")
        if method == "sfs":
            return cls("squashfs", "gzip")
        return cls(method, {value: key for key, value in SUFFIXES.items()}.get(suffix, "gzip"))

    @property
    def filename(self) -> str:
        if self.method == "squashfs":
            return MARK + "sfs"
        return f"{MARK}{self.method}.{SUFFIXES[self.compress]}"

    def compressor(self) -> list[str]:
        """The fastest program for the compression that is installed; its output does not change from run to run."""
        if self.compress == "gzip":
            for argv in (["igzip", "-3", "-n", "-c"], ["pigz", "-n", "-c"]):
                if command.find(argv[0]):
                    return argv
            return ["gzip", "-n", "-c"]
        return {"zstd": ["zstd", "-q", "-3", "-T0", "-c"], "xz": ["xz", "-6", "-T0", "-c"]}[self.compress]

    def decompressor(self) -> list[str]:
        return [self.compressor()[0], "-d", "-c"]

    def programs(self) -> tuple[str, ...]:
        """The programs that this form needs."""
        if self.method == "squashfs":
            return ("mksquashfs", "unsquashfs")
        return (self.method, self.compressor()[0])


def read_exlist(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """The patterns of exlists: what to leave out, and what to take in all the same (`+`).

    Patterns are those of find -path, from the top of the image (`./usr/share/man*`).
    Raises AvsError for a list that is not there.
    """
    excluded: list[str] = []
    included: list[str] = []

    def add(path: Path, asked: tuple[Path, ...]) -> None:
        real = Path(os.path.realpath(path))
        if real in asked:
            raise AvsError(f"exlist {path} includes itself")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            reason = err.strerror if isinstance(err, OSError) else "not UTF-8 text"
            raise AvsError(f"the definition names the exlist {path}: {reason}") from None
        for line in text.splitlines():
            line = line.strip()
            include = EXIST_DIRECTIVE.fullmatch(line)
            if include:
                add(Path(path.parent, include.group(1)), (*asked, real))
                continue
            line = re.sub(r"\s*#.*", "", line)
            if line.startswith("+"):
                included.append(line[1:].strip())
            elif line:
                excluded.append(line.lstrip("-").strip())

    for path in paths:
        add(path, ())
    return excluded, included


def select(paths: Sequence[str], excluded: Sequence[str], included: Sequence[str]) -> list[str]:
    """The paths, relative to the top of the image, that an exlist leaves in."""
    out, keep = _matcher(excluded), _matcher(included)
    return [path for path in paths if not out("./" + path) or keep("./" + path)]


def prune(root: Path, excluded: Sequence[str], included: Sequence[str]) -> int:
    """Remove from a disposable tree what an exlist leaves out; returns how many paths."""
    if not excluded:
        return 0
    out, keep = _matcher(excluded), _matcher(included)
    paths = [path for path, _ in manifest.walk(str(root))]
    kept: set[str] = set()
    removed = 0
    with Descent(str(root)) as tree:
        for path in sorted(paths, reverse=True):  # what is in a directory before the directory
            name = "./" + path
            if path in kept or not out(name) or keep(name):
                kept.add(os.path.dirname(path))
                continue
            removed += 1
            directory, last = tree.parent(path)
            if stat.S_ISDIR(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode):
                os.rmdir(last, dir_fd=directory)
            else:
                os.unlink(last, dir_fd=directory)
    return removed


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path matches any pattern, as find -path has it: by the C library's own fnmatch."""
    encoded = [os.fsencode(pattern) for pattern in patterns]

    def matches(path: str) -> bool:
        name = os.fsencode(path)
        return any(_libc.fnmatch(pattern, name, 0) == 0 for pattern in encoded)

    return matches


def write(root: Path, archive: Path, form: Form, log: Path, timeout: float = 0, onto: bool = False) -> None:
    """Archive the whole tree at root; the same tree gives the same bytes.

    onto: it will be unpacked onto what is there: each directory after what is in it, so that it keeps its time.
    Raises AvsError if a program of the pipe fails, or for a file that the form cannot hold.
    """
    paths = ["."]
    for path, status in manifest.walk(str(root)):
        if form.method == "cpio" and stat.S_ISREG(status.st_mode) and status.st_size > CPIO_LIMIT:
            raise AvsError(f"{path} is larger than 4 GiB, which cpio cannot hold; take --method tar or squashfs")
        if len(os.fsencode(path)) > manifest.LONGEST:
            raise AvsError(
                f"{path[:60]!a}... is longer than {manifest.LONGEST} bytes, which no archive can hold; "
                "have an exlist leave it out, or remove it from the image"
            )
        paths.append(path)
    paths.sort(reverse=onto)
    if form.method == "squashfs":
        options = ["-noappend", "-no-progress", "-comp", form.compress, "-mkfs-time", SOURCE_DATE_EPOCH]
        command.run(["mksquashfs", str(root), str(archive), *options], log=log, timeout=timeout)
    else:
        with tempfile.NamedTemporaryFile(dir=log.parent, prefix="names.") as names:
            names.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
            names.flush()
            if form.method == "cpio":
                packer = ["cpio", "--quiet", "-o", "-H", "newc", "--null", "--reproducible"]
                command.pipe(
                    [packer, form.compressor()],
                    stdin=Path(names.name),
                    stdout=archive,
                    cwd=root,
                    log=log,
                    timeout=timeout,
                )
            else:
                packer = ["tar", "--create", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
                          "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--no-recursion", "--null", "--verbatim-files-from",
                          f"--files-from={names.name}"]  # fmt: skip
                command.pipe([packer, form.compressor()], stdout=archive, cwd=root, log=log, timeout=timeout)
    check_complete(archive, form, paths, log, timeout)


def check_complete(archive: Path, form: Form, paths: Sequence[str], log: Path, timeout: float) -> None:
    """Read the archive to its end and compare its list with what was to be in it."""
    listing = log.with_name(f"{log.name}.list")
    try:
        if form.method == "squashfs":
            output = command.capture(["unsquashfs", "-l", "-d", "", str(archive)], timeout=timeout).stdout
            found = Counter(_lines(os.fsdecode(output)))
            found["."] += 1
        else:
            lister = (
                ["cpio", "--quiet", "-t"]
                if form.method == "cpio"
                else ["tar", "--list", "--quoting-style=literal", "--show-transformed-names"]
            )
            command.pipe([form.decompressor(), lister], stdin=archive, stdout=listing, log=log, timeout=timeout)
            found = Counter(_lines(os.fsdecode(listing.read_bytes())))
    finally:
        listing.unlink(missing_ok=True)
    # A name may hold new lines, and a list is lines: each path is some of them.
    found.subtract(line for path in paths for line in _lines(path))
    missing = [path for path in paths if any(found[line] < 0 for line in _lines(path))]
    if missing:
        raise AvsError(f"the archive lacks {len(missing)} of {len(paths)} paths:", missing[:10])


def _lines(text: str) -> list[str]:
    """The lines of a list of paths, or of one path, in the same form."""
    return [line.removeprefix("./").strip("/") or "." for line in text.split("\n") if line]
