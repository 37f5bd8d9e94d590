"""Open paths of a tree from a descriptor of its top: no link is followed, and a path may be of any depth."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Optional

from xcat_avs.system import libc

KEEP = 32  # parent directories that stay open, because the next path is likely below one of them
CLOSED = -1
LONG = 4000  # bytes of a path in one system call; the kernel takes no more than 4095
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO must not block, nor a terminal become the controlling one.
FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NO_NAMES = ("", ".", "..")
RESOLVE = 0x02 | 0x04 | 0x08  # linux/openat2.h: NO_MAGICLINKS, NO_SYMLINKS, BENEATH


class Descent:
    """The current directory of a walk through a tree. Raises OSError, with the whole path, for a link on the way.

    Going on is cheap where the next path is near the last one, as in a walk or in the order of a manifest.
    keep: how many directories may be open at a time.
    """

    def __init__(self, top: str, keep: int = KEEP) -> None:
        self._top, self._keep, self._path = top, keep, ""
        self._open = [os.open(top, DIRECTORY)]  # descriptors from the top down to the current directory
        self._above: dict[int, os.stat_result] = {}  # number -> stat of a directory that was closed on the way down

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], err: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:  # fmt: skip
        self._forget()
        os.close(self._open[0])

    def directory(self, path: str) -> int:
        """A descriptor of a directory ("": the top), valid until the next call."""
        while self._path and path != self._path and not path.startswith(f"{self._path}/"):
            self._leave()
        try:
            back = self._open[-1] == CLOSED
            if back:
                self._forget()
            if path != self._path:
                self._enter(path[len(self._path) + 1 :] if self._path else path, step_by_step=back)
        except OSError as err:
            raise OSError(err.errno, err.strerror, f"{self._top}/{path}") from None
        return self._open[-1]

    def parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the parent directory of a path, valid until the next call, and the last part of the path."""
        directory, _, name = path.rpartition("/")
        if not path:
            return self.directory(""), "."
        _check(name)
        return self.directory(directory), name

    def name(self, path: str) -> str:
        """A /proc name of a path, for system calls that take no descriptor; valid until the next call."""
        return "/proc/self/fd/{}/{}".format(*self.parent(path))

    def _enter(self, path: str, step_by_step: bool) -> None:
        """Open the directories below the current one.

        step_by_step: open each, not only the last ones; who came back up will go on up, and then needs them.
        """
        parts = path.split("/")
        jump = 0 if step_by_step else len(parts) - self._keep // 2
        if jump > 0:
            descriptor = _open_beneath(self._open[-1], parts[:jump])
            depth = len(self._open) + jump
            path = "/".join([*([self._path] if self._path else []), *parts[:jump]])
            self._forget()
            self._open += [CLOSED] * (depth - 2) + [descriptor]
            self._path = path
        for part in parts[max(jump, 0) :]:
            _check(part)
            self._open.append(os.open(part, DIRECTORY, dir_fd=self._open[-1]))
            self._path = f"{self._path}/{part}" if self._path else part
            far = len(self._open) - 1 - self._keep
            if far > 0 and self._open[far] != CLOSED:
                self._above[far] = os.fstat(self._open[far])
                self._close(far)

    def _leave(self) -> None:
        left = self._open.pop()
        self._path = self._path.rpartition("/")[0]
        number = len(self._open) - 1
        if left == CLOSED:
            return
        try:
            if number in self._above:
                # A directory may have been moved meanwhile: go up only where `..` is the one that we came from.
                above = os.open("..", DIRECTORY, dir_fd=left)
                self._open[number] = above
                if not os.path.samestat(os.fstat(above), self._above.pop(number)):
                    self._close(number)
        finally:
            os.close(left)

    def _forget(self) -> None:
        """Close all but the top, and make that the current directory."""
        for number in range(1, len(self._open)):
            self._close(number)
        del self._open[1:]
        self._above.clear()
        self._path = ""

    def _close(self, number: int) -> None:
        if self._open[number] != CLOSED:
            os.close(self._open[number])
            self._open[number] = CLOSED


def _check(name: str) -> None:
    if name in NO_NAMES:
        raise OSError(errno.EXDEV, "the path leads out of its tree", name)


