"""One file in two versions."""

from __future__ import annotations

import difflib
import hashlib
from typing import Any, Optional


def unified(before: str, after: str, old: str, new: str) -> str:
    """What differs between two texts, as `diff -u` has it. old, new: what the two are called."""
    return "".join(difflib.unified_diff(_lines(before), _lines(after), old, new))


def facts(data: Optional[bytes]) -> Optional[dict[str, Any]]:
    """Size in bytes and SHA-256; None for a file that is not there."""
    return None if data is None else {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def text(data: Optional[bytes]) -> Optional[str]:
    """The file as text; None for what is none. A file that is not there has no lines."""
    try:
        found = (data or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in found else found


def _lines(text: str) -> list[str]:
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + ([f"{last}\n\\ No newline at end of file\n"] if last else [])
