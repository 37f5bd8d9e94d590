"""Paths in an image, which has links of its own."""

from __future__ import annotations

import os
from pathlib import Path

from xcat_avs.errors import AvsError

DEPTH = 1000


def inside(root: Path, path: str, follow: bool = False) -> Path:
    """A path of the image at root as the host sees it: its links lead within the image, never to the host.

    follow: go through the last part as well, where it is a link. Raises AvsError for a circle of links.
    """
    current = root
    pending = [part for part in path.split("/") if part not in ("", ".")]
    for _ in range(DEPTH):
        if not pending:
            return current
        part = pending.pop(0)
        if part == "..":
            current = current if current == root else current.parent
            continue
        step = current / part
        if step.is_symlink() and (pending or follow):
            target = os.readlink(step)
            if target.startswith("/"):
                current = root
            pending = [item for item in target.split("/") if item not in ("", ".")] + pending
            continue
        current = step
    raise AvsError(f"{path}: too many symbolic links in the image")
