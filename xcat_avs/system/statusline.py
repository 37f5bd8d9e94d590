"""The status line of a terminal: what runs, since when, how far it is. It alone imports `rich`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Optional, TextIO

from xcat_avs.system.meter import Far

NARROW = 60  # columns; on less than these, how far something is is one number
BAR = 16  # columns
ERASE_BELOW = "\x1b[J"


class StatusLine:
    """One line, which is drawn anew in its place. Raises ImportError where there is no rich."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, markup=False, emoji=False, highlight=False)
        # Without a thread: there is none when programs are started, and none that may be refused.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def show(self, activity: str, seconds: float, far: Optional[Far], last: str) -> None:
        """Draw it. last: the last output."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        def text(words: str) -> Text:
            return Text(words, no_wrap=True, overflow="ellipsis")

        # As it is now, and not as COLUMNS says, which rich would go by.
        with suppress(OSError, ValueError):  # it is no terminal, as in a test
            self._console.width = os.get_terminal_size(self._stream.fileno()).columns or self._console.width
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column()
        cells: list[object] = [text(activity), text(f"{seconds:.0f}s")]
        wide = self._console.width >= NARROW
        if far and far.total and wide:
            cells.append(ProgressBar(far.total, far.done, width=BAR, complete_style="cyan"))
        cells += [text(str(far) if wide else far.short)] if far else []
        for _ in cells[1:]:
            row.add_column(no_wrap=True)  # whole; the activity and the last output are made to fit
        row.add_column()
        row.add_row(*cells, text(last))  # type: ignore[arg-type]
        if not self._live.is_started:
            self._live.start()
            self._console.show_cursor(True)  # whatever stops or kills this process, the terminal has its cursor
        # Where a terminal has become narrower, the last one may be folded: below the cursor, which waits at its start.
        self._stream.write(ERASE_BELOW)
        self._live.update(row, refresh=True)
        self._stream.write("\r")
        self._stream.flush()

    def say(self, line: str) -> None:
        """Print a line above it, which stays."""
        self._console.print(line, soft_wrap=True)

    def clear(self) -> None:
        """Take it back."""
        self._live.stop()
