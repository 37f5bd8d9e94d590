"""What a version has to be at its top, where root copies files out of it and writes into it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from xcat_avs.errors import AvsError
from xcat_avs.tree.manifest import Entry

# A whole path -> the types that it may have. avs_image_mgr stored a plain file build_info, and add-ons of its own form.
RULES = (
    (re.compile(r"kernel|initrd[^/]*|addons/[^/]+/(?:removed|packages)", re.DOTALL), ("file",)),
    (re.compile(r"rootimg|addons|addons/[^/]+/rootimg", re.DOTALL), ("dir",)),
    (re.compile(r"build_info(?:/.*)?|addons/[^/]+", re.DOTALL), ("file", "dir")),
)
WORDS = {"file": "a regular file", "dir": "a directory", "char": "a device", "block": "a device", "fifo": "a FIFO"}


def check(found: Mapping[str, Entry], what: str) -> None:
    """Raise AvsError, which begins with what, where a part of a version would lead root to something else.

    Links, devices and FIFOs are an image's own affair; the kernel that nodes load, and the directories that packing
    writes into, are not.
    """
    for path, entry in found.items():
        if path.startswith("rootimg/"):
            continue
        types = next((types for pattern, types in RULES if pattern.fullmatch(path)), None)
        if types is not None and entry.type not in types:
            wanted = " or ".join(WORDS[kind] for kind in types)
            is_one = f"a link to {entry.link!a}" if entry.type == "link" else WORDS.get(entry.type, f"a {entry.type}")
            raise AvsError(f"{what}: {path!a} is {is_one}, and has to be {wanted}; put that itself there")
