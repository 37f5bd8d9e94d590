"""Private namespaces and mounts that are always undone."""

from __future__ import annotations

import os
import re
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Callable, Optional

from xcat_avs.errors import AvsError, Interrupted
from xcat_avs.system import descent, libc, suspend
from xcat_avs.system.octal import Octal

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
NAMES = Octal()  # as /proc/self/mounts writes them
SPECIAL = re.compile(r"[\\:,]")  # these separate the options of a mount, or the directories of an overlay
SPARE = 4  # at most one part in so many of the free memory is used
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_private = False  # whether this process is in a mount namespace of its own


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An error of the system as one that says what it kept us from."""
    try:
        yield
    except OSError as err:
        raise AvsError(f"{what}: {err.strerror}") from None


def _make_private() -> None:
    """Make all mounts of this namespace private, so that later ones do not propagate to the machine's own."""
    with suppress(OSError):
        return libc.mount("none", "/", "", MS_REC | MS_PRIVATE)
    # In a chroot "/" is no mount point, and the mount above it may be shared with the
    # machine: step out of the chroot, make that one private, and step back in.
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chroot("/usr")
        os.fchdir(root)
        for _ in range(64):
            os.chdir("..")
        with _told("cannot make the mounts of this process private"):
            libc.mount("none", ".", "", MS_REC | MS_PRIVATE)
    finally:
        os.fchdir(root)
        os.chroot(".")
        os.close(root)


