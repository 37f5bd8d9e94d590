"""Which tags have booted in a virtual machine, in which form, and which have not: what is known on this machine.

A tag is immutable, and what boots is the set that this machine's packer makes of it, so the results are in the state
directory. Another machine has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xcat_avs.definitions.osimage import Tag
from xcat_avs.serve.sets import PackedSet
from xcat_avs.system import records

DIRECTORY = "boots"  # of the state
FAILED = "failed"


@dataclass(frozen=True)
class Boot:
    """One boot of a packed tag, as it ended.

    source, tag, revision: the tag; made: its date, by which one that was made anew is another; version: see PackedSet.
    osimage: what it was packed as. archive: the form. result: `booted` or `failed`. why: what was reached, or what kept it from that.
    accelerator: kvm or emulation. memory: MiB that the machine had; needed: that a node needs; unpacked: that the tree takes in it. units: those that failed.
    """

    source: str
    tag: str
    revision: int
    made: str
    version: str
    osimage: str
    archive: str
    result: str
    why: str
    seconds: float
    accelerator: str
    memory: int
    needed: int
    unpacked: int
    units: str
    date: str
    user: str

    @property
    def well(self) -> bool:
        return self.result != FAILED

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def words(self, date: str) -> str:
        """The result for people. date: as the reader has it."""
        how = "" if self.accelerator == "kvm" else ", emulated"
        what = f"in {self.seconds:.0f}s{how}" if self.well else f"({self.why})"
        return f"{self.result} {what}, {self.archive}, {date}"

    def short(self, date: str) -> str:
        """The same for a table."""
        return f"{date} {self.archive.partition('.')[2]} {f'{self.seconds:.0f}s' if self.well else FAILED}"


def file(state: Path, source: str) -> Path:
    """Where the results of an osimage's tags are."""
    return state / DIRECTORY / f"{source}.jsonl"


def read(state: Path, source: str) -> list[Boot]:
    """All results, the oldest first; an incomplete line is left out."""
    try:
        lines = file(state, source).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    return [boot for boot in (records.load(Boot, line) for line in lines) if boot is not None]


def newest(boots: Iterable[Boot]) -> list[Boot]:
    """The last result of each form, in the order of these."""
    return list({boot.archive: boot for boot in boots}.values())


def of_tag(boots: Iterable[Boot], tag: Tag) -> list[Boot]:
    """The last results of a tag, one of each form; those from before it was copied to another store as well."""
    wanted = {(tag.name, tag.date, revision) for revision in (tag.source, tag.original)}
    return newest(boot for boot in boots if (boot.tag, boot.made, boot.revision) in wanted)


def of_set(boots: Sequence[Boot], record: PackedSet) -> list[Boot]:
    """The last result of the tag that a set is, in the form of the set; none where there is none."""
    wanted = (record.tag, record.revision, record.archive)
    same = [boot for boot in boots if (boot.tag, boot.revision, boot.archive) == wanted]
    return [boot for boot in same if record.version in ("", boot.version)][-1:]
