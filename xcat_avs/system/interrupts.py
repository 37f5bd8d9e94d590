"""Signals that ask us to stop: the first of them is raised as Interrupted, once, and is not lost."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, Optional

from xcat_avs.errors import Interrupted
from xcat_avs.system import suspend

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON = 0.005  # seconds


def follow() -> None:
    """Raise Interrupted from now on. What is ignored stays so: nohup stays nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _dropped


def let_be(_signum: int, _frame: Optional[FrameType]) -> None:
    """Not SIG_IGN: of a signal that has come by then, Python would write a traceback."""


def _interrupt(signum: int, _frame: Optional[FrameType]) -> None:
    for number in SIGNALS:
        signal.signal(number, let_be)  # the first one counts; cleaning up is not interrupted again

    def stop() -> None:
        raise Interrupted(signum)

    suspend.when_known(stop)  # so that what is being started is ended, too


def _dropped(what: Any) -> None:
    """Python drops what is raised in a finalizer or a callback, which may be where a signal came: raise it once more."""
    if isinstance(what.exc_value, Interrupted):
        number = what.exc_value.signum
        signal.signal(signal.SIGALRM, lambda _signum, frame: _interrupt(number, frame))
        signal.setitimer(signal.ITIMER_REAL, SOON)
    else:
        sys.__unraisablehook__(what)
