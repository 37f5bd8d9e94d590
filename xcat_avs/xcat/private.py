"""Take xCAT's locks, and mount our own directories over xCAT's for the programs that we run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.system import mounts

LOCK_DIRECTORY = Path("/var/lock/xcat")
SHARED_LOCK_WAIT = 60.0  # seconds


@contextmanager
def image_lock(rootimgdir: Path, pid: int) -> Iterator[None]:
    """Hold the lock that genimage, packimage and rmimage take for an image directory.

    pid: they name it to their users as the holder. While the directory does not exist, xCAT locks a file without a
    name, the same for all images and for a short time: we wait for that one, and take it shared.
    """
    real = os.path.realpath(rootimgdir / "rootimg")
    with ExitStack() as stack:
        if not os.path.isdir(os.path.dirname(real)):
            deadline = time.monotonic() + SHARED_LOCK_WAIT
            stack.enter_context(_lock("", fcntl.LOCK_SH, rootimgdir, pid, deadline))
        stack.enter_context(_lock(real, fcntl.LOCK_EX, rootimgdir, pid))
        yield


@contextmanager
def _lock(real: str, kind: int, rootimgdir: Path, pid: int, deadline: float = 0) -> Iterator[None]:
    """Hold one lock file of xCAT. Its name is made of the resolved path of the root image."""
    name = real.replace("/", ".") + "." + hashlib.md5(real.encode()).hexdigest()
    LOCK_DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(LOCK_DIRECTORY / name, "a+", encoding="ascii", errors="replace") as stream:
        while True:
            try:
                fcntl.flock(stream, kind | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                stream.seek(0)
                holder = stream.read(40).strip() or "unknown"
                where = rootimgdir if real else f"an image directory that is new, as {rootimgdir} is,"
                raise AvsError(
                    f"genimage, packimage or rmimage is at work on {where} (process {holder}); wait until it is done"
                ) from None
        stream.truncate(0)
        stream.write(str(pid))
        stream.flush()
        yield


@contextmanager
def seen_at(private: Path, public: Path, work: Path) -> Iterator[None]:
    """Mount a private directory where xCAT writes, for this process and its children only.

    An overlay over the parent directory takes the mount point, so that nothing is created there and no link in it
    changes while xCAT writes. work: a private directory for the data of the overlay.
    """
    above = public.parent
    while not above.is_dir():
        above = above.parent
    real = Path(os.path.realpath(above))
    point = real / public.relative_to(above)
    with ExitStack() as stack:
        work.mkdir(parents=True, mode=0o700)
        stack.enter_context(mounts.mounted("tmpfs", work, "tmpfs", 0, "mode=700"))
        for name in ("upper", "work"):
            (work / name).mkdir(mode=0o755)
        options = f"lowerdir={real},upperdir={work}/upper,workdir={work}/work"
        stack.enter_context(mounts.mounted("overlay", real, "overlay", 0, options))
        if point.is_symlink():
            point.unlink()
        point.mkdir(parents=True, exist_ok=True, mode=0o755)
        stack.enter_context(mounts.bind(private, point))
        yield


@contextmanager
def private_locks(work: Path) -> Iterator[None]:
    """Mount a private directory over xCAT's locks for genimage or packimage, since we hold its lock, or need none."""
    LOCK_DIRECTORY.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with mounts.bind(work, LOCK_DIRECTORY):
        yield
