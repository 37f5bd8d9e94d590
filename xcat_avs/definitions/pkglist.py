"""Package lists as xCAT writes them (pkglist, otherpkglist)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.definitions import includes
from xcat_avs.definitions.includes import Source
from xcat_avs.errors import AvsError

KIND = "package list"
ENVIRONMENT = re.compile(r"#ENV:([^#^]+)#")
# apt and dnf take such names as packages; anything else could be an option or a shell word.
PACKAGE = re.compile(r"@?[A-Za-z0-9^*?][A-Za-z0-9_.+:~^*?=/-]*")


@dataclass(frozen=True)
class PackageList:
    """What to install, what to keep out, environment for the installation, and the files read."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]


def read(paths: Iterable[Path], variables: Mapping[str, str], strip_directory: bool = False) -> PackageList:
    """Read lists: `#` comments, `#INCLUDE:file#`, `#ENV:A=b#`, `-package` to keep out, several names a line.

    variables: what `${NAME}` stands for in the name of an included list.
    strip_directory: names in an otherpkglist are paths below otherpkgdir; only the last part is the name.
    Raises AvsError with file and line for a missing file, an include that includes itself, a bad name.
    """
    include: dict[str, None] = {}
    exclude: dict[str, None] = {}
    environment: dict[str, str] = {}
    files: dict[Path, None] = {}

    def add(source: Source) -> None:
        text = source.text()
        files[source.path] = None
        for number, line in enumerate(text.split("\n"), 1):
            if includes.is_comment(line):
                continue
            where = f"{source.path}, line {number}"
            for match in includes.INCLUDE.finditer(line):
                add(source.include(match.group(1), where))
            if includes.DIRECTIVE.match(line.strip()):
                for match in ENVIRONMENT.finditer(line):
                    environment.update(_environment(match.group(1), where))
            for word in _words(line):
                name = word.lstrip("-")
                if strip_directory and not name.startswith("@"):
                    name = name.rsplit("/", 1)[-1]
                if not PACKAGE.fullmatch(name):
                    raise AvsError(f"{where}: {word!r} is not a package name")
                (exclude if word.startswith("-") else include)[name] = None

    for first in paths:
        add(includes.source(first, KIND, variables))
    return PackageList(
        tuple(name for name in include if name not in exclude), tuple(exclude), tuple(environment.items()), tuple(files)
    )


def _words(line: str) -> list[str]:
    """The package names of a line, without directives and the comment at its end."""
    return re.split(r"(?:^|\s)#", includes.DIRECTIVE.sub(" ", line))[0].replace(",", " ").split()


def _environment(text: str, where: str) -> dict[str, str]:
    found = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise AvsError(f"{where}: {item!r} is not NAME=value")
        found[name] = value.strip("'\"")
    return found
