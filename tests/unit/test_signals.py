"""How the programs that tests start take signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# A controller and one of its workers, both alive after a hangup, and what they start.
CODE = """
import os, signal, subprocess, sys
import conftest
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGINT)
subprocess.run(["sed", "-n", "s/^SigIgn://p", "/proc/self/status"], check=True)
sys.argv[1:] and sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
"""


def test_a_run_in_the_background_hands_on_no_ignored_signals() -> None:
    argv = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", sys.executable, "-c", CODE, CODE]
    done = subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, check=True)
    masks = [int(line, 16) for line in done.stdout.split()]
    assert len(masks) == 2
    assert [mask & 0b11 for mask in masks] == [0, 0]
