"""Show progress on stderr. A Progress is handed to the functions that work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, TextIO

from xcat_avs.escape import first_lines, printable
from xcat_avs.system import command
from xcat_avs.system.locks import Tell

INTERVAL = 0.5  # seconds between two states of the status line
LINE_INTERVAL = 30.0  # seconds between two lines where there is no status line
COLUMNS = 80  # of a terminal that does not tell


class Progress:
    """Messages, warnings, and on a terminal one status line: what runs, since when, its last output.

    Elsewhere, and on a terminal that cannot take a line back, what would stand there is a line now and then.
    """

    def __init__(self, stream: TextIO, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._terminal = stream.isatty()
        self._status_line = self._terminal and os.environ.get("TERM") != "dumb"
        self._whole = ""  # what all of it is called
        self._activity = ""
        self._started = self._shown = time.monotonic()
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

    def open(self, whole: str, at_once: bool = False) -> None:
        """What the whole run is called. It is shown, at once or where it takes a while, until it has an activity."""
        self._whole = self._activity = whole
        self._started = self._shown = time.monotonic()
        if at_once and self._status_line:
            self._draw(None)

    def begin(self, activity: str, place: str = "") -> None:
        """Set the activity that is shown, and printed with -V. place: among others, `step 3 of 7`."""
        for tell in self._told:
            tell(f"{activity} ({place})" if place else activity)
        self._activity, self._started = activity, time.monotonic()
        if self._status_line:
            self.verbose(activity)
            self._draw(None)
        elif self._terminal or self._verbose:
            self.say(activity)

    def end(self) -> None:
        self._activity, self._started = self._whole, time.monotonic()
        self._clear()

    def close(self) -> None:
        """All is done: take the status line back, and show none any more."""
        self._whole = self._activity = ""
        self._clear()

    def tick(self, log: Optional[Path]) -> None:
        """Show anew what runs, where that is due."""
        due = INTERVAL if self._status_line else LINE_INTERVAL
        if self._activity and time.monotonic() - self._shown >= due:
            self._draw(log)

    def _draw(self, log: Optional[Path]) -> None:
        self._shown = time.monotonic()
        last = command.tail(log, 1) if log else []
        text = printable(f"{self._activity}  {self._shown - self._started:.0f}s  {last[0] if last else ''}")
        if not self._status_line:
            self.say(text.rstrip())
            return
        # The terminal can only clear one line, and some begin another one once the last column is written.
        self._stream.write(f"\r\033[K{text[: self._columns() - 1]}")
        self._stream.flush()
        self._drawn = True

    def _columns(self) -> int:
        """The width of the terminal as it is now."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):  # it is none, as in a test
            columns = 0
        given = os.environ.get("COLUMNS", "")
        return columns or (int(given) if given.isdecimal() else 0) or COLUMNS

    def started(self, argv: Sequence[str]) -> None:
        """Print a program that is started, with -V."""
        self.verbose(f"+ {first_lines(argv)}")

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._drawn = False
