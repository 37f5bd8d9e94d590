"""Lines of the documentation, run on a management node as somebody types them."""

from __future__ import annotations

import re
import shlex
import subprocess

from fakes.node import ManagementNode

ERRORS = "\n--\n"  # between the answer and the warnings of a line
PROGRAMS = ("avsimage", "nodeset", "chdef", "rpower", "rsync", "svnadmin")


def follow(node: ManagementNode, line: str, code: int = 0) -> str:
    """Run one line; returns its answer, then what it warned of. Power is the nodes' own affair."""
    places = {"/install": node.installdir, "/var/lib/xcat-avs/repo": node.repository, "/var/lib/xcat-avs": node.state,
              "/var/tmp": node.top / "tmp", "/backup": node.top / "backup", "/srv/avs": node.top / "srv"}  # fmt: skip
    wanted = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
    line = re.sub(rf"(?<![\w.])(?:{wanted})\b", lambda found: str(places[found.group()]), line)
    words = shlex.split(line, comments=True)
    environment = {}
    while "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    assert words[0] in PROGRAMS, line
    if words[0] == "rpower":
        return ""
    if words[0] in ("rsync", "svnadmin"):
        subprocess.run(words, check=True, capture_output=True)
        return ""
    if words[0] == "avsimage":
        assert words[1] == "-c", line
        done = node.run(*words[2:], code=code, **environment)
        return done.stdout + ERRORS + done.stderr
    done = node.program(words[0], *words[1:], **environment)
    assert done.code == code, f"{line}: {done}"
    return done.stdout
