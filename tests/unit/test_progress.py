"""Progress: messages always, a status line on a terminal only."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xcat_avs.system.meter import READ, Far
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner

TOKEN = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]|.", re.DOTALL)
COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;)")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Screen:
    """What a terminal shows. cursor: whether it is seen. widest: the longest line that ever was."""

    def __init__(self, columns: int = 80) -> None:
        self.columns, self.cursor, self.widest = columns, True, 0
        self.lines, self._row, self._column = [""], 0, 0

    @classmethod
    def of(cls, text: str) -> Screen:
        screen = cls()
        screen.feed(text)
        return screen

    def feed(self, text: str) -> None:
        for token in TOKEN.findall(text):
            if token == "\n":
                self._row, self._column = self._row + 1, 0  # a terminal makes \r\n of it
                self.lines += [""] * (self._row == len(self.lines))
            elif token == "\r":
                self._column = 0
            elif token.endswith("K"):
                self.lines[self._row] = "" if token == "\x1b[2K" else self.lines[self._row][: self._column]
            elif token.endswith("A"):
                self._row -= int(token[2:-1] or 1)
            elif token == "\x1b[J":
                self.lines[self._row :] = [self.lines[self._row][: self._column]]
            elif token in ("\x1b[?25h", "\x1b[?25l"):
                self.cursor = token.endswith("h")
            elif not token.startswith("\x1b"):
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + token + line[self._column + 1 :]
                self._column += 1
                self.widest = max(self.widest, self._column)

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def shown(stream: io.StringIO) -> list[str]:
    screen = Screen.of(stream.getvalue())
    assert screen.cursor, "whatever stops this process, the cursor is there"
    return screen.shown


@pytest.fixture(autouse=True)
def term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal of who runs the tests."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


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
    progress = Progress(stream)
    progress.begin("generate_image", "step 2 of 7")
    assert shown(stream) == ["generate_image (step 2 of 7)  0s"]
    clock[0] += 0.1
    before = stream.getvalue()
    progress.tick(log)
    assert stream.getvalue() == before, "not more often than INTERVAL"
    clock[0] += 61
    progress.tick(log)
    assert shown(stream) == ["generate_image (step 2 of 7)  61s  Unpacking bash ..."]
    progress.say("a message")
    assert shown(stream) == ["a message", "generate_image (step 2 of 7)  61s  Unpacking bash ..."]
    clock[0] += 1
    progress.end()
    assert shown(stream) == ["a message", "generate_image (step 2 of 7)  62s"], "what was done stays, with its seconds"
    clock[0] += 61
    progress.tick(log)
    assert len(shown(stream)) == 2, "nothing runs any more"


def test_a_status_line_says_how_far_it_is(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("committing")
    clock[0] += 30
    progress.tick(None, lambda: Far(412 << 20, 1013 << 20, READ))
    assert re.fullmatch(r"committing  30s  [━╸ ]+  412 of 1013M read", shown(stream)[-1])
    assert COLOR.search(stream.getvalue())
    clock[0] += 1
    progress.tick(None, lambda: Far(20 << 20, 0, READ))
    assert shown(stream)[-1] == "committing  31s  20M read", "of what nobody knows the size there is no bar"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    progress = Progress(plain)
    progress.begin("committing")
    clock[0] += 30
    progress.tick(None, lambda: Far(412 << 20, 1013 << 20, READ))
    assert "412 of 1013M read" in shown(plain)[-1]
    assert not COLOR.search(plain.getvalue())


def test_a_status_line_is_one_line_without_control_characters(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\ttab [bold]:smile: " + b"x" * 300 + b"\n")
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("x")
    clock[0] += 10
    progress.tick(log)
    (line,) = shown(stream)
    assert line.startswith(r"x  10s  \x1b[31mred\x1b[0m\ttab [bold]:smile: xxx")
    assert len(line) <= 80
    progress.say("y" * 200)
    assert shown(stream)[0] == "y" * 200, "a message is not cut"
    assert len(shown(stream)[-1]) <= 80


def test_a_log_that_is_not_there_yet(tmp_path: Path, clock: list[float]) -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("x")
    clock[0] += 10
    progress.tick(tmp_path / "none")
    assert shown(stream) == ["x  10s"]


SHOWS = """
import os, sys, time
from pathlib import Path
from xcat_avs.system import progress, suspend
from xcat_avs.system.meter import Far
os.setpgrp()
suspend.follow_terminal()
progress.INTERVAL = 0
progress = progress.Progress(sys.stderr)
progress.open("create")
progress.begin("checking out 2026-11-26-07-00-00-debian12-by-root", "step 1 of 3")
while True:
    time.sleep(0.05)
    progress.tick(Path(sys.argv[1]), lambda: Far(412 << 20, 1013 << 20, "read"))
