"""Root image archives: what goes in, in which form, and whether all of it is there."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from xcat_avs import command, manifest
from xcat_avs.errors import AvsError
from xcat_avs.generate import SOURCE_DATE_EPOCH
from xcat_avs.manifest import Entry

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


def with_parents(paths: Iterable[str]) -> set[str]:
    """The paths, and the directories that lead to them."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = os.path.dirname(path)
    return found


def prune(root: Path, excluded: Sequence[str], included: Sequence[str]) -> int:
    """Remove from a disposable tree what an exlist leaves out; returns how many paths."""
    if not excluded:
        return 0
    paths = [path for path, _ in manifest.walk(str(root))]
    left_out = set(paths) - with_parents(select(paths, excluded, included))
    for path in sorted(left_out, reverse=True):  # what is in a directory before the directory
        full = root / path
        if full.is_dir() and not full.is_symlink():
            full.rmdir()
        else:
            full.unlink()
    return len(left_out)


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path matches any pattern, as find -path has it: by the C library's own fnmatch."""
    encoded = [os.fsencode(pattern) for pattern in patterns]

    def matches(path: str) -> bool:
        name = os.fsencode(path)
        return any(_libc.fnmatch(pattern, name, 0) == 0 for pattern in encoded)

    return matches


def refuse_large(form: Form, entries: Iterable[Entry]) -> None:
    """Refuse a file that the form cannot hold, before anything is written."""
    for entry in entries:
        if form.method == "cpio" and entry.size > CPIO_LIMIT:
            raise AvsError(f"{entry.path} is larger than 4 GiB, which cpio cannot hold; take --method tar or squashfs")


def write(root: Path, archive: Path, form: Form, log: Path, timeout: float = 0, onto: bool = False) -> None:
    """Archive the whole tree at root; the same tree gives the same bytes. What is in it then is for proof.prove to say.

    onto: it will be unpacked onto what is there: each directory after what is in it, so that it keeps its time.
    Raises AvsError if a program of the pipe fails.
    """
    if form.method == "squashfs":
        options = ["-noappend", "-no-progress", "-comp", form.compress, "-mkfs-time", SOURCE_DATE_EPOCH]
        command.run(["mksquashfs", str(root), str(archive), *options], log=log, timeout=timeout)
        return
    paths = sorted([".", *(path for path, _ in manifest.walk(str(root)))], reverse=onto)
    with tempfile.NamedTemporaryFile(dir=log.parent, prefix="names.") as names:
        names.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
        names.flush()
        if form.method == "cpio":
            packer = ["cpio", "--quiet", "-o", "-H", "newc", "--null", "--reproducible"]
        else:
            packer = ["tar", "--create", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
                      "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--hole-detection=raw", "--no-recursion",
                      "--null", "--verbatim-files-from", f"--files-from={names.name}"]  # fmt: skip
        stdin = Path(names.name) if form.method == "cpio" else None
        command.pipe([packer, form.compressor()], stdin=stdin, stdout=archive, cwd=root, log=log, timeout=timeout)
