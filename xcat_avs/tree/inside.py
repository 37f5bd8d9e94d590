"""Resolve paths in an image, whose links must not lead to the host."""

from __future__ import annotations

import os
from pathlib import Path

from xcat_avs.errors import AvsError

LINKS = 40  # as many as the kernel follows


def inside(root: Path, path: str, follow: bool = False) -> Path:
    """The host's path of a path in the image at root. Links are resolved within the image, never on the host.

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
