"""The one place that starts processes. It alone imports `sh`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Callable, Optional, Protocol, Union

from xcat_avs.errors import CommandError, MissingError
from xcat_avs.system import masking, provides, suspend
from xcat_avs.system.meter import Far, Meter, Size
from xcat_avs.system.terminal import stdout_is, uninterrupted

TAIL_LINES = 12
TAIL_BYTES = 16384
PIPE_BUFFER = 1 << 18  # bytes
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
KEPT = ("HOME", "TERM", "TMPDIR", "XCATROOT", "XCATCFG", "XCATBYPASS", "XCATHOST", "SVN_SSH", "SSH_AUTH_SOCK",
        "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip


class Watcher(Protocol):
    """What shows progress."""

    def started(self, argv: Sequence[str]) -> None:
        """A program starts."""

    def tick(self, log: Optional[Path], far: Callable[[], Optional[Far]]) -> None:
        """Something is done; called some times a second.

        log: where programs write to, None if that is kept apart. far(): how far it is, None where nobody knows.
        """

    def warn(self, text: str) -> None:
        """Something is not as it should be, and no error."""


def environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment of every child, built from nothing."""
    # A relative part, or an empty one, would take programs from wherever the user stands.
    path = [part for part in os.environ.get("PATH", "/usr/bin:/bin").split(os.pathsep) if part.startswith("/")]
    # sudo, su and cron leave the sbin directories out; chroot lives there.
    path += [directory for directory in ("/usr/sbin", "/sbin") if directory not in path]
    env = {"PATH": os.pathsep.join(path), "LC_ALL": "C.UTF-8"}
    env.update({key: os.environ[key] for key in KEPT if key in os.environ})
    env.update(extra or {})
    return env


def find(program: str) -> Optional[str]:
    """The path of a program, or None."""
    return shutil.which(program, path=environment()["PATH"])


def need(*programs: str) -> str:
    """The path of the first program, or an error that names all that are missing, and their packages."""
    paths = {program: find(program) for program in programs}
    missing = [program for program, path in paths.items() if path is None]
    if missing:
        raise MissingError(provides.missing(missing))
    return paths[programs[0]] or ""


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a log, progress bars reduced to their last state."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES))
            data = stream.read()
    except OSError:
        return []
    text = data.decode("utf-8", "replace")
    cleaned = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in cleaned if line][-lines:]


def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Optional[Path], stdin: IO[bytes], out: IO[bytes],
           err: Optional[IO[bytes]]) -> Any:  # fmt: skip
    """Start one process in a session of its own; files go to it as they are, without a thread."""
    import sh

    program = need(argv[0])
    extra: dict[str, Any] = {"_err_to_out": True} if err is None else {"_err": err}
    if cwd is not None:
        extra["_cwd"] = str(cwd)
    # No close_fds: Python opens nothing that children inherit, and sh would look into /dev/fd, which a chroot may lack.
    extra["_close_fds"] = False
    try:
        return sh.Command(program)(
            *argv[1:], _bg=True, _bg_exc=False, _new_session=True, _tty_out=False, _in=stdin, _out=out, _env=dict(env), **extra
        )  # fmt: skip
    except sh.ForkException as failure:
        # Its text is a traceback from the child; the last line says why.
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
        raise CommandError(f"{argv[0]} cannot be started: {lines[-1] if lines else 'unknown reason'}") from None
    except ValueError:  # the new process has not even said its session
        raise CommandError(f"{argv[0]} was killed as it was started; is memory short?") from None


def _end(running: Sequence[Any]) -> None:
    """End the whole group of each process: SIGTERM, a while of grace, SIGKILL."""
    deadline = time.monotonic() + GRACE
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for command in running:
            with suppress(OSError):  # all of it is gone
                os.killpg(command.pid, signum)
        while any(command.process.is_alive()[0] for command in running) and time.monotonic() < deadline:
            time.sleep(0.02)
        deadline = time.monotonic() + GRACE


