"""What programs expect of the machine around them when they run in an image."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.system.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, mounted

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
POINTS = ("proc", "sys", "dev", "run")  # what chroot_mounts covers
ENDING = 5.0  # seconds for killed processes to be gone


def _end_processes_below(root: Path) -> None:
    """Kill daemons that scripts of packages started in the image; its mounts would stay busy."""
    deadline = time.monotonic() + ENDING
    while time.monotonic() < deadline:
        left = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(proc / "root") == str(root):
                    left.append(int(proc.name))
                    os.kill(left[-1], signal.SIGKILL)
            except OSError:
                continue
        if not left:
            return
        time.sleep(0.02)


@contextmanager
def chroot_mounts(root: Path) -> Iterator[None]:
    """Mount what programs expect in an image root for the block: /proc, /sys, a small /dev, an empty /run.

    The host's /dev and /run are not visible in it, and /sys is read-only. Nothing of the mounts stays in the tree
    except the mode and owner that a package gives to one of the four directories.
    """
    real = Path(os.path.realpath(root))
    with ExitStack() as stack:
        for name in POINTS:
            point = real / name
            if point.is_symlink():
                raise AvsError(f"{point} is a symbolic link; an image needs a directory there")
            if not point.exists():
                point.mkdir(mode=0o755)
                stack.callback(point.rmdir)
        stack.enter_context(_covered(real / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC))
        # The package that owns /sys sets its mode, so /sys is a tmpfs, and the host's entries are bound into it.
        sys = stack.enter_context(_covered(real / "sys", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC))
        for path in sorted(Path("/sys").iterdir()):
            if path.is_dir() and not path.is_symlink():
                (sys / path.name).mkdir()
                stack.enter_context(bind(path, sys / path.name, readonly=True))
        stack.enter_context(_covered(real / "run", "tmpfs", MS_NOSUID | MS_NODEV))
        _fill_dev(stack.enter_context(_covered(real / "dev", "tmpfs", MS_NOSUID)))
        stack.callback(_end_processes_below, real)
        yield


@contextmanager
def _covered(point: Path, fstype: str, flags: int) -> Iterator[Path]:
    """Mount over a directory with its mode and owner; a change of these is copied back to the directory."""
    status = point.stat()
    with mounted(fstype, point, fstype, flags):
        _set_rights(point, status)
        yield point
        status = point.stat()
    _set_rights(point, status)


def _set_rights(path: Path, status: os.stat_result) -> None:
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))


def _fill_dev(dev: Path) -> None:
    for name, (major, minor) in DEVICES.items():
        os.mknod(dev / name, 0o20666, os.makedev(major, minor))
        os.chmod(dev / name, 0o666)
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(to, dev / name)
    for name in ("shm", "pts"):
        (dev / name).mkdir()
