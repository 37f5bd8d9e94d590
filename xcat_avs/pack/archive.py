"""Root image archives: what goes in, in which form, and whether all of it is there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xcat_avs import command, manifest
from xcat_avs.errors import AvsError
from xcat_avs.generate import SOURCE_DATE_EPOCH
from xcat_avs.scratch import own_directory

CPIO_LIMIT = 2**32 - 1  # bytes of a file in the newc form
SUFFIXES = {"gzip": "gz", "zstd": "zst", "xz": "xz"}
# All archives xCAT's initrd could pick, in its order; a published set holds just one.
MARK = "rootimg."


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
        # Of the checks of xz a kernel that unpacks its initramfs knows only this one.
        return {"zstd": ["zstd", "-q", "-3", "-T0", "-c"], "xz": ["xz", "-6", "-T0", "--check=crc32", "-c"]}[
            self.compress
        ]

    def decompressor(self) -> list[str]:
        return [self.compressor()[0], "-d", "-c"]

    def programs(self) -> tuple[str, ...]:
        """The programs that this form needs."""
        if self.method == "squashfs":
            return ("mksquashfs", "unsquashfs")
        return (self.method, self.compressor()[0])


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
        with own_directory(log.parent, "names.") as directory:
            names = directory / "names"
            names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
            if form.method == "cpio":
                packer = ["cpio", "--quiet", "-o", "-H", "newc", "--null", "--reproducible"]
                command.pipe(
                    [packer, form.compressor()],
                    stdin=names,
                    stdout=archive,
                    cwd=root,
                    log=log,
                    timeout=timeout,
                )
            else:
                packer = ["tar", "--create", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
                          "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--no-recursion", "--null", "--verbatim-files-from",
                          f"--files-from={names}"]  # fmt: skip
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
