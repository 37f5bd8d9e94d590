"""What Linux does and Python has no function for. It alone imports `ctypes`."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Union

AT_FDCWD = -100
PR_SET_PDEATHSIG = 1
TIMEX = 512  # bytes; struct timex has less
TIME_ERROR = 5
SYS_OPENAT2 = 437  # on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """New namespaces for this process. Raises OSError, as all here do."""
    _checked(_libc.unshare(flags))


def die_with_parent(signum: int) -> None:
    """Have the kernel send this process a signal when the one that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signum)


def mount(source: str, target: str, fstype: str, flags: int, options: str = "") -> None:
    encode = os.fsencode
    _checked(_libc.mount(encode(source), encode(target), encode(fstype), ctypes.c_ulong(flags), encode(options)))


def unmount(target: Union[str, Path]) -> None:
    _checked(_libc.umount2(os.fsencode(target), 0))


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """A descriptor for a path below a directory; ENOSYS before Linux 5.6. resolve: RESOLVE_* of linux/openat2.h."""
    how = _How(flags, 0, resolve)
    number = ctypes.c_long(SYS_OPENAT2)
    return _checked(int(_libc.syscall(number, directory, path, ctypes.byref(how), ctypes.sizeof(how))))


def renameat2(one: Path, other: Path, flags: int) -> None:
    """rename(2) with flags, RENAME_EXCHANGE among them; ENOSYS where the C library or the kernel has no such function."""
    call = getattr(_libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _checked(call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), flags))


def syncfs(directory: Path) -> None:
    """Have all that was written to the file system of a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(_libc.syncfs(descriptor))
    finally:
        os.close(descriptor)


def fnmatch(pattern: bytes, name: bytes) -> bool:
    """Whether fnmatch(3), without flags as find -path has it, says that a name matches; `*` matches `/` as well."""
    return bool(_libc.fnmatch(pattern, name, 0) == 0)


def clock_synchronized() -> bool:
    """Whether the kernel knows that its clock is kept right, by NTP or the like; also where it does not say."""
    return bool(_libc.adjtimex(ctypes.create_string_buffer(TIMEX)) != TIME_ERROR)
