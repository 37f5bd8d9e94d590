"""Looks at xCAT's programs, and at what they would refuse of a definition."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.system.findings import FAIL, OK, WARN, Finding
from xcat_avs.xcat import fitness, programs

# Program -> what cannot be done without it.
PROGRAMS = {
    "lsdef": "",
    "genimage": "",
    "packimage": "",
    "nodeset": "",
    "chdef": "create --define",
    "xdsh": "status --live",
}


def installed() -> Iterator[Finding]:
    """xCAT's programs."""
    missing = [name for name in PROGRAMS if programs.program(name) is None]
    for name in missing:
        without = PROGRAMS[name]
        text = f"xCAT's program {name} is neither in PATH nor in {programs.root()}"
        yield Finding(
            WARN if without else FAIL, f"{text}{f': no {without}' if without else ''}", fix=". /etc/profile.d/xcat.sh"
        )
    there = [name for name in PROGRAMS if name not in missing]
    if there:
        yield Finding(OK, f"xCAT in {programs.root()}: {', '.join(there)}")


def fit(image: OsImage, rootimgdir: Path) -> Iterator[Finding]:
    """What genimage and packimage would say of a definition."""
    words = fitness.needed_chdef(image)
    for build in (True, False):
        try:
            fitness.refuse_incomplete(image, rootimgdir, build)
            fitness.refuse_unsafe(image)
        except AvsError as err:
            yield Finding(FAIL, err.text, fix=shlex.join(words) or err.next)
            return
    yield Finding(OK, f"{image.name}: genimage and packimage take the definition")
