"""The streams and signals of this process while another program has the terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional


def on_terminal() -> bool:
    """Whether both the input and the output of this process are terminals."""
    return os.isatty(0) and os.isatty(1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Leave Ctrl-C to the program that has the terminal; this process waits for its end.

    Nor does that program inherit what Python ignores for itself: it ends where nobody reads what it writes.
    """
    # Not SIG_IGN, which the program would inherit.
    ours: dict[signal.Signals, Any] = {signal.SIGINT: lambda _signum, _frame: None}
    ours.update(dict.fromkeys((signal.SIGPIPE, signal.SIGXFSZ), signal.SIG_DFL))
    before = {number: signal.signal(number, action) for number, action in ours.items()}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@contextmanager
def stdout_is(descriptor: int) -> Iterator[None]:
    """Have what is written to the standard output go to another descriptor for the block."""
    saved = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def typed(value: str, encoding: Optional[str]) -> str:
    """A value that was typed on a terminal whose encoding is not UTF-8."""
    if value.isprintable() or not encoding:
        return value
    try:
        return os.fsencode(value).decode(encoding)
    except (UnicodeError, LookupError):
        return value
