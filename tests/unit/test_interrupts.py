"""A signal that asks us to stop is not lost, wherever it comes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from xcat_avs.errors import Interrupted
from xcat_avs.system import interrupts, suspend


@pytest.fixture(autouse=True)
def _followed() -> Iterator[None]:
    """This process takes signals as the command does."""
    numbers = (*interrupts.SIGNALS, signal.SIGALRM)
    before, hook = {number: signal.getsignal(number) for number in numbers}, sys.unraisablehook
    interrupts.follow()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


class Finalized:
    """Something at whose end a signal comes: Python drops what is raised there, as it does in callbacks around a fork."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            pass


def test_in_a_finalizer(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted) as caught:  # noqa: PT012
        thing = Finalized()
        del thing
        time.sleep(5)
    assert caught.value.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_while_a_program_is_started() -> None:
    """Whoever starts it can end it then."""
    known = False
    with pytest.raises(Interrupted), suspend.starting():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        known = True
    assert known


def test_a_second_one_is_let_be() -> None:
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.signum == signal.SIGTERM
