"""Find xCAT's own programs, and run them in the namespace of this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from xcat_avs.errors import SetupError
from xcat_avs.system import command


def root() -> Path:
    """XCATROOT."""
    return Path(os.environ.get("XCATROOT") or "/opt/xcat")


def program(name: str) -> Optional[str]:
    """The path of an xCAT program: in PATH, or in XCATROOT; None where xCAT is not."""
    for candidate in (name, str(root() / "bin" / name), str(root() / "sbin" / name)):
        found = command.find(candidate)
        if found:
            return found
    return None


def need(name: str) -> str:
    """The path of an xCAT program, or an error that says where it was looked for."""
    found = program(name)
    if found is None:
        raise SetupError(
            f"xCAT's program {name} is neither in PATH nor in {root()}; is xCAT installed, and XCATROOT right?"
        )
    return found


def bypass() -> dict[str, str]:
    """The environment that has an xCAT command do its work itself, in our namespace, and not in the daemon's."""
    path = os.pathsep.join([str(root() / "bin"), str(root() / "sbin"), command.environment()["PATH"]])
    return {"XCATBYPASS": "1", "PATH": path, "PERL_BADLANG": "0"}
