"""The one harness: runs of the command in an installation below a directory, and what a test leaves behind there.

Three kinds of installations are made of it: files as a user writes them (cli/conftest.py), definitions and directories
as values (integration/harness.py), and a management node with the programs of xCAT (fakes/node.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Union

import warm

TOP = Path(__file__).resolve().parents[1]
SECONDS = 90.0  # no run of the command takes longer, however slow the machine


@dataclass(frozen=True)
class Result:
    """One run of a program."""

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0  # that the test waited for it

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def document(self) -> dict[str, Any]:
        """The answer of a run with --json."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def error(self) -> str:
        """All from `Error: ` on, of a run that failed in words."""
        assert "Error: " in self.stderr, str(self)
        assert self.code == 1 or "interrupted by" in self.stderr, str(self)
        assert "Traceback" not in self.stderr, str(self)
        assert "this is a defect of avsimage" not in self.stderr, str(self)
        return self.stderr[self.stderr.index("Error: ") :]


class Node:
    """Runs below top, each in a session of its own and without a stdin; their output is kept in files."""

    errors = "replace"  # how bytes in an output that are no UTF-8 are read

    def __init__(self, top: Path) -> None:
        self.top = top
        self.started: list[subprocess.Popen[Any]] = []
        self._outputs: dict[int, tuple[IO[bytes], IO[bytes]]] = {}

    @property
    def conf(self) -> Path:
        return self.top / "avs.conf"

    def launch(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        prefix: Sequence[str] = (),
        cwd: Union[str, Path] = "",
    ) -> subprocess.Popen[Any]:
        """Start a program. prefix: what runs it, such as setpriv."""
        # Files stand for a terminal; a pipe that a killed grandchild kept open would hang the test.
        streams = out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        where = cwd or self.top
        if not prefix and (list(argv[: len(warm.MODULE)]) == warm.MODULE or warm.is_fake(argv)):
            process = warm.popen(argv, env=env, cwd=where, out=out, err=err, session=True)
        else:
            process = subprocess.Popen(
                [*prefix, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=where, start_new_session=True
            )  # fmt: skip
        self._outputs[process.pid] = streams
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[Any], seconds: float = SECONDS) -> Result:
        """Wait for a started program."""
        began = time.monotonic()
        try:
            process.wait(seconds)
        except BaseException:
            kill(process)
            raise
        out, err = (self._read(stream) for stream in self._outputs.pop(process.pid))
        self.started.remove(process)
        return Result(process.returncode, out, err, time.monotonic() - began)

    def _read(self, stream: IO[bytes]) -> str:
        with stream:
            stream.seek(0)
            return stream.read().decode("utf-8", self.errors)

    def leftovers(self) -> list[str]:
        """Mounts and processes below the top."""
        return [*mounts_below(self.top), *(f"{pid}: {text}" for pid, text in processes_below(self.top).items())]

    def assert_clean(self, seconds: float = 5) -> None:
        """Nothing is left mounted or running; the kernel may take a moment for what it kills."""
        wait_until(lambda: not self.leftovers(), seconds, lambda: f"left behind: {self.leftovers()}")

    def close(self) -> list[str]:
        """End and unmount all; returns what a test left."""
        left = [f"process {process.args!r}" for process in self.started if process.poll() is None]
        for process in self.started:
            kill(process)
        deadline = time.monotonic() + 5
        while (found := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in processes_below(self.top):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for point in sorted(mounts_below(self.top), reverse=True):
            subprocess.run(["umount", point], check=False, timeout=30)
        return left + found


def kill(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait(30)


def wait_until(
    true: Callable[[], object], seconds: float = 30, text: Callable[[], str] = lambda: "never happened"
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, text()
        time.sleep(0.01)


def mounts_below(top: Path) -> list[str]:
    """Mount points below a directory in the namespace of the tests."""
    points = []
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        escaped = line.split(b" ")[1]
        point = os.fsdecode(escaped.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\134", b"\\"))
        if point.startswith(f"{top}/"):
            points.append(point)
    return points


def processes_below(top: Path) -> dict[int, str]:
    """Living processes that name, or are in, a directory below top."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        if int(proc.name) == os.getpid():
            continue
        try:
            state = (proc / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[0]
            if state in "ZX":
                continue
            seen = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            links = [os.readlink(proc / name) for name in ("cwd", "root", "exe")]
        except OSError:
            continue
        if str(top) in seen or any(f"{top}/" in f"{link}/" for link in links):
            found[int(proc.name)] = f"{seen.strip()} in {links[0]}"
    return found