"""


def resize(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A real one: the end of who looks at it, and that of a program."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def said(descriptor: int, words: str) -> str:
    """What comes until these words are there."""
    text, deadline = "", time.monotonic() + 20
    while words not in text:
        assert select.select([descriptor], [], [], deadline - time.monotonic())[0], text
        text += os.read(descriptor, 65536).decode("utf-8", "replace")
    return text


def test_a_status_line_is_as_wide_as_the_terminal_is_now(terminal: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 300)
    resize(terminal[0], 80)
    env = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}
    ours, theirs = terminal
    job = subprocess.Popen(
        [sys.executable, "-c", SHOWS, str(tmp_path / "log")], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    try:
        first = said(ours, "412 of 1013M read")
        assert Screen.of(first).widest <= 80
        for columns, words in ((40, "40% read"), (120, "412 of 1013M read  xxxxxx")):
            resize(ours, columns)
            said(ours, "\r\x1b[2K")
            screen = Screen(columns)
            screen.feed(said(ours, words))
            assert screen.widest <= columns
            assert len(screen.shown) == 1
        # Ctrl-Z and fg: nothing is drawn meanwhile, and then it is there again.
        os.killpg(job.pid, signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(job.pid, os.WUNTRACED)[1])
        last = ""
        while select.select([ours], [], [], 0.2)[0]:
            last += os.read(ours, 65536).decode("utf-8", "replace")
        assert Screen.of("\x1b[?25h" + last).cursor
        os.killpg(job.pid, signal.SIGCONT)
        assert "\r\x1b[2Kchecking out" in said(ours, "1013M read")
    finally:
        job.kill()
        job.wait()


def test_a_terminal_that_cannot_take_a_line_back(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress = Progress(stream)
    progress.open("create")
    progress.begin("generate_image")
    assert stream.getvalue() == "generate_image\n", "the first word comes at once"
    clock[0] += 11
    progress.tick(None, lambda: Far(5 << 20, 9 << 20, READ))
    progress.end()
    progress.close()
    assert stream.getvalue() == "generate_image\ngenerate_image  11s  5 of 9M read\n"


def test_without_rich_there_are_plain_lines(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"] + ["rich.console"]:
        monkeypatch.setitem(sys.modules, name, None)
    stream = Terminal()
    progress = Progress(stream)
    progress.open("create", at_once=True)
    progress.begin("generate_image")
    clock[0] += 11
    progress.tick(None)
    progress.end()
    progress.close()
    assert stream.getvalue() == "generate_image\ngenerate_image  11s\n"


def test_without_a_terminal_a_line_each_ten_seconds(clock: list[float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Unpacking bash ...\n")
    stream = io.StringIO()
    progress = Progress(stream)
    progress.open("create")
    progress.begin("generate_image")
    for _ in range(35):
        clock[0] += 1
        progress.tick(log)
    lines = [f"generate_image  {seconds}s  Unpacking bash ..." for seconds in (10, 20, 30)]
    assert stream.getvalue().splitlines() == lines
    progress.end()
    progress.begin("tag")
    clock[0] += 6
    progress.tick(log)
    assert len(stream.getvalue().splitlines()) == 4, "ten seconds between two lines, whatever they are about"
    log.write_bytes(b"\xff" * 5000)
    clock[0] += 6
    progress.tick(log)
    assert len(stream.getvalue().splitlines()[-1]) < 300, "what programs say may have no end"


def test_what_the_run_is_called_is_shown_where_it_takes_a_while(clock: list[float]) -> None:
    stream = Terminal()
    Progress(stream).open("create", at_once=True)
    assert shown(stream) == ["create  0s"]
    stream = Terminal()
    progress = Progress(stream)
    progress.open("create")
    progress.tick(None)
    assert stream.getvalue() == "", "a short answer has no status line before it"
    clock[0] += 0.6
    progress.tick(None)
    assert shown(stream) == ["create  1s"]
    progress.begin("step")
    progress.end()
    clock[0] += 0.6
    progress.tick(None)
    assert shown(stream) == ["step  0s", "create  1s"]
    progress.begin("one")
    clock[0] += 5
    progress.begin("two")
    progress.end()
    progress.close()
    assert shown(stream) == ["step  0s", "one  5s", "two  0s"], "what begins ends what was before"
    clock[0] += 100
    progress.tick(None)
    assert len(shown(stream)) == 3, "all is said"


def test_rich_is_imported_where_something_long_runs_on_a_terminal() -> None:
    script = """
