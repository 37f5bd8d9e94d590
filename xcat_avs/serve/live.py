"""What nodes say themselves that they run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from xcat_avs.errors import CommandError, counted
from xcat_avs.serve.nodes import Served
from xcat_avs.system.runner import Runner
from xcat_avs.xcat import noderange, programs

TIMEOUT = 60.0  # seconds for all nodes
# What a node says: its tag, or that it has no such file.
ANSWER = re.compile(r"^(\S+): (?:AVS_TAG='([^']*)'|.*avs-release.*)$", re.MULTILINE)
OTHER = "something else"


def ask(state: Served, runner: Runner) -> Mapping[str, list[str]]:
    """Tag -> nodes that run it, as they say themselves; "" -> those that did not answer."""
    with tempfile.NamedTemporaryFile() as answers:
        argv = [programs.need("xdsh"), state.noderange, "-t", "10", "cat", "/etc/avs-release"]
        try:
            runner.to(Path(answers.name)).within(TIMEOUT).run(argv, check=False)
        except CommandError:
            pass  # those that answered in time have answered
        text = Path(answers.name).read_text(encoding="utf-8", errors="replace")
    found: dict[str, list[str]] = {}
    silent = set(state.nodes)
    for node, tag in ANSWER.findall(text):
        if node in silent:
            silent.discard(node)
            found.setdefault(tag or OTHER, []).append(node)
    if silent:
        found[""] = sorted(silent)
    return found


def lines(state: Served, answers: Mapping[str, list[str]]) -> Iterator[str]:
    """The answers in words, a line for each tag."""
    for tag, names in sorted(answers.items()):
        what = f"run {tag}" if tag else "did not answer"
        yield f"{state.image.name}: {len(names)} of {counted(len(state.nodes), 'node')} {what}: {noderange.collapse(names)}"
