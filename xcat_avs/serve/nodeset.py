"""What is to be done for the nodes after a publish, and the nodeset that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.errors import AvsError, UsageError
from xcat_avs.serve import nodes
from xcat_avs.serve.nodes import Served
from xcat_avs.system.command import describe
from xcat_avs.system.runner import Runner
from xcat_avs.xcat import programs

TIMEOUT = 1800.0  # seconds; it does some nodes a second


@dataclass(frozen=True)
class Outcome:
    """What a publish means to the nodes: lines for people, facts for programs, an exit code."""

    lines: Sequence[str] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0


def need(definitions: Definitions) -> None:
    """Refuse --nodeset where there is nobody to run it."""
    if not definitions.xcat:
        raise UsageError("--nodeset needs xCAT, which is not used here")
    programs.need("nodeset")


def after_publish(
    image: OsImage, definitions: Definitions, runner: Runner, wanted: bool, changed: bool = True
) -> Outcome:
    """What the nodes will boot now, and what is due. wanted: run nodeset; unless changed, only what is due of it."""
    if not definitions.xcat:
        return Outcome()
    try:
        states = nodes.look_all(image, definitions)
    except AvsError as err:
        # It is published all the same, and that is what has to be said.
        return Outcome([f"Which nodes use it cannot be said: {err.text}"], {"nodes": None}, 1 if wanted else 0)
    due = changed or any(state.due for state in states)
    if not (wanted and due and any(state.nodes for state in states)):
        return Outcome(_shared_lines(states), _document(states))
    ran = _run_all(states, changed, runner)
    now = nodes.look_all(image, definitions)
    facts = {"differing": now[0].document()["differing"], "shared": _document(now)["shared"]}
    return Outcome(ran.lines, {**_document(states), **ran.document, **facts}, ran.code)


def _document(states: Sequence[Served]) -> dict[str, Any]:
    shared = [{"osimage": state.image.name, **state.document()} for state in states[1:]]
    return {**states[0].document(), "shared": shared}


def _serves_too(state: Served) -> str:
    return f"The same directory is that of {state.image.name}:"


def _shared_lines(states: Sequence[Served]) -> list[str]:
    """What is to be said of an osimage, and of the others whose nodes boot the same files."""
    lines = list(nodes.advice(states[0]))
    for state in states[1:]:
        lines += [_serves_too(state), *nodes.advice(state)] if state.nodes else []
    return lines


def _run_all(states: Sequence[Served], changed: bool, runner: Runner) -> Outcome:
    """Run nodeset for an osimage, and for those of the others that it is due for."""
    first = _run(states[0], runner) if changed or states[0].due else Outcome(nodes.advice(states[0]))
    lines, code = list(first.lines), first.code
    for state in states[1:]:
        if state.due:
            ran = _run(state, runner)
            lines += [_serves_too(state), *ran.lines]
            code = code or ran.code
    lines += [line for state in states for line in nodes.service_lines(state)]
    return Outcome(lines, first.document, code)


def _run(state: Served, runner: Runner) -> Outcome:
    """Run nodeset for the nodes that it is due for, or for all; what it said, and whether it failed."""
    if not state.nodes:
        return Outcome(nodes.advice(state))
    output = runner.within(TIMEOUT).capture([programs.need("nodeset"), *state.nodeset[1:]], check=False)
    said = [line for line in (output.text + output.stderr).splitlines() if line.strip()]
    ran = {"nodeset_ran": list(state.nodeset), "nodeset_exit": output.code, "nodeset_said": said,
           "nodeset_due": output.code != 0, "nodeset": []}  # fmt: skip
    lines = [nodes.used_by(state), f"{' '.join(state.nodeset)}:", *("  " + line for line in said)]
    if output.code:
        lines.append(
            f"nodeset {describe(output.code)}: the image is published, and these nodes would boot another kernel with it"
        )
    return Outcome(lines, ran, 1 if output.code else 0)
