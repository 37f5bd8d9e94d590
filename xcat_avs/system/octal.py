"""Bytes in texts that are plain words: a backslash and octal digits, as manifests, printf(1) and /proc/mounts have it."""

from __future__ import annotations

import os
import re
from re import Pattern

NAMES = "A-Za-z0-9_./:,+@~^-"  # what stands for itself in every form


class Octal:
    """One form of it: what else stands for itself, and the digit that stands before the three."""

    def __init__(self, plain: str = "", lead: str = "") -> None:
        self._lead = f"\\{lead}".encode("ascii")
        self._special: Pattern[bytes] = re.compile(f"[^{plain}{NAMES}]".encode("ascii"))
        self._escaped: Pattern[bytes] = re.compile(re.escape(self._lead) + rb"([0-7]{3})")

    def escape(self, text: str) -> str:
        """A name, of any bytes, as one word."""
        lead = self._lead
        return self._special.sub(lambda match: lead + b"%03o" % match.group()[0], os.fsencode(text)).decode("ascii")

    def unescape(self, word: str) -> str:
        """The name that a word stands for. Raises ValueError for digits that are no byte."""
        if "\\" not in word:
            return word
        return os.fsdecode(self._escaped.sub(lambda match: bytes([int(match.group(1), 8)]), os.fsencode(word)))
