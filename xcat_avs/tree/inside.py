"""Paths in an image, which has links of its own."""

from __future__ import annotations

import os
from pathlib import Path

from xcat_avs.errors import AvsError

LINKS = 40  # as the kernel has it


def inside(root: Path, path: str, follow: bool = False) -> Path:
    """A path of the image at root as the host sees it: its links lead within the image, never to the host.

    follow: go through the last part as well, where it is a link. Raises AvsError for a circle of links.
    """
    current, links = root, 0
    pending = _parts(path)
    while pending:
        part = pending.pop()
        if part == "..":
            current = current if current == root else current.parent
            continue
        step = current / part
        if step.is_symlink() and (pending or follow):
            links += 1
            if links > LINKS:
                raise AvsError(f"{path}: too many symbolic links in the image")
            target = os.readlink(step)
            if target.startswith("/"):
                current = root
            pending += _parts(target)
            continue
        current = step
    return current


def _parts(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
