"""The ends of logs."""

from __future__ import annotations

import os
from pathlib import Path

TAIL_LINES = 12
TAIL_BYTES = 16384


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a log, progress bars reduced to their last state."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES))
            data = stream.read()
    except OSError:
        return []
    text = data.decode("utf-8", "replace")
    cleaned = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in cleaned if line][-lines:]
