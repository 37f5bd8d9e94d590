"""One at a time: locks that the kernel frees however their holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xcat_avs.errors import AvsError

LIST = Path("/proc/locks")  # what all processes hold


class Busy(AvsError):
    """Another process holds the lock."""


def holders(directory: Path) -> dict[str, str]:
    """Name of a lock file that is held -> what its holder says of himself.

    The kernel's list is read: to try a lock would keep out whoever takes it at that moment.
    """
    try:
        taken = {line.split()[5].rpartition(":")[2] for line in LIST.read_text().splitlines() if " FLOCK " in line}
        files = [(entry.name, str(entry.inode()), Path(entry.path)) for entry in os.scandir(directory)]
    except OSError:
        return {}
    texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, inode, path in files if inode in taken}
    return {name: text for name, text in sorted(texts.items()) if text}


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
