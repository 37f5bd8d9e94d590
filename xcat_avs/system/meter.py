"""How far work is whose size is known: of programs by what the kernel counts, the bytes that they read or write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Optional

READ, WRITTEN, COMPARED = "read", "written", "compared"
COUNTERS = {READ: b"rchar:", WRITTEN: b"wchar:"}  # in /proc/PID/io, which has what ended children did as well


class Far(NamedTuple):
    """How far something is, in bytes. total: 0 where that is not known. word: what is done with them."""

    done: int
    total: int
    word: str

    def __str__(self) -> str:
        of = f" of {self.total >> 20}" if self.total else ""
        return f"{self.done >> 20}{of}M {self.word}"

    @property
    def short(self) -> str:
        """The same as one number."""
        return f"{100 * self.done // self.total}% {self.word}" if self.total else str(self)


@dataclass(frozen=True)
class Size:
    """The bytes that programs have to read or write. program: the one that does, where others do as well; "" for all."""

    total: int
    word: str = READ
    program: str = ""


class Meter:
    """Counts what programs have done of a size."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._seen: Counter[int] = Counter()  # a program that has ended does not say it again

    def far(self, leaders: Collection[int]) -> Optional[Far]:
        """How far the sessions of these leaders are; None where the kernel does not say."""
        now: Counter[int] = Counter()
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
            with suppress(OSError, LookupError):  # it has ended, or does something else
                session = os.getsid(pid)
                if session in leaders:
                    count = self._count(pid)
                    now[session] = max(now[session], count) if self._size.program else now[session] + count
        self._seen |= now
        total = self._size.total
        return Far(min(sum(self._seen.values()), total), total, self._size.word) if self._seen else None

    def _count(self, pid: int) -> int:
        """What a process has read or written. Raises LookupError for another program than the one that counts."""
        if self._size.program and _read(pid, "comm").strip() != os.fsencode(self._size.program):
            raise LookupError(pid)
        words = _read(pid, "io").split()
        return int(words[words.index(COUNTERS[self._size.word]) + 1])


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as stream:
        return stream.read()
