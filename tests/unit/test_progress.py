"""Progress: messages always, a status line on a terminal only."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from xcat_avs.system.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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
