"""One at a time: locks that the kernel frees however their holder ends."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Callable, Optional

from xcat_avs.errors import AvsError
from xcat_avs.system import records

PAUSES = (0.01, 0.05)  # seconds; a look at who holds a lock takes it as well, for less than that
PLAIN = (
    os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
)  # a link is not followed, and nothing waits for the other end of a FIFO
MOST = 4096  # bytes of a note
# What is known of a lock on a file server whose holder is not this machine.
ELSEWHERE = (
    "that is another machine than this one: should it be gone, the file server frees the lock by itself, with NFS 4 when the "
    "lease is over (as a rule 90 s), with NFS 3 when that machine is up again"
)
Tell = Callable[[str], None]

LIST = Path("/proc/locks")  # what all processes hold


class Busy(AvsError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, since when, and what that process does now, since when. Dates: UTC, ISO 8601."""

    user: str
    pid: int
    host: str
    since: str
    doing: str = ""
    doing_since: str = ""

    def __str__(self) -> str:
        who = f"{self.user} (process {self.pid} on {self.host}, since {self.since})"
        return f"{who}, now at {self.doing}, since {self.doing_since}" if self.doing else who


@contextmanager
def locked(path: Path, what: str, holder: Holder, passing: bool = False) -> Iterator[Tell]:
    """Hold the lock file for a block; yields what notes there, for others, what is done now. holder: who this is.

    passing: the file is there only while it is held. Raises Busy `WHAT by HOLDER` at once if another holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = _taken(path, what, holder)
    try:
        _note(descriptor, holder)
        yield lambda doing: _note(descriptor, replace(holder, doing=doing, doing_since=_now()))
    finally:
        with suppress(OSError):
            if passing:
                path.unlink()  # before the lock is free: who waits for it sees that the file is gone
            else:
                os.ftruncate(descriptor, 0)
        os.close(descriptor)


def holder(path: Path) -> Optional[Holder]:
    """Who holds a lock now; None where nobody does, or where it cannot be seen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted(descriptor) or Holder("somebody", 0, "?", "?")
    except OSError:
        return None  # a file system without locks; whoever needs one is told
    finally:
        os.close(descriptor)
    return None


def _taken(path: Path, what: str, own: Holder) -> int:
    """The lock file, open and locked."""
    pauses = [*PAUSES]
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | PLAIN, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _noted(descriptor)
            os.close(descriptor)
            if pauses:
                time.sleep(pauses.pop())
                continue
            far = f"; {ELSEWHERE}" if other and other.host != own.host else ""
            raise Busy(f"{what} {other or 'another process'}; wait until it is done{far}") from None
        except OSError as err:
            os.close(descriptor)
            raise AvsError(f"cannot lock {path}: {err.strerror}; its file system has to keep locks") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile


def _note(descriptor: int, own: Holder) -> None:
    """Write down who holds a lock. Where that fails it is held all the same; only nobody is told by whom."""
    data = (json.dumps(asdict(own)) + "\n").encode("ascii")
    with suppress(OSError):
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))


def _noted(descriptor: int) -> Optional[Holder]:
    """What is written there; its first line, for what follows may be of a longer note before it."""
    with suppress(OSError):
        return records.load(Holder, os.pread(descriptor, MOST, 0).partition(b"\n")[0])
    return None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
