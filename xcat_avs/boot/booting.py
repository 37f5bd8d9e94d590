"""Boot a machine, by KVM where that works, and judge what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.boot import judge, machine
from xcat_avs.boot.console import Console
from xcat_avs.boot.judge import Heard, Verdict
from xcat_avs.boot.machine import KVM, TCG, Guest
from xcat_avs.system.command import Group, tail
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner

FIRST = 20.0  # seconds within which a kernel by KVM says its first word
SETTLE = 30.0  # seconds for units that fail beside the login prompt, where some must not
OURS = re.compile(r"\+ /|.*: terminating on signal \d+ from ")  # lines of the log of what is done to the machine


@dataclass(frozen=True)
class Terms:
    """What a boot has to show. success: a regular expression, "" for the default. units: patterns of those that must not fail.

    seconds: it may take. memory: MiB of the machine, 0 for what it needs. arguments: more of them for the kernel.
    """

    success: str
    units: Sequence[str]
    seconds: float
    memory: int = 0
    arguments: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of it. accelerator: KVM or TCG; why: what kept it from KVM. seconds: until it was up."""

    verdict: Verdict
    accelerator: str
    why: str
    seconds: float
    last: Sequence[str]  # lines of the console


def boot(guest: Guest, terms: Terms, log: Path, progress: Progress) -> Outcome:
    """Boot it; the log takes the console. Raises CommandError where QEMU itself cannot run it."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.write_bytes(b"")
    why = machine.why_emulated(guest.osarch)
    if not why:
        outcome = _try(guest, terms, log, progress, KVM)
        if outcome is not None:
            return outcome
        why = f"{machine.DEVICE} is there, and does not work"
        progress.say(f"{why}: it is emulated")
    outcome = _try(guest, terms, log, progress, TCG, why)
    assert outcome is not None
    return outcome


def _try(guest: Guest, terms: Terms, log: Path, progress: Progress, how: str, why: str = "") -> Outcome | None:
    """One boot; None where KVM does not work."""
    words = machine.argv(guest, how)
    with Group(Runner(log, progress=progress)) as group:
        errors = group.log(f"{words[0]} {' '.join(words[1:])}")
        stream, out = group.pipe()
        group.start(words, None, out, errors)
        out.close()
        console = Console(stream, log, lambda: progress.tick(log))
        try:
            first = console.spoke(FIRST if how == KVM else terms.seconds)
            if how == KVM and first != 0:
                group.end()
                return None
            if first == -1:
                group.wait()
                raise group.error(f"{words[0]} ended before the kernel's first word")
            heard = (
                console.hear(terms.success, terms.seconds, SETTLE if terms.units else 0)
                if first == 0
                else Heard("", late=True)
            )
            seconds = console.seconds()
        finally:
            console.close()
        group.end()
    return Outcome(judge.judge(heard, guest.initramfs, terms.units), how, why, seconds=seconds, last=_last(log))


def _last(log: Path) -> list[str]:
    """The last lines of the console."""
    return [line for line in map(judge.plain, tail(log)) if line.strip() and not OURS.match(line)]
