"""Root image archives: what goes in, in which form, and whether all of it is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.definitions import exlist
from xcat_avs.errors import AvsError
from xcat_avs.system import command
from xcat_avs.system.descent import Descent
from xcat_avs.system.runner import Runner
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry

MKFS_TIME = "1000000000"  # seconds; any time does that is always the same
CPIO_LIMIT = 2**32 - 1  # bytes of a file in the newc form
SUFFIXES = {"gzip": "gz", "zstd": "zst", "xz": "xz"}
# ACLs are extended attributes as well; with --acls they stand there once more, by the names that this machine has for users.
# In the later forms of sparse files stands the number of tar's process.
SPARSE = ("--sparse", "--sparse-version=0.0", "--hole-detection=raw")
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
        """The fastest program for the compression that is installed; its output does not change from run to run.

        With a single thread xz and zstd may make other bytes than with more of them, whose number makes no difference.
        """
        threads = str(max(2, os.cpu_count() or 1))
        if self.compress == "gzip":
            for argv in (["igzip", "-3", "-n", "-c"], ["pigz", "-n", "-c"]):
                if command.find(argv[0]):
                    return argv
            return ["gzip", "-n", "-c"]
        # Of the checks of xz a kernel that unpacks its initramfs knows only this one.
        return {
            "zstd": ["zstd", "-q", "-3", f"-T{threads}", "-c"], "xz": ["xz", "-6", f"-T{threads}", "--check=crc32", "-c"],
        }[self.compress]  # fmt: skip

    def decompressor(self) -> list[str]:
        return [self.compressor()[0], "-d", "-c"]

    def programs(self) -> tuple[str, ...]:
        """The programs that this form needs."""
        if self.method == "squashfs":
            return ("mksquashfs", "unsquashfs")
        return (self.method, self.compressor()[0])

    def versions(self, runner: Runner) -> dict[str, str]:
        """The programs that write this form -> what they say of their version: others make other bytes of the same."""
        names = self.programs()[:1] if self.method == "squashfs" else self.programs()
        found = {}
        for name in names:
            said = runner.capture([name, "-version" if name == "mksquashfs" else "--version"], check=False)
            lines = [line.strip() for line in f"{said.text}\n{said.stderr}".split("\n") if line.strip()]
            found[name] = lines[0] if lines else ""
        return found


def refuse_large(form: Form, entries: Iterable[Entry]) -> None:
    """Refuse a path that the form cannot hold, before anything is written."""
    for entry in entries:
        if len(os.fsencode(entry.path)) > manifest.LONGEST:
            raise AvsError(
                f"{entry.path[:60]!a}... is longer than {manifest.LONGEST} bytes, which no archive can hold; "
                "have an exlist leave it out, or remove it from the image"
            )
        if form.method == "cpio" and entry.size > CPIO_LIMIT:
            raise AvsError(f"{entry.path} is larger than 4 GiB, which cpio cannot hold; take --method tar or squashfs")


def prune(root: Path, excluded: Sequence[str], included: Sequence[str]) -> int:
    """Remove from a disposable tree what an exlist leaves out; returns how many paths."""
    if not excluded:
        return 0
    paths = [path for path, _ in scan.walk(str(root))]
    left_out = set(paths) - exlist.with_parents(exlist.select(paths, excluded, included))
    with Descent(str(root)) as tree:
        for path in sorted(left_out, reverse=True):  # entries come before their directory
            directory, last = tree.parent(path)
            if stat.S_ISDIR(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode):
                os.rmdir(last, dir_fd=directory)
            else:
                os.unlink(last, dir_fd=directory)
    return len(left_out)


def write(root: Path, archive: Path, form: Form, runner: Runner, onto: bool = False, total: int = 0) -> None:
    """Archive the whole tree at root; the same tree gives the same bytes. What is in it then is for proof.prove to say.

    onto: it will be unpacked onto what is there: each directory after what is in it, so that it keeps its time.
    total: bytes of the files, for the progress. Raises AvsError if a program of the pipe fails.
    """
    if form.method == "squashfs":
        options = ["-noappend", "-no-progress", "-comp", form.compress, "-mkfs-time", MKFS_TIME]
        runner.sized(total).run(["mksquashfs", str(root), str(archive), *options])
        return
    paths = sorted([".", *(path for path, _ in scan.walk(str(root)))], reverse=onto)
    with own_directory(runner.directory, "names.") as directory:
        names = directory / "names"
        names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
        if form.method == "cpio":
            packer = ["cpio", "--quiet", "-o", "-H", "newc", "--null", "--reproducible"]
        else:
            packer = ["tar", "--create", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
                      "--numeric-owner", "--xattrs", "--xattrs-include=*", *SPARSE, "--no-recursion",
                      "--null", "--verbatim-files-from", f"--files-from={names}"]  # fmt: skip
        stdin = names if form.method == "cpio" else None
        runner.sized(total, program=packer[0]).pipe([packer, form.compressor()], stdin=stdin, stdout=archive, cwd=root)
