"""Directories for one use by one run; what runs that were killed have left goes with the next one."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xcat_avs.system import mounts


@contextmanager
def own_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """A new directory PREFIX* in parent, for root only, that is removed at the end of the block.

    The run holds a lock of the kernel's on it, so that others see that it lives. Nothing may be mounted over it.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        with _locked(parent):
            _sweep(parent, prefix)
            directory = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            stack.enter_context(_locked(directory))
            stack.callback(mounts.remove_tree, directory)  # before the lock goes, or a sweep would do the same
        yield directory


def sweep(parent: Path, prefix: str) -> None:
    """Remove what is in parent, begins with prefix, and is of no run that lives."""
    if parent.is_dir():
        with _locked(parent):
            _sweep(parent, prefix)


def _sweep(parent: Path, prefix: str) -> None:
    for name in os.listdir(parent):
        if name.startswith(prefix) and not _lives(parent / name):
            mounts.remove_tree(parent / name)


def _lives(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Wait for the lock on a directory and hold it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
