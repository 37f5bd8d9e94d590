"""Files that take the place of others whole or not at all, and are on disk then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Union


def write_atomic(path: Path, data: Union[str, bytes], mode: int = 0o644) -> None:
    """Write a file in place of what is there: whoever reads it finds the old one or the new one, also after a power cut.

    Several processes may write it at a time; the last one counts. Raises OSError; then the old one is there.
    """
    with replacing(path, f".{os.getpid()}") as new:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as stream:
            stream.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the block that name no file, as those of a write to a full disk, name this one."""
    try:
        yield
    except OSError as err:
        err.filename = str(path) if err.filename is None else err.filename
        raise


@contextmanager
def replacing(path: Path, mark: str = "") -> Iterator[Path]:
    """A name beside path for the file that takes its place at the end of the block; what an earlier run left is gone.

    mark: tells apart the names of those who write at the same time.
    """
    new = path.with_name(f".{path.name}{mark}.new")
    new.unlink(missing_ok=True)
    try:
        with naming(path):
            yield new
        sync(new)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