def describe(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"failed with exit code {code}"


@dataclass(frozen=True)
class Terms:
    """log: takes what programs say, where that is not captured, and gives an error its last lines; None for nowhere.

    timeout: seconds, 0 for none. progress: is told of each program that starts and runs. size: what they have to do.
    """

    log: Optional[Path] = None
    timeout: float = 0
    progress: Optional[Watcher] = None
    size: Optional[Size] = None


class Group:
    """Processes that run together, with the files that they have open: where anything fails, all of them are ended.

    env: added to the built environment.
    """

    def __init__(self, terms: Terms, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None) -> None:
        self._terms, self._env, self._cwd = terms, environment(env), cwd
        self._files = ExitStack()
        self._argvs: list[Sequence[str]] = []
        self._running: list[Any] = []
        self._meter = Meter(terms.size) if terms.size else None

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], err: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:  # fmt: skip
        with self._files:
            if err is not None:
                _end(self._running)

    def scratch(self) -> IO[bytes]:
        """A file without a name."""
        stream: IO[bytes] = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        return stream

    def open(self, path: Union[str, Path], mode: str) -> IO[bytes]:
        """A file by its name, closed at the end of the block as well."""
        stream: IO[bytes] = self._files.enter_context(open(path, mode))  # noqa: SIM115
        return stream

    def log(self, line: str) -> IO[bytes]:
        """The log, with a line that says what is run."""
        stream = self._files.enter_context(masking.opened(self._terms.log or Path(os.devnull)))
        stream.write(f"+ {masking.text(line)}\n".encode("utf-8", "surrogateescape"))
        stream.flush()
        return stream

    def pipe(self) -> tuple[IO[bytes], IO[bytes]]:
        """The two ends of a pipe. Whoever hands one to a child closes it, or its reader never sees the end."""
        reader, writer = os.pipe()
        ends = os.fdopen(reader, "rb", PIPE_BUFFER), os.fdopen(writer, "wb")
        return self._files.enter_context(ends[0]), self._files.enter_context(ends[1])

    def start(self, argv: Sequence[str], stdin: Optional[IO[bytes]], out: IO[bytes], err: Optional[IO[bytes]]) -> None:
        """Start one. stdin: None for nothing. err: None for where out goes."""
        stdin = stdin or self.open(os.devnull, "rb")
        if self._terms.progress:
            self._terms.progress.started(argv)
        self._argvs.append(argv)
        with suspend.starting():
            self._running.append(_start(argv, self._env, self._cwd, stdin, out, err))
            self._files.enter_context(suspend.leading(self._running[-1].pid))

    def wait(self) -> list[int]:
        """The exit codes of all. Raises CommandError that names those that are too late."""
        clock, timeout = suspend.Clock(), self._terms.timeout
        while late := [number for number, item in enumerate(self._running) if item.process.is_alive()[0]]:
            if timeout and clock.seconds() > timeout:
                _end(self._running)  # what it says meanwhile is of interest as well
                names = dict.fromkeys(self._argvs[number][0] for number in late)
                raise self.error(f"{' and '.join(names)} did not end within {timeout:g} s and was ended")
            # A twentieth of the time so far is what the end may be noticed too late.
            time.sleep(min(max(clock.seconds() / 20, 0.002), 0.1))
            if self._terms.progress:
                self._terms.progress.tick(self._terms.log, self._far)
        ended, self._running = self._running, []
        return [int(item.process.exit_code) for item in ended]

    def end(self) -> None:
        """End what still runs: SIGTERM, a while of grace, SIGKILL."""
        _end(self._running)
        self._running = []

    def _far(self) -> Optional[Far]:
        return self._meter.far({item.pid for item in self._running}) if self._meter else None

    def error(self, text: str) -> CommandError:
        log = self._terms.log
        return CommandError(text, tail(log), str(log)) if log else CommandError(text)


def attached(argv: Sequence[str], env: Mapping[str, str], cwd: Path, apart: bool = False) -> int:
    """Run a program on the streams of this process, as a shell does; returns its exit code.

    apart: what it writes to its standard output goes to the standard error.
    """
    import sh

    with uninterrupted(), stdout_is(2 if apart else 1):
        try:
            sh.Command(need(argv[0]))(*argv[1:], _fg=True, _env=environment(env), _cwd=str(cwd))
        except sh.ErrorReturnCode as err:
            return int(err.exit_code)
    return 0
