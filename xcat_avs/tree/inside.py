"""Paths in an image: how people call them, and where its links lead, which must not be to the host."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from xcat_avs.errors import AvsError, nearest
from xcat_avs.tree.manifest import Entry

LINKS = 40  # as many as the kernel follows
ROOT = "rootimg"  # of a version: the directory with the image's files
ROOTS = re.compile(rf"(?:addons/[^/]+/)?{ROOT}(?=/|\Z)")  # what the links below mean by /


def shown(path: str) -> str:
    """A path of a version as people know it."""
    if path == ROOT:
        return "/"
    return path[len(ROOT) :] if path.startswith(ROOT + "/") else path


def stored(path: str) -> str:
    """A path of a version from what people call it."""
    whole = posixpath.normpath("/" + path.lstrip("/"))  # a `..` cannot lead above the top
    return (ROOT + whole).rstrip("/") if path.startswith("/") else whole[1:]


def followed(found: Mapping[str, Entry], path: str) -> str:
    """Where a path of a manifest leads when its links are followed, the last part as well. Raises AvsError for a circle."""
    root = ROOTS.match(path)
    if root is None:
        return path  # beside the image nothing that is read is a link
    current, links, pending = list[str](), 0, _parts(path[root.end() :])
    while pending:
        part = pending.pop()
        if part == "..":
            current = current[:-1]
            continue
        entry = found.get("/".join([root.group(), *current, part]))
        if entry is None or entry.type != "link":
            current.append(part)
            continue
        links += 1
        if links > LINKS:
            raise AvsError(f"{shown(path)}: too many symbolic links in the image")
        current = [] if entry.link.startswith("/") else current
        pending += _parts(entry.link)
    return "/".join([root.group(), *current])


def missing(found: Mapping[str, Entry], path: str) -> str:
    """What to say of a path that a manifest has not: where it ends, and the nearest names there."""
    if f"{ROOT}/{path}" in found:
        return f" (did you mean /{path}? What is in the image begins with /)"
    parts = path.split("/")
    number = next((count for count in range(len(parts)) if "/".join(parts[: count + 1]) not in found), 0)
    parent = "/".join(parts[:number])
    names = {name for above, _, name in (other.rpartition("/") for other in found) if above == parent}
    place = f": there is no {parts[number]!a} in {shown(parent)!a}" if parent else ""
    return place + nearest(parts[number], names)


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
