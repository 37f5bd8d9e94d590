"""What all tests share: how the programs that they start take signals, and in which order workers take them."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

# Tests are compiled once and not by every worker of every run, also where the environment wants nothing beside sources.
sys.pycache_prefix = str(Path(sys.prefix, "pycache"))
sys.dont_write_bytecode = False

# A run in the background (`nohup ./runtests &`) ignores these, and so would all that it starts; tests send them.
# A handler that does nothing keeps the run itself alive, and is no more in what is started. Workers are started.
INHERITED = "AVS_TESTS_IGNORE"

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        os.environ[INHERITED] = f"{os.environ.get(INHERITED, '')} {int(number)}"
    if str(int(number)) in os.environ.get(INHERITED, "").split():
        signal.signal(number, lambda *_: None)


# The files that take longest come first, so that no worker is left with one at the end.
LONGEST = ("quickstart", "procedures_remove", "store", "faults", "procedures_setup", "xcat", "addon_library", "dnf", "damage",
           "procedures", "mmdebstrap", "rinse", "copy", "runbook", "completion", "page", "hostile", "remote",
           "https", "window", "torture", "benchmark", "large", "packaging", "install", "addons",
           "cli", "diff", "fakes", "xcat_definitions", "avsaddons", "archive", "start", "proof", "command")  # fmt: skip
# Of these not even that is enough: workers share them, a function's cases going to the same one. What their tests
# have in common is cheap. Any other file stays with one worker, for what its tests share is made once.
PARTS = {"integration/test_xcat.py": 3, "integration/test_store.py": 2, "integration/test_faults.py": 2, "integration/test_dnf.py": 2,
         "integration/test_damage.py": 2, "integration/test_procedures.py": 2, "cli/test_cli.py": 3}  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path.parent.name == "unit", rank.get(item.path.stem, len(rank))))


def part(nodeid: str) -> str:
    """What goes to one worker as a whole: a file, or a part of it."""
    path, _, rest = nodeid.partition("::")
    parts = next((number for name, number in PARTS.items() if path.endswith(name)), 1)
    return f"{path} {zlib.crc32(rest.partition('[')[0].encode()) % parts}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    found = importlib.import_module("xdist.scheduler").LoadFileScheduling(config, log)
    found._split_scope = part
    return found
