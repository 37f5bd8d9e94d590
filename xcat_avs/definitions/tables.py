"""Definitions in the xCAT tables, through lsdef: read once, whole, and matched here.

A name given to lsdef is a regular expression, and a sentence with exit code 0 may mean
anything; so no name is ever passed, and only lines of the expected form are believed.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Node
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.system import command
from xcat_avs.system.runner import QUIET, Output, Runner

HEADER = "# <xCAT data object stanza file>"
EMPTY = ("No object definitions have been found", "Could not find any object definitions to display.")
ORIGIN = "the xCAT tables"
OBJECT = re.compile(r"(\S.*):")
ATTRIBUTE = re.compile(r" {4}([A-Za-z][A-Za-z0-9_.]*)=(.*)")
COMPACT = re.compile(r"(\S+): ([A-Za-z][A-Za-z0-9_.]*)=(.*)")
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# table -> the arguments of lsdef that print it
QUESTIONS = {
    "osimage": ("-t", "osimage", "-z"),
    "site": ("-t", "site", "clustersite", "-i", "installdir,installloc,master,sharedtftp,tftpdir", "-c"),
    "node": ("-t", "node", "-i", "netboot,provmethod,servicenode,xcatmaster", "-c"),
}
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
    # A plug-in that does not load is reported before the answer.
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
            damaged |= {name} & tables.keys()  # a second object of that name is part of some value
            tables[name] = {}
        elif attribute and name:
            damaged |= {name} if attribute.group(1) in tables[name] else set()
            tables[name][attribute.group(1)] = attribute.group(2)
        elif name and (line.strip() or not _ends_stanza(lines, number)):
            damaged.add(name)
        elif line.strip():
            raise AvsError(f"lsdef -t osimage -z answered with a line that is no definition: {line[:200]}")
    why = "a value holds a newline; fix it with chdef"
    return {
        name: OsImage(name, attributes, ORIGIN, why if name in damaged else "")
        for name, attributes in tables.items()
        if attributes.pop("objtype", "") == "osimage"
    }


def _ends_stanza(lines: list[str], number: int) -> bool:
    """Whether an empty line ends a stanza: another one follows, or nothing."""
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


def lsdef(program: str, *words: str, runner: Runner = QUIET, env: Optional[Mapping[str, str]] = None) -> str:
    """The standard output of lsdef. Raises AvsError that says what is wrong with xCAT."""
    return _good(words, _ask(program, [words], runner, env)[0])


def _ask(program: str, questions: Sequence[Sequence[str]], runner: Runner,
         env: Optional[Mapping[str, str]] = None) -> list[Output]:  # fmt: skip
    """What lsdef answers to each of several questions that are asked at the same time."""
    try:
        return runner.within(runner.timeout or TIMEOUT).capture_all([[program, *words] for words in questions], env=env)
    except CommandError as err:
        raise AvsError(f"xCAT does not answer: {err.text}; look at xcatd with `systemctl status xcatd`") from None


def _good(words: Sequence[str], output: Output) -> str:
    """The text of an answer. Raises AvsError where it is none."""
    # With exit code 0 only the first line can be a message; the rest are values.
    said = f"{output.text}\n{output.stderr}" if output.code else output.text.split("\n")[0]
    lines = [line for line in said.splitlines() if line.strip()]
    problem = _problem(said, output.code)
    if problem:
        raise AvsError(problem, lines[-2:])
    if output.code:
        raise AvsError(f"lsdef {' '.join(words)} {command.describe(output.code)}", lines[-5:])
    return output.text


def _problem(said: str, code: int) -> str:
    """Explain a message of xCAT's client: what is wrong and what to do about it; "" for an unknown message."""
    who = "root" if os.geteuid() == 0 else "this user"
    setup = "XCATROOT/share/xcat/scripts/setup-local-client.sh USER"
    if "certificates under" in said:
        return f"{who} has no certificate for xcatd in ~/.xcat; root makes one with {setup}"
    # A certificate of another authority: xcatd refuses it, or closes the connection without a message.
    if "certificate verify failed" in said or "ended prematurely" in said:
        return (f"xcatd refuses the certificate that {who} has in ~/.xcat, or ended meanwhile; where `systemctl status xcatd` is well, "
                f"make the certificate anew with {setup} (see xcat(3))")  # fmt: skip
    if "Unable to open socket connection" in said or code == 111:
        return "the xCAT daemon xcatd cannot be reached; start it with `systemctl start xcatd`"
    if "Permission denied for request" in said:
        way = "run as root, or add a policy for lsdef"
        if who == "root":
            way = "look at `tabdump policy`, which needs a line with the name root and the rule allow"
        return f"xCAT's policy table does not let {who} read definitions; {way}"
    if "Only allow root to run XCATBYPASS" in said:
        return "XCATBYPASS is set, and only root may bypass xcatd; unset it, or run as root"
    return ""


def service_copies(site: Mapping[str, str]) -> tuple[str, ...]:
    """The directories that service nodes copy and do not mount, by the site table."""
    own_tftp = site.get("sharedtftp", "").lower() in ("0", "no")
    own_install = not site.get("installloc")
    return (*(["INSTALLDIR"] if own_install else []), *(["TFTPDIR"] if own_tftp else []))


def parse_nodes(text: str, site: Mapping[str, str]) -> dict[str, Node]:
    """What lsdef printed of all nodes, with what the site table says of their service nodes."""
    table = parse_compact(text)
    copies = service_copies(site)
    here = {site.get("master", ""), platform.node(), platform.node().split(".")[0]}
    found = {}
    for name, values in table.items():
        service = ",".join(name for name in values.get("servicenode", "").split(",") if name not in here)
        master = values.get("xcatmaster", "")
        # xcatmaster names a service node only if that is a node, and not the management node itself.
        if not service and master in table and master not in here:
            service = master
        own = copies if service else ()
        found[name] = Node(values.get("provmethod", ""), values.get("netboot", ""), service if own else "", own)
    return found


@dataclass(frozen=True)
class XcatDefinitions:
    """The xCAT tables. program: the lsdef to use. Each table but that of the nodes is read at most once.

    together: tables that will be needed; the first question asks for all of them at the same time.
    """

    program: str
    own_installdir: str = ""
    own_tftpdir: str = ""
    together: tuple[str, ...] = ("osimage", "site")
    runner: Runner = QUIET
    xcat: bool = True
    _answers: dict[str, Output] = field(default_factory=dict, repr=False, compare=False)

    def _table(self, kind: str) -> str:
        if kind not in self._answers:
            first = not self._answers
            kinds = [kind, *(other for other in self.together if first and other != kind)]
            self._answers.update(zip(kinds, _ask(self.program, [QUESTIONS[each] for each in kinds], self.runner)))
        return _good(QUESTIONS[kind], self._answers[kind])

    @cached_property
    def _images(self) -> Mapping[str, OsImage]:
        return parse(self._table("osimage"))

    @cached_property
    def _site(self) -> dict[str, str]:
        return parse_compact(self._table("site")).get("clustersite", {})

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

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        runner = self.runner.within(timeout)
        text = lsdef(self.program, *QUESTIONS["osimage"], runner=runner, env={"XCATBYPASS": "1"} if bypass else None)
        if bypass:  # what xcatd does before it answers
            text = NOT_ASCII.sub(lambda match: "?" * len(match.group().encode("utf-8", "surrogateescape")), text)
        self.__dict__["_images"] = parse(text)

    def nodes(self) -> Mapping[str, Node]:
        found = parse_nodes(self._table("node"), self._site)
        self._answers.pop("node")  # read anew at each call, since nodeset changes it
        return found