def enter_private_namespace() -> Optional[int]:
    """Go on in a private mount and PID namespace, before any thread starts and any work is done.

    Returns None in the process that does the work. The calling process stays outside, hands
    signals on, and gets the exit code (128+n for a death by signal n) when the work is over.
    However the worker ends, SIGKILL included, the kernel ends all its processes and mounts.
    """
    cwd = os.getcwd()
    with _told("cannot make a private namespace (is this root, with CAP_SYS_ADMIN?)"):
        libc.unshare(CLONE_NEWNS | CLONE_NEWPID)
    parent, worker = os.getpid(), suspend.Worker()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if child == 0:
        libc.die_with_parent(signal.SIGKILL)
        # os.getppid() is always 0 in the new PID namespace; /proc still shows the old one.
        if not _parent_alive(parent):
            os._exit(1)
        _make_private()
        os.chdir(cwd)
        global _private
        _private = True
        with _told("cannot mount /proc"):
            libc.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        worker.inside()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return None

    def forward(signum: int, _frame: Optional[FrameType]) -> None:
        os.kill(child, signum)

    for signum in FORWARDED:
        signal.signal(signum, forward)
    worker.outside(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _parent_alive(pid: int) -> bool:
    proc = Path("/proc") / str(pid)
    return proc.exists() or not Path("/proc/self").exists()


@contextmanager
def mounted(source: str, target: Path, fstype: str, flags: int = 0, options: str = "") -> Iterator[Path]:
    """A mount for the length of a block. A busy one at its end is an error that names who is in it."""
    try:
        with _told(f"cannot mount {source} at {target}"):
            libc.mount(source, str(target), fstype, flags, options)
    except Interrupted:  # as soon as it was mounted
        with suppress(OSError):
            libc.unmount(target)
        raise
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # the error of the block is the one to report
            libc.unmount(target)
        raise
    try:
        libc.unmount(target)
    except OSError as err:
        raise AvsError(f"cannot unmount {target}: {err.strerror}{_users(target)}") from None


@contextmanager
def in_memory(target: Path, size: int) -> Iterator[None]:
    """Mount a tmpfs over the directory for the block: what is written there is in memory, and dropped at the end.

    size: bytes that will be written. Does nothing where memory is short or this process has no private namespace.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields.get("MemAvailable", "0").split()[0]) * 1024
    if not _private or size * SPARE > available:
        yield
        return
    with mounted("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,size={available // SPARE},nr_inodes=0"):
        yield


@contextmanager
def overlay(
    lower: Path, work: Path, name: str = "merged", settle: Optional[Callable[[Path], None]] = None
) -> Iterator[Path]:
    """Mount an overlay on lower, which itself stays unchanged; yields the path of the mount.

    work: a private directory, emptied first; its upper/ holds the changes as overlayfs keeps them, in memory where
    the file system of work cannot hold an upper directory. name: of the mount point in work.
    settle(upper): called after the overlay is unmounted, unless the block has failed.
    """
    remove_tree(work)
    work.mkdir(parents=True, mode=0o700)
    with ExitStack() as stack:
        with ExitStack() as inner:
            try:
                view = inner.enter_context(_overlaid(lower, work, name))
            except AvsError:
                stack.enter_context(mounted("tmpfs", work, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700"))
                view = inner.enter_context(_overlaid(lower, work, name))
            yield view
        if settle is not None:
            settle(work / "upper")


@contextmanager
def overlay_again(lower: Path, work: Path, name: str) -> Iterator[Path]:
    """The same overlay as a block that failed had it; an empty one where its changes were in memory."""
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _overlaid(lower, work, name) as view:
        yield view


@contextmanager
def _overlaid(lower: Path, work: Path, name: str) -> Iterator[Path]:
    status = lower.stat()
    for part in ("upper", "work", name):
        (work / part).mkdir(mode=0o700, exist_ok=True)
    os.chown(work / "upper", status.st_uid, status.st_gid)
    os.chmod(work / "upper", stat.S_IMODE(status.st_mode))
    os.utime(work / "upper", ns=(status.st_atime_ns, status.st_mtime_ns))
    places = {"lowerdir": lower, "upperdir": work / "upper", "workdir": work / "work"}
    options = [f"{key}={_quote(path)}" for key, path in places.items()]
    # With these off, upper/ has all of each changed path: no content or attribute is only in lower.
    options += ["redirect_dir=off", "metacopy=off", "index=off"]
    with mounted("overlay", work / name, "overlay", 0, ",".join(options)) as view:
        yield view


def _quote(path: Path) -> str:
    """Escape a path for the options of an overlay."""
    return SPECIAL.sub(r"\\\g<0>", str(path))


@contextmanager
def unmounted_after(target: Path) -> Iterator[None]:
    """What a program mounts at target in the block is unmounted at its end; also where a signal came before it was known."""
    try:
        yield
    finally:
        if mounts_below(target):
            unmount(target)


def unmount(target: Path) -> None:
    """Unmount what another program has mounted and left."""
    with _told(f"cannot unmount {target}{_users(target)}"):
        libc.unmount(target)


@contextmanager
def bind(source: Path, target: Path, readonly: bool = False) -> Iterator[Path]:
    """Bind source at target for the block."""
    with mounted(str(source), target, "", MS_BIND):
        if readonly:
            flags = MS_BIND | MS_REMOUNT | MS_RDONLY
            with _told(f"cannot make {target} read-only"):
                libc.mount("none", str(target), "", flags)
        yield target


def _users(target: Path) -> str:
    """The processes that keep a mount busy: their root, cwd or an open file is below it. For an error message."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        for link in [proc / "root", proc / "cwd", *proc.glob("fd/*")]:
            try:
                if os.readlink(link).startswith(str(target)):
                    found.append(f"{proc.name} ({(proc / 'comm').read_text().strip()})")
                    break
            except OSError:
                continue
    return f"; in use by process {', '.join(found)}" if found else ""


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below a directory, as this process sees them."""
    prefix = os.path.realpath(directory)
    found = []
    with open("/proc/self/mounts", "rb") as stream:
        for line in stream:
            point = NAMES.unescape(os.fsdecode(line.split(b" ")[1]))
            if point == prefix or point.startswith(prefix + "/"):
                found.append(point)
    return found


def remove_tree(directory: Path) -> None:
    """Remove a tree. Refuses where anything is mounted below it, which is not ours to remove."""
    if not os.path.lexists(directory):
        return
    if not directory.is_symlink():
        busy = mounts_below(directory)
        if busy:
            raise AvsError(f"cannot remove {directory}: mounted below it: {', '.join(busy)}; unmount it first")
        if directory.is_dir():
            descent.remove(str(directory))
            return
    directory.unlink()


@contextmanager
def temporary_directory(beside: Optional[Path] = None, prefix: str = "avsimage.") -> Iterator[Path]:
    """A private directory for the block, removed at its end however deep the tree in it is."""
    directory = Path(tempfile.mkdtemp(dir=beside, prefix=prefix))
    try:
        yield directory
    finally:
        remove_tree(directory)
