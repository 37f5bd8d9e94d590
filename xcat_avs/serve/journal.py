"""Who had what served, when and why: one line of JSON for each publish, root only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xcat_avs.system import records


@dataclass(frozen=True)
class JournalEntry:
    """One publish of an osimage. action: pack or rollback. date: UTC, ISO 8601. directory: what is served since."""

    osimage: str
    action: str
    date: str
    user: str
    real: str
    source: str
    tag: str
    revision: int
    directory: str
    before: str
    message: str


def append(path: Path, entry: JournalEntry) -> None:
    """Add a line, whole, and have it on disk."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = json.dumps(asdict(entry), sort_keys=True) + "\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # After a line that was cut off, a new one begins.
        end = os.fstat(descriptor).st_size
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Sequence[JournalEntry]:
    """All entries, the oldest first; a line that was cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ()
    entries = (records.load(JournalEntry, line) for line in lines)
    return [entry for entry in entries if entry is not None]
