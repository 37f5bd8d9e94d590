"""Progress: messages always, a status line on a terminal only."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from xcat_avs.system.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal of who runs the tests."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr("xcat_avs.system.progress.time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_only_messages() -> None:
    stream = io.StringIO()
    shown = Progress(stream)
    shown.begin("generate_image")
    shown.tick(None)
    shown.verbose("a secret of -V")
    shown.say("done before")
    shown.warn("something odd")
    shown.started(["rpm", "-qa"])
    shown.tick(None)
    shown.end()
    assert stream.getvalue() == "done before\nWarning: something odd\n"


def test_verbose() -> None:
    stream = io.StringIO()
    shown = Progress(stream, verbose=True)
    shown.begin("generate_image")
    shown.started(["rpm", "-qa"])
    shown.verbose("more")
    shown.end()
    assert stream.getvalue() == "generate_image\n+ rpm -qa\nmore\n"


def test_a_status_line_says_what_since_when_and_the_last_output(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "log"
    log.write_text("first\nUnpacking bash ...\n")
    stream = Terminal()
    shown = Progress(stream)
    shown.begin("generate_image")
    assert stream.getvalue() == "\r\033[Kgenerate_image  0s  "
    clock[0] += 0.1
    shown.tick(log)
    assert stream.getvalue().count("\r") == 1, "not more often than INTERVAL"
    clock[0] += 61
    shown.tick(log)
    assert stream.getvalue().endswith("\r\033[Kgenerate_image  61s  Unpacking bash ...")
    shown.say("a message")
    assert stream.getvalue().endswith("\r\033[Ka message\n")
    shown.end()
    assert stream.getvalue().endswith("a message\n"), "nothing to take back"
    clock[0] += 61
    shown.tick(log)
    assert stream.getvalue().endswith("a message\n"), "nothing runs any more"


def test_a_status_line_is_taken_back_at_the_end(clock: list[float]) -> None:
    stream = Terminal()
    shown = Progress(stream)
    shown.begin("x")
    shown.end()
    assert stream.getvalue().endswith("\r\033[K")
    assert clock


def test_a_status_line_is_one_line_without_control_characters(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\ttab " + b"x" * 300 + b"\n")
    stream = Terminal()
    shown = Progress(stream)
    shown.begin("x")
    clock[0] += 10
    shown.tick(log)
    last = stream.getvalue().rsplit("\r\033[K", 1)[-1]
    assert len(last) <= 79
    assert last.isprintable()


def test_a_log_that_is_not_there_yet(tmp_path: Path, clock: list[float]) -> None:
    stream = Terminal()
    shown = Progress(stream)
    shown.begin("x")
    clock[0] += 10
    shown.tick(tmp_path / "none")
    assert stream.getvalue().endswith("x  10s  ")


def resize(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A real one: the end of who looks at it, and that of a program."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_a_status_line_is_as_wide_as_the_terminal_is_now(
    terminal: tuple[int, int], tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 300)
    with open(terminal[1], "w", closefd=False) as stream:
        shown = Progress(stream)
        shown.begin("generate_image")
        for columns, given in ((60, ""), (100, ""), (0, ""), (0, "40")):
            resize(terminal[0], columns)
            monkeypatch.setenv("COLUMNS", given)
            clock[0] += 10
            os.read(terminal[0], 4096)
            shown.tick(log)
            line = os.read(terminal[0], 4096).decode().removeprefix("\r\033[K")
            assert len(line) == (columns or int(given or 80)) - 1
            shown.say("")


def test_a_terminal_that_cannot_take_a_line_back(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    shown = Progress(stream)
    shown.open("create")
    shown.begin("generate_image")
    assert stream.getvalue() == "generate_image\n", "the first word comes at once"
    clock[0] += 31
    shown.tick(None)
    shown.close()
    assert stream.getvalue() == "generate_image\ngenerate_image  31s\n"


def test_without_a_terminal_a_line_each_half_minute(clock: list[float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Unpacking bash ...\n")
    stream = io.StringIO()
    shown = Progress(stream)
    shown.open("create")
    shown.begin("generate_image")
    for _ in range(95):
        clock[0] += 1
        shown.tick(log)
    lines = [f"generate_image  {seconds}s  Unpacking bash ..." for seconds in (30, 60, 90)]
    assert stream.getvalue().splitlines() == lines


def test_what_the_run_is_called_is_shown_where_it_takes_a_while(clock: list[float]) -> None:
    stream = Terminal()
    shown = Progress(stream)
    Progress(stream).open("create", at_once=True)
    assert stream.getvalue() == "\r\033[Kcreate  0s  "
    stream.truncate(0)
    stream.seek(0)
    shown.open("create")
    shown.tick(None)
    assert stream.getvalue() == "", "a short answer has no status line before it"
    clock[0] += 0.6
    shown.tick(None)
    assert stream.getvalue() == "\r\033[Kcreate  1s  "
    shown.begin("step")
    shown.end()
    clock[0] += 0.6
    shown.tick(None)
    assert stream.getvalue().endswith("\r\033[Kcreate  1s  ")
    shown.close()
    assert stream.getvalue().endswith("\r\033[K")
    clock[0] += 100
    shown.tick(None)
    assert stream.getvalue().endswith("\r\033[K"), "all is said"


def test_of_a_script_only_the_first_line_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    Progress(stream, verbose=True).started(["sh", "-c", "\nset -e\nrm -f x\n", "a\n"])
    assert stream.getvalue() == "+ sh -c set -e ... a\n"
