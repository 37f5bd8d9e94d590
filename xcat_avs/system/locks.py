"""One at a time: locks that the kernel frees however their holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xcat_avs.errors import AvsError


class Busy(AvsError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str, holder: str) -> Iterator[None]:
    """Hold the lock file for a block. holder: who this is, for the one who comes second.

    Raises Busy `WHAT by HOLDER` at once if another holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.pread(descriptor, 4096, 0).decode("utf-8", "replace").strip()
            raise Busy(f"{what} {other or 'another process'}; wait until it is done") from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode("utf-8", "replace"), 0)
        except OSError as err:
            raise AvsError(f"cannot write {path}: {err.strerror}") from None
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
