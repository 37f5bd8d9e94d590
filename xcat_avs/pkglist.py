"""Package lists as xCAT writes them (pkglist, otherpkglist)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.errors import AvsError

DIRECTIVE = re.compile(r"#(INCLUDE|ENV):([^#]+)#|#(NEW_INSTALL_LIST)#")
# apt and dnf take these as they are; anything else would be an option or a shell word.
PACKAGE = re.compile(r"@?[A-Za-z0-9^*?][A-Za-z0-9_.+:~^*?=/-]*")


@dataclass(frozen=True)
class PackageList:
    """What to install, what to keep out, environment for the installation, and the files read."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]


def read(paths: Iterable[Path], strip_directory: bool = False) -> PackageList:
    """Read lists: `#` comments, `#INCLUDE:file#`, `#ENV:A=b#`, `-package` to keep out, several names a line.

    strip_directory: names in an otherpkglist are paths below otherpkgdir; only the last part is the name.
    Raises AvsError with file and line for a missing file, an include that includes itself, a bad name.
    """
    include: dict[str, None] = {}
    exclude: dict[str, None] = {}
    environment: dict[str, str] = {}
    files: list[Path] = []

    def add(path: Path, open_files: tuple[Path, ...], asker: str) -> None:
        real = Path(os.path.realpath(path))
        if real in open_files:
            raise AvsError(f"{asker}: {path} includes itself")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            reason = err.strerror if isinstance(err, OSError) else "not UTF-8 text"
            raise AvsError(f"{asker} names the package list {path}: {reason}") from None
        if path not in files:
            files.append(path)
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path}, line {number}"
            stripped = line.strip()
            if not stripped:
                continue
            if stripped.startswith("#"):
                # Only a line that begins with one; a second # makes it a comment.
                for match in DIRECTIVE.finditer(stripped) if DIRECTIVE.match(stripped) else ():
                    if match.group(1) == "INCLUDE":
                        add(Path(path.parent, match.group(2).strip()), (*open_files, real), where)
                    elif match.group(1) == "ENV":
                        environment.update(_environment(match.group(2), where))
                continue
            for word in re.split(r"\s#", stripped)[0].replace(",", " ").split():
                name = word.lstrip("-")
                if strip_directory and not name.startswith("@"):
                    name = name.rsplit("/", 1)[-1]
                if not PACKAGE.fullmatch(name):
                    raise AvsError(f"{where}: {word!r} is not a package name")
                (exclude if word.startswith("-") else include)[name] = None

    for first in paths:
        add(first, (), "the definition")
    return PackageList(
        tuple(name for name in include if name not in exclude), tuple(exclude), tuple(environment.items()), tuple(files)
    )


def _environment(text: str, where: str) -> dict[str, str]:
    found = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise AvsError(f"{where}: {item!r} is not NAME=value")
        found[name] = value.strip("'\"")
    return found