import io, sys
from xcat_avs import cli
from xcat_avs.system.progress import Progress
class Terminal(io.StringIO):
    def isatty(self): return True
for stream in (io.StringIO(), Terminal()):
    progress = Progress(stream, verbose=True)
    progress.open("status")
    progress.say("x")
    progress.tick(None)
    progress.close()
before = "rich" in sys.modules
progress.begin("x")
print(before, "rich" in sys.modules)
"""
    env = {**os.environ, "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


class Heard:
    """A progress that remembers how far programs were."""

    def __init__(self) -> None:
        self.all: list[Far] = []

    def started(self, argv: object) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def tick(self, log: object, far: object) -> None:
        found = far()  # type: ignore[operator]
        self.all += [found] if found else []


def test_how_far_programs_are_is_what_they_have_read(tmp_path: Path) -> None:
    size = 8 << 20
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"x" * size)
    heard = Heard()
    runner = Runner(tmp_path / "log", progress=heard)
    script = "head -c 4194304 one >out; sleep 0.2; cat one >out; sleep 0.2"
    runner.sized(4 * size).run(["sh", "-c", script], cwd=tmp_path)
    done = [far.done for far in heard.all]
    assert done == sorted(done), "what ended is not forgotten"
    assert any(size // 2 <= count < size for count in done)
    assert size * 3 // 2 <= done[-1] < 2 * size
    heard.all.clear()
    runner.sized(size, "written").run(["sh", "-c", "cat one >out; sleep 0.2"], cwd=tmp_path)
    assert heard.all[-1] == Far(size, size, "written")
    # In a pipe, one of them reads the files.
    heard.all.clear()
    runner.sized(2 * size, program="cat").pipe([["cat", "one"], ["sh", "-c", "sleep 0.3; tail -c +1"]], cwd=tmp_path)
    assert 0 < heard.all[0].done <= heard.all[-1].done <= size + (1 << 16)


def test_how_far_a_stream_is_that_is_read_here(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * (4 << 20))
    heard = Heard()
    with Runner(tmp_path / "log", progress=heard).reading(["cat"], stdin=tmp_path / "in") as stream:
        while stream.read(1 << 20):
            pass
    assert heard.all[0].total == 4 << 20
    assert heard.all[-1] == Far(4 << 20, 4 << 20, READ)


def test_of_a_script_only_the_first_line_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    Progress(stream, verbose=True).started(["sh", "-c", "\nset -e\nrm -f x\n", "a\n"])
    assert stream.getvalue() == "+ sh -c set -e ... a\n"
