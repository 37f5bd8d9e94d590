"""What a procedure does in the tree of an image: files, and programs with rights of their own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional, Union

from xcat_avs.errors import AvsError
from xcat_avs.system import mounts
from xcat_avs.system.descent import Descent, open_file, write_file
from xcat_avs.tree import rights, scan
from xcat_avs.tree.inside import inside
from xcat_avs.tree.patterns import matches


class ImageTree:
    """All paths are those of the image; its links lead within it, never to the host."""

    @property
    def root(self) -> Path:
        """The top of the image's file system."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A line for the step's log."""
        raise NotImplementedError

    def run(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the host."""
        raise NotImplementedError

    def chroot(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the image in the image."""
        raise NotImplementedError

    def inside(self, path: str, follow: bool = False) -> Path:
        """A path of the image as the host sees it; links on the way are those of the image, not of the host.

        follow: go through the last part as well, where it is a link.
        """
        return inside(self.root, path, follow)

    def exists(self, path: str) -> bool:
        """Whether the image has that file or directory, through all links."""
        return self.inside(path, follow=True).exists()

    def read(self, path: str) -> str:
        """The text of a file of the image, through all links; "" where there is none. Raises AvsError for what is no file."""
        found = self.inside(path, follow=True)
        if not found.exists():
            return ""
        try:
            with open(open_file(str(self.root), str(found.relative_to(self.root))), "rb") as stream:
                return stream.read().decode("utf-8", "surrogateescape")
        except OSError as err:
            raise AvsError(f"{path} of the image cannot be read: {err.strerror}") from None

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        """Put change(text) in place of a file's text; its owner and mode stay.

        A file that is not there is "". Where nothing changes, nothing is written.
        """
        old = self.read(path)
        new = change(old)
        if new == old:
            return
        found = self.inside(path, follow=True)
        target, data = str(found.relative_to(self.root)), new.encode("utf-8", "surrogateescape")
        if found.exists():
            status = found.stat()
            self.install_file(data, target, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        else:
            self.install_file(data, target)

    def set_values(self, path: str, values: Mapping[str, str], separator: str = "=") -> None:
        """Set `KEY=value` lines of a file: in place of the first line of that key, its others going; else at the end."""

        def change(text: str) -> str:
            lines = text.removesuffix("\n").split("\n") if text else []
            for key, value in values.items():
                end = re.escape(separator.strip()) or r"(?:\s|$)"
                pattern = re.compile(rf"\s*{re.escape(key)}\s*{end}")
                places = [number for number, line in enumerate(lines) if pattern.match(line)] or [len(lines)]
                lines[places[0] : places[0] + 1] = [f"{key}{separator}{value}"]
                lines = [line for number, line in enumerate(lines) if number not in places[1:]]
            return "".join(f"{line}\n" for line in lines)

        self.edit(path, change)

    def install_file(
        self, source: Union[Path, str, bytes], target: str, mode: int = 0o644, uid: int = 0, gid: int = 0
    ) -> None:
        """Put a file (Path) or a text into the image, in place of what is there."""
        data = (
            source.read_bytes() if isinstance(source, Path) else source.encode() if isinstance(source, str) else source
        )
        path = self.inside(target).relative_to(self.root)
        write_file(str(self.root), str(path), data, mode, (uid, gid))
        self.say(f"installed {target}")

    def remove(self, path: str) -> None:
        """Remove a file, a link or a whole directory of the image, where it is there."""
        found = self.inside(path)
        if found == self.root:
            raise AvsError(f"{path} is the root of the image, which is not to be removed")
        if os.path.lexists(found):
            mounts.remove_tree(found)
            self.say(f"removed {path}")

    def glob(self, pattern: str) -> list[Path]:
        """The paths of the image that a pattern matches (`**`: any directories), reached through no link at all."""
        found = [""]
        with Descent(str(self.root)) as tree:
            for part in pattern.strip("/").split("/"):
                if part == "**":
                    found = [item for path in found for item in _directories(tree, path)]
                else:
                    found = [
                        f"{path}/{name}".lstrip("/")
                        for path in found
                        for name in _names(tree, path)
                        if matches(name, part)
                    ]
        return sorted(self.root / path for path in found)

    def privileged(self) -> list[tuple[str, str]]:
        """The programs of the image that run with other rights than those of who starts them, and these rights in words."""
        found = []
        with Descent(str(self.root)) as tree:
            for path, status in scan.walk(str(self.root)):
                if stat.S_ISREG(status.st_mode):
                    xattrs = scan.read_xattrs(tree.name(path))
                    words = rights.rights(status.st_mode, status.st_uid, status.st_gid, xattrs)
                    found += [(f"/{path}", words)] if words else []
        return sorted(found)

    def empty_directories(self, patterns: Iterable[str], keep: Sequence[str] = ()) -> int:
        """Remove all files below the directories that patterns match, and directories that are then empty; returns how many.

        keep: patterns (`*` matches slashes as well) of paths that stay.
        """
        removed = 0
        found = [path for top in patterns for path in self.glob(f"{top}/**/*")]
        with Descent(str(self.root)) as tree:
            for path in reversed([str(path.relative_to(self.root)) for path in found]):
                if any(matches(path, pattern) for pattern in keep):
                    continue
                directory, name = tree.parent(path)
                if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=directory)
                    removed += 1
                elif not _names(tree, path):
                    directory, name = tree.parent(path)
                    os.rmdir(name, dir_fd=directory)
        self.say(f"removed {removed} files" if removed else "nothing to remove")
        return removed


def _names(tree: Descent, path: str) -> list[str]:
    """What is in a directory of the tree; nothing where that is none."""
    try:
        return os.listdir(tree.directory(path))
    except NotADirectoryError:
        return []


def _directories(tree: Descent, top: str) -> list[str]:
    """A directory of the tree and all that are below it; none where it is none."""
    found = []
    pending = [top]
    while pending:
        path = pending.pop()
        try:
            descriptor = tree.directory(path)
        except NotADirectoryError:
            continue
        found.append(path)
        with os.scandir(descriptor) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        pending += [f"{path}/{name}".lstrip("/") for name in inner]
    return found
