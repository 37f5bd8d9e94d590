"""The kernel modules of an image: for which kernel they have to be, and whether they are there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from xcat_avs import generate
from xcat_avs.errors import AvsError
from xcat_avs.inside import inside

MODULE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?")


def kernel(root: Path, wanted: str = "") -> str:
    """The release that nodes boot: the wanted one, else the newest that has modules. Never that of this machine.

    Raises AvsError where the image has no modules of it.
    """
    directory = inside(root, "lib/modules", follow=True)
    found = sorted((path.name for path in directory.glob("*") if path.is_dir()), key=generate.version_key)
    # A directory without a kernel is left of one that was removed, or was made by what is to be looked at.
    whole = [name for name in generate.kernels(root) if name in found]
    names = [name for name in found if name == wanted] if wanted else whole or found
    if not names:
        there = ", ".join(found) or "none"
        raise AvsError(f"the image has no modules of kernel {wanted or 'at all'} in lib/modules; there is {there}")
    return names[-1]


def missing(root: Path, release: str, names: Sequence[str]) -> list[str]:
    """Which of the modules are not there for a kernel, by their files; `-` and `_` are the same in a name."""
    present = set()
    for _, _, files in os.walk(inside(root, f"lib/modules/{release}", follow=True)):
        matches = (MODULE.fullmatch(file) for file in files)
        present |= {match.group(1).replace("-", "_") for match in matches if match}
    return [name for name in names if name.replace("-", "_") not in present]
