"""Looks at a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Optional

from xcat_avs.store.protocol import Store
from xcat_avs.system import records
from xcat_avs.system.findings import FAIL, OK, WARN, Finding

NOTE = "verified.json"  # in the state directory: UUID of a store -> when it was last verified as a whole, in UTC
OLD = timedelta(days=90)


def note_verified(state: Path, store: Store, date: str) -> None:
    """Note that the whole store was verified and is well. A note that cannot be written is no error: only check reads it."""
    records.note(state / NOTE, store.identity(), date)


def usable(store: Store, where: str, directory: Optional[Path], evidence: str) -> Iterator[Finding]:
    """Whether it is there and can be written. where: its URL; directory: where it is on this machine, if it is.

    evidence: signs that there was one before, or "".
    """
    identity = store.identity()
    if not identity:
        if evidence:
            fix = "mount its disk, or set [paths] store; create --new-store begins a new one"
            yield Finding(FAIL, f"there is no store at {where}, and there was one: {evidence}", fix=fix)
        else:
            yield Finding(OK, f"no store yet at {where}; the first create makes it")
        return
    yield Finding(OK, f"{where}: UUID {identity}")
    if directory is None and where.startswith("ostree:"):
        yield Finding(
            OK, f"{where} is on a server and answers; it is only read: images are created and tagged elsewhere"
        )
    elif directory is None:
        yield Finding(OK, f"{where} is on a server and answers; whether it takes commits is seen at the first one")
    elif (
        not all(os.access(path, os.W_OK) for path in (directory / "db", directory / "objects") if path.exists())
        or os.statvfs(directory).f_flag & os.ST_RDONLY
    ):
        how = f"mount -o remount,rw {directory}" if os.geteuid() == 0 else "sudo avsimage -c check"
        yield Finding(FAIL, f"{directory} cannot be written", fix=how)
    else:
        yield Finding(OK, f"{directory} can be written")


def verified(store: Store, state: Path, image: str) -> Iterator[Finding]:
    """When all of it was verified. image: one that verify can be called with, or IMAGE."""
    identity = store.identity()
    if not identity:
        return
    date = records.texts(state / NOTE).get(identity, "")
    fix = f"avsimage -c verify {image} --deep"
    if not date:
        yield Finding(WARN, "the whole store was never verified from here", fix=fix)
        return
    age = datetime.now(timezone.utc) - datetime.fromisoformat(date.replace("Z", "+00:00"))
    old = age > OLD
    yield Finding(WARN if old else OK, f"the whole store was verified on {date}", fix=fix if old else "")
