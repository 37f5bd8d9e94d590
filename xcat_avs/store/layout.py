"""The types that the top of a version may have, since root copies files out of it and writes into it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from xcat_avs.errors import AvsError
from xcat_avs.tree.manifest import Entry

# path -> the types that it may have. avs_image_mgr stored build_info as a plain file, and add-ons in its own form.
RULES = (
    (re.compile(r"kernel|initrd[^/]*|addons/[^/]+/(?:removed|packages)", re.DOTALL), ("file",)),
    (re.compile(r"rootimg|addons|addons/[^/]+/rootimg", re.DOTALL), ("dir",)),
    (re.compile(r"build_info(?:/.*)?|addons/[^/]+", re.DOTALL), ("file", "dir")),
)
WORDS = {"file": "a regular file", "dir": "a directory", "char": "a device", "block": "a device", "fifo": "a FIFO"}


def check(found: Mapping[str, Entry], what: str) -> None:
    """Raise AvsError, beginning with `what`, where a file or directory that root uses is of another type.

    Inside the image links, devices and FIFOs are allowed. The kernel that nodes load and the directories that a pack
    writes into must be what they seem, or root would read or write elsewhere on this machine.
    """
    for path, entry in found.items():
        if path.startswith("rootimg/"):
            continue
        types = next((types for pattern, types in RULES if pattern.fullmatch(path)), None)
        if types is not None and entry.type not in types:
            wanted = " or ".join(WORDS[kind] for kind in types)
            is_one = f"a link to {entry.link!a}" if entry.type == "link" else WORDS.get(entry.type, f"a {entry.type}")
            raise AvsError(f"{what}: {path!a} is {is_one}, and has to be {wanted}; put that itself there")
