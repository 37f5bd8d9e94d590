"""How much memory a node needs that boots a set, by the form of its archive."""

from __future__ import annotations

from collections.abc import Iterable

PAGE = 4096  # bytes; what a file in memory takes is a multiple of it
NAMED = 1024  # bytes that the kernel keeps of each path
BASE = 256 << 20  # bytes for the kernel, its tables and the programs that run
WRITTEN = 64 << 20  # bytes for what a node writes over a root that is read-only
STEP = 64  # MiB; figures are multiples of it


def unpacked(sizes: Iterable[int]) -> int:
    """The bytes that a tree takes in a file system in memory. sizes: of its files, 0 of any other path."""
    return sum(-(-size // PAGE) * PAGE + NAMED for size in sizes)


def needed(method: str, archive: int, tree: int, initrd: int = 0) -> int:
    """The memory in MiB that a node needs for a set.

    method: cpio, tar or squashfs. archive, initrd: bytes of these files; tree: what the unpacked tree takes.
    """
    if method == "squashfs":  # it stays packed, and only what is written is beside it
        total = archive + WRITTEN + 4 * initrd
    else:
        # While it is unpacked both are there, and a file system in memory takes no more than half of all memory.
        total = max(archive + tree + 4 * initrd, 2 * tree)
    return -(-(total + BASE) // (STEP << 20)) * STEP
