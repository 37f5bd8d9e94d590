"""Show progress on stderr. A Progress is handed to the functions that work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional, TextIO

from xcat_avs.escape import first_lines, printable
from xcat_avs.system import command
from xcat_avs.system.locks import Tell
from xcat_avs.system.meter import Far
from xcat_avs.system.statusline import StatusLine

INTERVAL = 0.5  # seconds between two states of the status line
LINE_INTERVAL = 10.0  # seconds between two lines where there is no status line
LONGEST = 200  # characters of a last output that are in a line of a log: a console may say anything
DUMB = ("dumb", "unknown")  # terminals that cannot take a line back


class Progress:
    """Messages, warnings, and on a terminal a status line: what runs, since when, how far it is, its last output.

    What was done stays there as a line with its seconds. Elsewhere, on a terminal that cannot take a line back, and
    without rich, what would stand in the status line is a line now and then.
    """

    def __init__(self, stream: TextIO, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._terminal = stream.isatty()
        self._plain = not self._terminal or os.environ.get("TERM") in DUMB
        self._line: Optional[StatusLine] = None  # from when something takes a while
        self._whole = ""  # what all of it is called
        self._activity = ""
        self._started = self._shown = time.monotonic()
        self._told: list[Tell] = []

    def say(self, text: str) -> None:
        """Print a line for the user on stderr."""
        if self._line:
            self._line.say(printable(text))
            return
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
        if at_once and self._fit():
            self._draw(None, None)

    def begin(self, activity: str, place: str = "") -> None:
        """Set the activity that is shown, and printed with -V. place: among others, `step 3 of 7`."""
        self._over()
        text = f"{activity} ({place})" if place else activity
        for tell in self._told:
            tell(text)
        self._activity, self._started = text, time.monotonic()
        if self._fit():
            self.verbose(text)
            self._draw(None, None)
        elif self._terminal or self._verbose:
            self.say(text)

    def end(self) -> None:
        self._over()
        self._activity, self._started = self._whole, time.monotonic()
        self._clear()

    def _over(self) -> None:
        """An activity is over; how long it took stays on the terminal."""
        if self._line and self._activity != self._whole:
            self._line.say(f"{printable(self._activity)}  {time.monotonic() - self._started:.0f}s")

    def close(self) -> None:
        """All is done: take the status line back, and show none any more."""
        self._whole = self._activity = ""
        self._clear()

    def tick(self, log: Optional[Path], far: Callable[[], Optional[Far]] = lambda: None) -> None:
        """Show anew what runs, where that is due. far(): how far it is, None where nobody knows."""
        due = LINE_INTERVAL if self._plain else INTERVAL
        if self._activity and time.monotonic() - self._shown >= due:
            self._draw(log, far())

    def _fit(self) -> bool:
        """Whether there is a status line."""
        if not (self._plain or self._line):
            try:
                self._line = StatusLine(self._stream)
            except ImportError:
                self._plain = True
        return not self._plain

    def _draw(self, log: Optional[Path], far: Optional[Far]) -> None:
        self._shown = time.monotonic()
        last = (command.tail(log, 1) if log else []) or [""]
        seconds = self._shown - self._started
        if self._fit() and self._line:
            self._line.show(printable(self._activity), seconds, far, printable(last[0]))
        else:
            said = [self._activity, f"{seconds:.0f}s", str(far or ""), last[0][:LONGEST]]
            self.say("  ".join(filter(None, said)))

    def started(self, argv: Sequence[str]) -> None:
        """Print a program that is started, with -V."""
        self.verbose(f"+ {first_lines(argv)}")

    def _clear(self) -> None:
        if self._line:
            self._line.clear()
