"""`#INCLUDE:file#` in package lists and exlists, resolved as xCAT does.

genimage and packimage put the text of a list in the place of the line, over and over until none is left. So a
relative name is one beside the list that the osimage names, also where an included list has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.system import command, trust

INCLUDE = re.compile(r"#INCLUDE:([^#^\n]+)#")
# A line that begins so is a directive, although it looks like a comment.
DIRECTIVE = re.compile(r"#(?:INCLUDE|ENV):[^#^\n]+#|#NEW_INSTALL_LIST#")
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
DEPTH = 50  # lists within lists


def variables(image: OsImage) -> dict[str, str]:
    """What `${NAME}` stands for in the #INCLUDE: lines of an image's lists: genimage's environment, and environvar."""
    pairs = [entry.split("=") for entry in image.attributes.get("environvar", "").split(",") if "=" in entry]
    return {**command.environment(), **{name.strip(): value.strip() for name, value, *_ in pairs}}


@dataclass(frozen=True)
class Source:
    """A list to be read. kind: its name in messages. asker: what names it. variables: values of `${NAME}`."""

    path: Path
    kind: str
    asker: str = "the definition"
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)
    top: Path = Path()
    above: tuple[Path, ...] = ()

    def include(self, name: str, where: str) -> Source:
        """The list that an #INCLUDE: of this one names."""
        name = VARIABLE.sub(lambda match: self.variables.get(match.group(1) or match.group(2), match.group()), name)
        above = (*self.above, Path(os.path.realpath(self.path)))
        return replace(self, path=self.top / name.strip(), asker=where, above=above)

    def text(self) -> str:
        """The text of the list; bytes that are not UTF-8 are kept. Raises AvsError that says what names the list."""
        if len(self.above) > DEPTH:
            raise AvsError(f"{self.asker}: lists are included more than {DEPTH} deep")
        try:
            if Path(os.path.realpath(self.path)) in self.above:
                raise AvsError(f"{self.asker}: {self.path} includes itself")
            trust.refuse(self.path)
            return self.path.read_text(encoding="utf-8", errors="surrogateescape")
        except ValueError:
            reason = "a NUL byte is in its name"
        except OSError as err:
            reason = err.strerror or str(err)
        unset = VARIABLE.search(str(self.path))
        hint = f"; nothing gives {unset.group()} a value" if unset else ""
        raise AvsError(f"{self.asker} names the {self.kind} {self.path}: {reason}{hint}")


def source(path: Path, kind: str, variables: Mapping[str, str]) -> Source:
    """A list that an osimage names."""
    return Source(path, kind, variables=variables, top=path.parent)


def is_comment(line: str) -> bool:
    """Whether a line of a package list says nothing."""
    stripped = line.strip()
    return not stripped or (stripped.startswith("#") and DIRECTIVE.match(stripped) is None)


def files(sources: Iterable[Source], comments: bool) -> tuple[list[Path], list[str]]:
    """All lists, included ones too, and a message for each that cannot be read.

    comments: whether an #INCLUDE: in a comment counts, as it does in an exlist.
    """
    pending, found, problems = list(sources), dict[Path, None](), list[str]()
    while pending:
        item = pending.pop(0)
        if item.path in found:
            continue
        try:
            lines = item.text().split("\n")
        except AvsError as err:
            problems.append(err.text)
            continue
        found[item.path] = None
        for number, line in enumerate(lines, 1):
            if comments or not is_comment(line):
                where = f"{item.path}, line {number}"
                pending += [item.include(match.group(1), where) for match in INCLUDE.finditer(line)]
    return list(found), problems
