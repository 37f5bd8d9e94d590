"""Ctrl-Z and fg: programs run in sessions of their own, so they are stopped and continued by hand."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Optional

ORDER = signal.SIGUSR1  # to the worker in a namespace: stop your programs
PATIENCE = 5.0  # seconds that a worker has for it
GAP = 5.0  # seconds between two looks at a clock that say that this process was stopped
_leaders: set[int] = set()  # of the sessions that run
_starting = False  # whether there may be one more, whose leader is not known yet
_put_off: list[Callable[[], None]] = []


@contextmanager
def leading(pid: int) -> Iterator[None]:
    """For the length of a block that session is stopped and continued with this process."""
    _leaders.add(pid)
    try:
        yield
    finally:
        _leaders.discard(pid)


@contextmanager
def starting() -> Iterator[None]:
    """In the block a program is started: what stops or ends programs waits until it is known."""
    global _starting
    _starting = True
    try:
        yield
    finally:
        _starting = False
        while _put_off:
            _put_off.pop()()


def when_known(stop: Callable[[], None]) -> None:
    """Call that now, or once it is known what is being started."""
    if _starting:
        _put_off.append(stop)
    else:
        stop()


class Clock:
    """The seconds that this process runs, without those in which it was stopped; to be looked at often."""

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, time.monotonic()

    def seconds(self) -> float:
        now = time.monotonic()
        self._seconds += now - self._last if now - self._last < GAP else 0
        self._last = now
        return self._seconds


def _signal_all(signum: int) -> None:
    """Send a signal to all programs that run, each with what it has started."""
    for leader in tuple(_leaders):
        with suppress(OSError):  # it has just ended
            os.killpg(leader, signum)


def follow_terminal() -> None:
    """Stop and continue with the terminal, and the programs too. Where Ctrl-Z is ignored it stays so."""
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, lambda _signum, _frame: when_known(_stop))


def _stop() -> None:
    _signal_all(signal.SIGSTOP)
    _stop_here()
    _signal_all(signal.SIGCONT)


def _stop_here() -> None:
    """Stop this process until it is continued; the kernel does not where nobody could continue it."""
    ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, ours)


def _let_be(_signum: int, _frame: Optional[FrameType]) -> None:
    """No SIG_IGN, which programs would inherit."""


class Worker:
    """The first process of a PID namespace, which cannot stop itself, and the one outside that stops it."""

    def __init__(self) -> None:
        self._wanted = signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN
        self._reader, self._writer = os.pipe()

    def inside(self) -> None:
        """In the worker: stop the programs when told to."""
        os.close(self._reader)
        if not self._wanted:
            return

        def stop() -> None:
            _signal_all(signal.SIGSTOP)
            os.write(self._writer, b".")

        signal.signal(signal.SIGTSTP, _let_be)  # the terminal's own; the order comes from outside
        signal.signal(ORDER, lambda _signum, _frame: when_known(stop))
        signal.signal(signal.SIGCONT, lambda _signum, _frame: _signal_all(signal.SIGCONT))

    def outside(self, worker: int) -> None:
        """In the process that waits for it."""
        os.close(self._writer)
        if not self._wanted:
            return

        def stop(_signum: int, _frame: Optional[FrameType]) -> None:
            with suppress(ProcessLookupError):
                os.kill(worker, ORDER)
                if select.select([self._reader], [], [], PATIENCE)[0]:
                    os.read(self._reader, 1)
                os.kill(worker, signal.SIGSTOP)
                _stop_here()
                os.kill(worker, signal.SIGCONT)

        signal.signal(signal.SIGTSTP, stop)
