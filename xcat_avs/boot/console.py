"""The console of a virtual machine, read until it says that all is up, or that nothing will be."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import IO, Any, Callable

from xcat_avs.boot import judge
from xcat_avs.boot.judge import Heard
from xcat_avs.errors import AvsError
from xcat_avs.system import suspend

TURN = 0.5  # seconds between two looks at the clock
AFTER = 3.0  # seconds for the lines that follow a panic
READ, WINDOW = 2048, 8192  # bytes that are read at once, characters at the end that are searched
MOST = (
    16 << 20
)  # characters that a boot may say, for all of them are kept; a real serial port takes 20 minutes for these


def patterns(success: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What says that it is up, and that it never will be. Raises AvsError for no regular expression."""
    try:
        return re.compile(success or judge.SUCCESS), re.compile(judge.FATAL)
    except re.error as err:
        raise AvsError(f"[boot] success is no regular expression: {success!r}: {err}") from None


def library() -> Any:
    """pexpect. Raises AvsError where it is not installed: no other mode needs it."""
    try:
        import pexpect
        import pexpect.fdpexpect
    except ImportError:
        package = "it is in the package python3-pexpect"
        where = package if sys.prefix == sys.base_prefix else f"`{sys.executable} -m pip install pexpect`"
        raise AvsError(f"the console is read by pexpect, a library of Python that is not installed; {where}") from None
    return pexpect


class Console:
    """What a machine says. stream: its serial port; log: takes all of it; tick(): is called some times a second."""

    def __init__(self, stream: IO[bytes], log: Path, tick: Callable[[], None]) -> None:
        pexpect = library()
        self._eof, self._timeout, self._tick = pexpect.EOF, pexpect.TIMEOUT, tick
        self._log = open(log, "ab")  # noqa: SIM115
        self._child: Any = pexpect.fdpexpect.fdspawn(stream, encoding="utf-8", codec_errors="replace", maxread=READ)
        self._child.logfile_read = self
        self._clock = suspend.Clock()
        self._said: list[str] = []
        self._length = 0

    def close(self) -> None:
        self._log.close()

    def write(self, text: str) -> None:
        """Take what was read, for the log."""
        self._said.append(text)
        self._length += len(text)
        self._log.write(text.encode("utf-8"))

    def flush(self) -> None:
        self._log.flush()

    @property
    def text(self) -> str:
        return "".join(self._said)

    def seconds(self) -> float:
        return self._clock.seconds()

    def wait(self, wanted: list[re.Pattern[str]], until: float) -> int:
        """Read until one of the patterns comes: its number, -1 at the end of the machine, -2 at `until` seconds, -3 where it does not stop talking."""
        while self._clock.seconds() < until:
            if self._length > MOST:
                return -3
            found = int(
                self._child.expect_list([*wanted, self._eof, self._timeout], timeout=TURN, searchwindowsize=WINDOW)
            )
            self._tick()
            if found < len(wanted):
                return found
            if found == len(wanted):
                return -1
        return -2

    def spoke(self, within: float) -> int:
        """Wait for the first words: 0 where they came, -1 where the machine ended, -2 where it was silent for so many seconds."""
        return self.wait([re.compile(r"\S")], within)

    def hear(self, success: str, until: float, settle: float) -> Heard:
        """Read until it is up, or never will be. settle: seconds for what fails beside the login prompt."""
        up, fatal = patterns(success)
        found = self.wait([up, fatal], until)
        reached = " ".join(judge.plain(self._child.match.group()).split()) if found == 0 else ""
        if found == 0 and settle and not judge.UP.search(judge.plain(self.text)):
            self.wait([judge.UP], self._clock.seconds() + settle)
        if found == 1:
            self.wait([], self._clock.seconds() + AFTER)
        return Heard(self.text, reached, ended=found == -1, late=found == -2, much=found == -3)
