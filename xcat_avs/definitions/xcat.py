"""Definitions in the xCAT tables, through lsdef: read once, whole, and matched here.

A name given to lsdef is a regular expression, and a sentence with exit code 0 may mean
anything; so no name is ever passed, and only lines of the expected form are believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xcat_avs import command
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.image import OsImage

HEADER = "# <xCAT data object stanza file>"
EMPTY = ("No object definitions have been found", "Could not find any object definitions to display.")
ORIGIN = "the xCAT tables"
OBJECT = re.compile(r"(\S.*):")
ATTRIBUTE = re.compile(r" {4}([A-Za-z][A-Za-z0-9_.]*)=(.*)")
COMPACT = re.compile(r"(\S+): ([A-Za-z][A-Za-z0-9_.]*)=(.*)")
TIMEOUT = 60.0  # seconds; a thousand images take six


def parse(text: str) -> dict[str, OsImage]:
    """What `lsdef -t osimage -z` printed. Raises AvsError for what is no such output.

    Values are printed raw, and one may hold newlines. A stanza begins with an empty line, its name, and its
    objtype; what stands anywhere else is the rest of a value: that osimage is marked, and refused when it is
    asked for (OsImage.check); the others are good.
    """
    lines = text.split("\n")
    said = [line.strip() for line in lines if line.strip()]
    if len(said) == 1 and said[0] in EMPTY:
        return {}
    # A module that does not load is told of before the answer.
    while lines[0].startswith("Error loading module"):
        lines.pop(0)
    if lines[0] != HEADER:
        first = said[0] if said else "nothing at all"
        raise AvsError(f"lsdef -t osimage -z did not answer with osimage definitions but with: {first[:200]}")
    tables: dict[str, dict[str, str]] = {}
    damaged: set[str] = set()
    name = ""
    for number, line in enumerate(lines[1:-1], 1):
        header, attribute = OBJECT.fullmatch(line), ATTRIBUTE.fullmatch(line)
        if header and lines[number - 1] == "" and lines[number + 1].startswith("    objtype="):
            name = header.group(1)
            damaged |= {name} & tables.keys()  # there cannot be two
            tables[name] = {}
        elif attribute and name:
            damaged |= {name} if attribute.group(1) in tables[name] else set()
            tables[name][attribute.group(1)] = attribute.group(2)
        elif name and (line.strip() or not _ends_stanza(lines, number)):
            damaged.add(name)
        elif line.strip():
            raise AvsError(f"lsdef -t osimage -z answered with a line that is no definition: {line[:200]}")
    why = "a value holds a newline; mend it with chdef"
    return {
        name: OsImage(name, attributes, ORIGIN, why if name in damaged else "")
        for name, attributes in tables.items()
        if attributes.pop("objtype", "") == "osimage"
    }


def _ends_stanza(lines: list[str], number: int) -> bool:
    """Whether an empty line is one between stanzas, or at the end."""
    following = [line for line in lines[number + 1 :] if line]
    return not following or (lines[number + 1] != "" and OBJECT.fullmatch(lines[number + 1]) is not None)


def parse_compact(text: str) -> dict[str, dict[str, str]]:
    """What `lsdef -i ATTRS -c` printed: object -> attribute -> value; other lines are not believed."""
    found: dict[str, dict[str, str]] = {}
    for line in text.split("\n"):
        match = COMPACT.fullmatch(line)
        if match:
            found.setdefault(match.group(1), {})[match.group(2)] = match.group(3)
    return found


def lsdef(program: str, *words: str) -> str:
    """The standard output of lsdef. Raises AvsError that says what is wrong with xCAT."""
    try:
        output = command.capture([program, *words], timeout=TIMEOUT, check=False)
    except CommandError as err:
        raise AvsError(f"xCAT does not answer: {err.text}; look at xcatd with `systemctl status xcatd`") from None
    # What stands in a good answer is somebody's text, and no message.
    said = f"{output.text}\n{output.stderr}" if output.code else output.text.split("\n")[0]
    lines = [line for line in said.splitlines() if line.strip()]
    if "certificates under" in said:
        raise AvsError(
            "this user has no certificate for xcatd in ~/.xcat; root makes one with XCATROOT/share/xcat/scripts/setup-local-client.sh USER"
        )
    if "certificate verify failed" in said:
        raise AvsError(
            "xcatd refuses this user's certificate; make it anew with setup-local-client.sh (see xcat(3))", lines[-2:]
        )
    if "Unable to open socket connection" in said or output.code == 111:
        raise AvsError("the xCAT daemon xcatd cannot be reached; start it with `systemctl start xcatd`", lines[-2:])
    if "Permission denied for request" in said:
        raise AvsError(
            "xCAT's policy table does not let this user read definitions; run as root, or add a policy for lsdef"
        )
    if "Only allow root to run XCATBYPASS" in said:
        raise AvsError("XCATBYPASS is set, and only root may bypass xcatd; unset it, or run as root")
    if output.code:
        raise AvsError(f"lsdef {' '.join(words)} {command.describe(output.code)}", lines[-5:])
    return output.text


@dataclass(frozen=True)
class XcatDefinitions:
    """The xCAT tables. program: the lsdef to use. Each table is read at most once."""

    program: str
    own_installdir: str = ""
    own_tftpdir: str = ""
    xcat: bool = True

    @cached_property
    def _images(self) -> Mapping[str, OsImage]:
        return parse(lsdef(self.program, "-t", "osimage", "-z"))

    @cached_property
    def _site(self) -> dict[str, str]:
        text = lsdef(self.program, "-t", "site", "clustersite", "-i", "installdir,tftpdir", "-c")
        return parse_compact(text).get("clustersite", {})

    @property
    def installdir(self) -> Path:
        return Path(self.own_installdir or self._site.get("installdir") or "/install")

    @property
    def tftpdir(self) -> Path:
        return Path(self.own_tftpdir or self._site.get("tftpdir") or "/tftpboot")

    def describe(self) -> str:
        return f"the xCAT tables ({self.program})"

    def osimages(self) -> Mapping[str, OsImage]:
        return self._images

    def reload(self) -> None:
        self.__dict__.pop("_images", None)

    def nodes(self) -> Mapping[str, str]:
        """Every node and its provmethod, the osimage it boots."""
        table = parse_compact(lsdef(self.program, "-t", "node", "-i", "provmethod", "-c"))
        return {node: values.get("provmethod", "") for node, values in table.items()}
