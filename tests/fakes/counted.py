"""How often a run of avsimage calls some functions: an environment for it, and the counts."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
# Loaded by the interpreter before anything else: every call leaves a line, those in forked children as well.
SCRIPT = """
import os
from importlib import import_module

def counted(module, name):
    call = getattr(module, name)
    def counting(*args, **named):
        with open(os.environ["COUNTED"], "a") as stream:
            stream.write(f"{module.__name__.rpartition('.')[2]}.{name}\\n")
        return call(*args, **named)
    setattr(module, name, counting)

for item in os.environ["COUNT"].split():
    module, _, name = item.rpartition(".")
    counted(import_module(f"xcat_avs.{module}"), name)
"""


def counting(directory: Path, *functions: str) -> dict[str, str]:
    """The environment in which the functions, `definitions.exlist.read`, are counted below a new directory."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(SCRIPT)
    path = os.pathsep.join([str(directory), str(TOP)])
    return {"PYTHONPATH": path, "COUNTED": str(directory / "counted"), "COUNT": " ".join(functions)}


def counts(directory: Path) -> Counter[str]:
    """Calls by `module.function`."""
    return Counter((directory / "counted").read_text().split())
