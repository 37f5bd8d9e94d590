"""Inside the program under test: it stops before its Nth operation that changes something; and it has another clock.

tests/warm.py imports this into a forked run where AVS_TEST_INSIDE is set. An operation is what Python's audit events
say: files opened to be written, renamed, removed, locks, processes that are started.
"""

from __future__ import annotations

import datetime
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Optional

NAME = "AVS_TEST_INSIDE"  # has the module imported
STOP, SOCKET, TRACE, CLOCK = "AVS_TEST_STOP", "AVS_TEST_SOCKET", "AVS_TEST_TRACE", "AVS_TEST_CLOCK"
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.chown", "os.utime",
          "os.truncate", "os.setxattr", "os.removexattr", "os.fork", "os.forkpty", "fcntl.flock", "os.exec"}  # fmt: skip


class Counter:
    """Counts operations of the run, and of the process that it goes on in, which is the first of a namespace."""

    def __init__(self, stop: int, address: str, trace: str) -> None:
        self.left, self.address = stop, address
        self.pids = (os.getpid(), 1)
        self.trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if trace else -1

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(args[2], int) or not args[2] & CHANGING:
                return
        elif event not in EVENTS:
            return
        if os.getpid() not in self.pids:
            return
        if self.trace >= 0:
            os.write(self.trace, f"{event} {args!a}\n".encode())
        self.left -= 1
        if self.left == 0:
            self.wait()

    def wait(self) -> None:
        """Tell the fault run, and wait until it lets us go."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.address.replace("@", "\0"))
            stream.recv(1)


def shift_clock(seconds: float) -> None:
    """Have all of the program's Python believe in another time."""
    real, real_ns, gmtime, localtime, strftime = time.time, time.time_ns, time.gmtime, time.localtime, time.strftime

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: Optional[datetime.tzinfo] = None) -> Shifted:
            return cls.fromtimestamp(real() + seconds, tz)

    changed: dict[str, Any] = {
        "time": lambda: real() + seconds,
        "time_ns": lambda: real_ns() + int(seconds * 10**9),
        "gmtime": lambda when=None: gmtime(real() + seconds if when is None else when),
        "localtime": lambda when=None: localtime(real() + seconds if when is None else when),
        "strftime": lambda form, when=None: strftime(form, when or localtime(real() + seconds)),
    }
    for name, value in changed.items():
        setattr(time, name, value)
    for module in [item for name, item in sys.modules.items() if name.startswith("xcat_avs")]:
        if getattr(module, "datetime", None) is datetime.datetime:
            vars(module)["datetime"] = Shifted


def prepare(env: Mapping[str, str]) -> None:
    if env.get(CLOCK):
        shift_clock(float(env[CLOCK]))
    if env.get(STOP):
        sys.addaudithook(Counter(int(env[STOP]), env.get(SOCKET, ""), env.get(TRACE, "")))
