"""A version checked out into a directory of the user's: whole and proven, or nothing of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.store.protocol import Store, Version
from xcat_avs.store.trees import Warn, checkout_tree
from xcat_avs.system import mounts
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree.inside import ROOT
from xcat_avs.tree.manifest import Manifest

UNDONE = (
    ".avs-checkout."  # prefix of the directory with what is not proven yet; a killed run leaves it, the next removes it
)
SHOWN = 3  # names that an error lists


def hand_out(store: Store, image: OsImage, version: Version, directory: Path, warn: Warn) -> Manifest:
    """Check a version out into a directory that is empty, or not there yet; returns the manifest.

    Until it is proven it lies in one directory there, whose name says that it is not done; its rootimg comes out of that
    last. The user's directory keeps its owner and mode; a new one is root's alone, for the tree holds secrets and
    setuid programs. Raises AvsError, and then the directory is as it was.
    """
    real = Path(os.path.realpath(directory))
    made = _empty(real, directory)
    try:
        with own_directory(real, UNDONE) as own:
            if os.listdir(real) != [own.name]:
                raise AvsError(
                    f"another checkout into {directory} is running, or has just ended there; nothing was changed"
                )
            found = checkout_tree(store, image, version, own / "tree", warn)
            _move(own / "tree", real)
    except BaseException:
        if made:
            with suppress(OSError):
                real.rmdir()
        raise
    return found


def _empty(real: Path, directory: Path) -> bool:
    """Have an empty directory; returns whether it was made. Raises AvsError that says what to do."""
    advice = "; give a directory that is empty or not there yet"
    if not os.path.lexists(real):
        if not real.parent.is_dir():
            raise AvsError(
                f"{directory} cannot be made: there is no directory {real.parent}; `mkdir -p {real.parent}` makes it"
            )
        real.mkdir(mode=0o700)
        return True
    if not real.is_dir():
        raise AvsError(f"{directory} is no directory{advice}")
    there = sorted(name for name in os.listdir(real) if not name.startswith(UNDONE))
    if there:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        raise AvsError(f"{directory} is not empty: it holds {', '.join(there[:SHOWN])}{more}{advice}")
    return False


def _move(tree: Path, directory: Path) -> None:
    """Move what a tree holds into a directory, rootimg last; all or nothing, but for SIGKILL."""
    names = sorted(os.listdir(tree), key=lambda name: (name == ROOT, name))
    try:
        for name in names:
            os.rename(tree / name, directory / name)
    except BaseException:
        for name in names:
            mounts.remove_tree(directory / name)
        raise