def _open_beneath(directory: int, parts: Sequence[str]) -> int:
    """Open a directory any number of parts below another one; returns its descriptor."""
    names = []
    for part in parts:
        _check(part)
        names.append(os.fsencode(part))
    descriptor, start = directory, 0
    while start < len(names):
        end, length = start, 0
        while end < len(names) and (end == start or length + len(names[end]) < LONG):
            length += len(names[end]) + 1
            end += 1
        try:
            following = _several(descriptor, names[start:end])
        finally:
            if descriptor != directory:
                os.close(descriptor)
        descriptor, start = following, end
    return descriptor


def _several(directory: int, names: Sequence[bytes]) -> int:
    """Open several parts by one openat2 where the kernel has it (5.6 and later), else part by part."""
    try:
        return libc.openat2(directory, b"/".join(names), DIRECTORY, RESOLVE)
    except OSError as err:
        # EPERM: a seccomp filter that does not know openat2. EAGAIN: a rename at that moment.
        if err.errno not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
            code = errno.ENOTDIR if err.errno == errno.ELOOP else err.errno  # the code that opening part by part gives
            raise OSError(code, os.strerror(code or 0)) from None
    descriptor = os.dup(directory)
    for name in names:
        try:
            following = os.open(name, DIRECTORY, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


@contextmanager
def reach(top: str, path: str) -> Iterator[str]:
    """A name for one path below top that every system call takes, however deep it is; no link is followed."""
    with Descent(top, keep=1) as tree:
        yield tree.name(path)


def open_regular(name: str, directory: Optional[int] = None) -> int:
    """A descriptor to read a regular file. Raises OSError for anything else, and does not open it: devices act on that."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        descriptor = os.open(name, os.O_RDONLY | FILE, dir_fd=directory)
        if os.path.samestat(os.fstat(descriptor), status):
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", name)


def open_file(top: str, path: str) -> int:
    """The same of a path below top."""
    with Descent(top, keep=1) as tree:
        directory, name = tree.parent(path)
        return open_regular(name, directory)


def read_file(top: str, path: str, most: int = -1) -> Optional[bytes]:
    """The content of a regular file below top, or its first bytes; None where there is none, or something else."""
    try:
        descriptor = open_file(top, path)
    except OSError:
        return None
    with open(descriptor, "rb") as stream:
        return stream.read(most)


def write_file(top: str, path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
    """Replace a file below top, whole or not at all; missing directories are made."""
    with Descent(top) as tree:
        _make_directories(tree, path.rpartition("/")[0])
        directory, name = tree.parent(path)
        temporary = f".avs.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE, 0o600, dir_fd=directory)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise


def _make_directories(tree: Descent, path: str) -> None:
    parts = path.split("/") if path else []
    for number in range(len(parts)):
        directory, name = tree.parent("/".join(parts[: number + 1]))
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)


def remove(top: str) -> None:
    """Remove a directory with all that is in it, however deep."""
    with Descent(top) as tree:
        pending = [""]
        while pending:
            path = pending[-1]
            inner = _empty(tree.directory(path))
            if inner:  # its subdirectories first, then this one once more
                pending += [f"{path}/{name}" if path else name for name in inner]
                continue
            pending.pop()
            if path:
                directory, name = tree.parent(path)
                os.rmdir(name, dir_fd=directory)
    os.rmdir(top)


def _empty(directory: int) -> list[str]:
    """Remove everything in a directory but its subdirectories; returns these."""
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in entries if is_directory]


def link_tree(source: str, target: str, leave_out: Collection[str] = (), plain: bool = False) -> None:
    """Copy source to target with hard links for files; owners, modes and times of directories are not kept.

    leave_out: paths that are not copied, nor what is below them. plain: only files, directories and symbolic links are.
    """
    os.mkdir(target, 0o700)
    aside = set(leave_out)
    with Descent(source) as given, Descent(target) as made:
        pending = [""]
        while pending:
            path = pending.pop()
            directory, copy = given.directory(path), made.directory(path)
            with os.scandir(directory) as found:
                entries = [
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if not plain or _plain(entry)
                ]
            for name, is_directory in entries:
                full = f"{path}/{name}" if path else name
                if full in aside:
                    continue
                if is_directory:
                    os.mkdir(name, 0o700, dir_fd=copy)
                    pending.append(full)
                else:
                    os.link(name, name, src_dir_fd=directory, dst_dir_fd=copy, follow_symlinks=False)


def _plain(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink()
