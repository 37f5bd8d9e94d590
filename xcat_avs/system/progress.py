"""Show progress on stderr. A Progress is handed to the functions that work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, TextIO

from xcat_avs.escape import printable
from xcat_avs.system import command
from xcat_avs.system.locks import Tell

INTERVAL = 0.5


class Progress:
    """Messages, warnings, and on a terminal one status line: what runs, since when, its last output."""

    def __init__(self, stream: TextIO, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._terminal = stream.isatty()
        self._activity = ""
        self._started = 0.0
        self._shown = 0.0
        self._drawn = False
        self._told: list[Tell] = []

    def say(self, text: str) -> None:
        """Print a line for the user on stderr."""
        self._clear()
        self._stream.write(printable(text) + "\n")
        self._stream.flush()

    def warn(self, text: str) -> None:
        self.say(f"Warning: {text}")

    def verbose(self, text: str) -> None:
        if self._verbose:
            self.say(text)

    @contextmanager
    def told(self, tell: Tell) -> Iterator[None]:
        """Tell somebody else as well, for the length of a block, what is done."""
        self._told.append(tell)
        try:
            yield
        finally:
            self._told.remove(tell)

    def begin(self, activity: str, place: str = "") -> None:
        """Set the activity that is shown on a terminal, and printed with -V. place: among others, `step 3 of 7`."""
        for tell in self._told:
            tell(f"{activity} ({place})" if place else activity)
        self._activity, self._started, self._shown = activity, time.monotonic(), 0.0
        self.verbose(activity)
        self.tick(None)

    def end(self) -> None:
        self._activity = ""
        self._clear()

    def tick(self, log: Optional[Path]) -> None:
        """Redraw the status line, at most every INTERVAL seconds."""
        now = time.monotonic()
        if not self._terminal or not self._activity or now - self._shown < INTERVAL:
            return
        self._shown = now
        last = command.tail(log, 1) if log else []
        text = f"{self._activity}  {now - self._started:.0f}s  {last[0] if last else ''}"
        # The terminal can only clear one line, so no more is written.
        shown = printable(text)[:78]
        self._stream.write(f"\r\033[K{shown}")
        self._stream.flush()
        self._drawn = True

    def started(self, argv: Sequence[str]) -> None:
        """Print a program that is started, with -V."""
        self.verbose(f"+ {' '.join(argv)}")

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\033[K")
            self._drawn = False
