"""Who had what served, when and why: one line of JSON for each publish, root only."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional, Union

from xcat_avs.identity import Identity
from xcat_avs.serve.booted import Boot
from xcat_avs.serve.sets import PackedSet
from xcat_avs.system import masking, records


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


@dataclass(frozen=True)
class Change:
    """What a publish has changed. action: pack or rollback. record: of the set that is served since, where it has one."""

    osimage: str
    action: str
    directory: str
    before: str
    record: Optional[PackedSet]


def record(path: Path, identity: Identity, change: Change, message: str) -> str:
    """Write down who had what served since when and why.

    Returns what is to be told of a journal that cannot be written, or "": what it is about is served all the same.
    """
    source = (change.record.source, change.record.tag, change.record.revision) if change.record else ("", "", 0)
    entry = JournalEntry(
        osimage=change.osimage, action=change.action, date=_now(), user=identity.user, real=identity.real(),
        source=source[0], tag=source[1], revision=source[2], directory=change.directory, before=change.before,
        message=masking.text(message),
    )  # fmt: skip
    try:
        append(path, entry)
    except OSError as err:
        reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror
        return (
            f"{change.osimage}: the journal {path} cannot be written: {reason}; {change.directory} is served all the same, "
            f"and only the history will lack this {change.action}"
        )
    return ""


def append(path: Path, entry: Union[JournalEntry, Boot]) -> None:
    """Add a line, whole, and have it on disk."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = json.dumps(asdict(entry), sort_keys=True) + "\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # An interrupted run may have left a line without its end; the new entry begins a line of its own.
        end = os.fstat(descriptor).st_size
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        data = (b"\n" if torn else b"") + line.encode()
        while data:  # a disk that is nearly full takes a part, and says so only of the rest
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Sequence[JournalEntry]:
    """All entries, the oldest first; an incomplete line is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ()
    entries = (records.load(JournalEntry, line) for line in lines)
    return [entry for entry in entries if entry is not None]


def periods(entries: Sequence[JournalEntry]) -> list[tuple[JournalEntry, str]]:
    """Each entry with the date of the next one of its osimage, "" for the last: what it served was served till then."""
    found, following = list[tuple[JournalEntry, str]](), dict[str, str]()
    for entry in reversed(entries):
        found.append((entry, following.get(entry.osimage, "")))
        following[entry.osimage] = entry.date
    return found[::-1]


def mentions(entries: Iterable[JournalEntry]) -> Iterator[str]:
    """What journals say of a store, a sentence each."""
    return (f"the journal knows tag {entry.tag} of {entry.source}" for entry in entries if entry.tag)


def _now() -> str:
    """UTC, ISO 8601, to the microsecond, for entries have to be put in order."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
