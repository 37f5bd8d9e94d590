"""Private directories of one run; the next run removes those that killed runs have left."""

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
    """Yield a new directory PREFIX* in parent, for root only, and remove it at the end of the block.

    The run holds a file lock on it, by which others see that the run lives. Nothing may be mounted over it.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        with _locked(parent):
            _sweep(parent, prefix)
            directory = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            stack.enter_context(_locked(directory))
            stack.callback(mounts.remove_tree, directory)  # removed before the lock is released
        yield directory


@contextmanager
def made_whole(path: Path, mark: str) -> Iterator[Path]:
    """Yield a directory that becomes path at the end of the block, in one rename, so that nobody sees half of it.

    mark: a file in it, by which one that another run has made meanwhile is known; that one stays.
    """
    with own_directory(path.parent, f".{path.name}.new.") as temporary:
        yield temporary
        try:
            os.rename(temporary, path)
        except OSError:
            if not (path / mark).exists():
                raise


def sweep(parent: Path, prefix: str) -> None:
    """Remove the directories PREFIX* in parent whose run is gone."""
    if parent.is_dir():
        with _locked(parent):
            _sweep(parent, prefix)


def left(parent: Path, prefix: str) -> list[Path]:
    """Those directories, which the next sweep removes."""
    names = sorted(os.listdir(parent)) if parent.is_dir() else []
    return [parent / name for name in names if name.startswith(prefix) and not _lives(parent / name)]


def _sweep(parent: Path, prefix: str) -> None:
    for path in left(parent, prefix):
        mounts.remove_tree(path)


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
