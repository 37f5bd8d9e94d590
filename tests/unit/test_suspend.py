"""Ctrl-Z and fg, of a process that does its work itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xcat_avs.system import suspend

# As a shell with job control starts it: in a process group of its own, in its session.
JOB = """
import os, sys
from pathlib import Path
from xcat_avs.system import suspend
from xcat_avs.system.runner import Runner
os.setpgrp()
suspend.follow_terminal()
Runner(Path(sys.argv[1]), 60).run(["sh", "-c", "while :; do echo x; sleep 0.02; done"])
"""


def grows(log: Path) -> bool:
    before = log.stat().st_size if log.exists() else 0
    time.sleep(0.1)
    return log.exists() and log.stat().st_size > before


def test_a_process_stops_with_its_programs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = subprocess.Popen([sys.executable, "-c", JOB, str(log)])
    try:
        deadline = time.monotonic() + 20
        while not grows(log):
            assert time.monotonic() < deadline
        os.killpg(job.pid, signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(job.pid, os.WUNTRACED)[1])
        assert not grows(log)
        os.killpg(job.pid, signal.SIGCONT)
        while not grows(log):
            assert time.monotonic() < deadline
        os.killpg(job.pid, signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(job.pid, os.WUNTRACED)[1])
    finally:
        os.killpg(job.pid, signal.SIGCONT)
        job.send_signal(signal.SIGINT)
        job.wait()
    assert not grows(log), "the program is ended"


def test_what_is_being_started_is_stopped_once_it_is_known() -> None:
    said: list[str] = []
    with suspend.starting():
        suspend.when_known(lambda: said.append("stopped"))
        assert said == []
    assert said == ["stopped"]
    suspend.when_known(lambda: said.append("at once"))
    assert said == ["stopped", "at once"]


def test_the_time_in_which_this_process_is_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("xcat_avs.system.suspend.time.monotonic", lambda: now[0])
    clock = suspend.Clock()
    seconds = []
    for step in (1, 2, 3600, 1):
        now[0] += step
        seconds.append(clock.seconds())
    assert seconds == [1, 3, 3, 4]
