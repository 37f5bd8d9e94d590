"""The one place that starts processes. It alone imports `sh`."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Callable, Optional, Union

from xcat_avs.errors import CommandError
from xcat_avs.escape import first_lines
from xcat_avs.system import provides, suspend

TAIL_LINES = 12
TAIL_BYTES = 16384
PIPE_BUFFER, PIPE_SIZE = 1 << 18, 1 << 20  # bytes
F_SETPIPE_SZ = 1031  # linux/fcntl.h; fcntl has it from Python 3.10
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
KEPT = ("HOME", "TERM", "TMPDIR", "XCATROOT", "XCATCFG", "XCATBYPASS", "XCATHOST", "SVN_SSH", "SSH_AUTH_SOCK",
        "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip
# Told of each command that starts and, some times a second, of each that runs.
Listener = Callable[[Optional[Sequence[str]], Optional[Path]], None]
_listener: Optional[Listener] = None


def listen(listener: Optional[Listener]) -> None:
    """Hand in what shows progress; it is called with the argv at a start, with None while waiting."""
    global _listener
    _listener = listener


@dataclass(frozen=True)
class Output:
    """What a captured command said."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")


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


def need(program: str) -> str:
    """The path of a program, or an error that names its package."""
    path = find(program)
    if path is None:
        package = provides.package(os.path.basename(program))
        hint = f"; it is in the package {package}" if package else ""
        raise CommandError(f"the program {program} is not installed{hint}")
    return path


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
    if _listener:
        _listener(argv, None)
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


class _Group:
    """Processes that run together, with the files that they have open: where anything fails, all of them are ended.

    log: takes their stderr, and gives an error its last lines.
    """

    def __init__(self, log: Optional[Path], env: Optional[Mapping[str, str]], cwd: Optional[Path]) -> None:
        self._log, self._env, self._cwd = log, environment(env), cwd
        self._files = ExitStack()
        self._argvs: list[Sequence[str]] = []
        self._running: list[Any] = []

    def __enter__(self) -> _Group:
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
        stream = self.open(self._log or os.devnull, "ab")
        stream.write(f"+ {line}\n".encode("utf-8", "surrogateescape"))
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
        self._argvs.append(argv)
        with suspend.starting():
            self._running.append(_start(argv, self._env, self._cwd, stdin, out, err))
            self._files.enter_context(suspend.leading(self._running[-1].pid))

    def wait(self, timeout: float) -> list[int]:
        """The exit codes of all. Raises CommandError that names those that are too late."""
        clock = suspend.Clock()
        while late := [number for number, item in enumerate(self._running) if item.process.is_alive()[0]]:
            if timeout and clock.seconds() > timeout:
                _end(self._running)  # what it says meanwhile is of interest as well
                names = dict.fromkeys(self._argvs[number][0] for number in late)
                raise self.error(f"{' and '.join(names)} did not end within {timeout:g} s and was ended")
            # A twentieth of the time so far is what the end may be noticed too late.
            time.sleep(min(max(clock.seconds() / 20, 0.002), 0.1))
            if _listener:
                _listener(None, self._log)
        ended, self._running = self._running, []
        return [int(item.process.exit_code) for item in ended]

    def error(self, text: str) -> CommandError:
        return CommandError(text, tail(self._log), str(self._log)) if self._log else CommandError(text)


def run(argv: Sequence[str], *, log: Path, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
        timeout: float = 0, check: bool = True) -> int:  # fmt: skip
    """Run a program, its output appended to log. Returns its exit code.

    env: added to the built environment. timeout: seconds, 0 for none.
    Raises CommandError (missing, failed, killed, timed out) with the log's last lines.
    """
    with _Group(log, env, cwd) as group:
        group.start(argv, None, group.log(first_lines(argv)), None)
        code = group.wait(timeout)[0]
        if code and check:
            raise group.error(f"{argv[0]} {describe(code)}")
    return code


def capture(argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
            timeout: float = 0, check: bool = True) -> Output:  # fmt: skip
    """Run a program and keep its output (in files while it runs). Raises CommandError as run does."""
    output = capture_all([argv], env=env, cwd=cwd, timeout=timeout)[0]
    if output.code and check:
        lines = [line for line in (output.stderr or output.text).splitlines() if line.strip()]
        raise CommandError(f"{argv[0]} {describe(output.code)}", lines[-TAIL_LINES:])
    return output


def capture_all(argvs: Sequence[Sequence[str]], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
                timeout: float = 0) -> list[Output]:  # fmt: skip
    """Run programs side by side and keep the output of each, whatever their exit codes.

    timeout: seconds for all of them, 0 for none. Raises CommandError for one that is missing or too late.
    """
    with _Group(None, env, cwd) as group:
        files = []
        for argv in argvs:
            out, err = (group.scratch() for _ in range(2))
            files.append((out, err))
            group.start(argv, None, out, err)
        found = []
        for code, (out, err) in zip(group.wait(timeout), files):
            out.seek(0)
            err.seek(0)
            found.append(Output(code, out.read(), err.read().decode("utf-8", "replace")))
        return found


@contextmanager
def reading(argv: Sequence[str], *, stdin: Path, log: Path, timeout: float = 0) -> Iterator[IO[bytes]]:
    """What a program makes of the file stdin, as a stream, while it runs beside the one that reads.

    stderr goes to log. timeout: seconds for its end once the block is over. Raises CommandError at the end of the block if it fails.
    """
    with _Group(log, None, None) as group:
        source = group.open(stdin, "rb")
        err = group.log(f"{first_lines(argv)} < {stdin}")
        stream, out = group.pipe()
        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(out, F_SETPIPE_SZ, PIPE_SIZE)  # on a busy machine each change of process is a wait
        group.start(argv, source, out, err)
        out.close()
        yield stream
        while stream.read(PIPE_BUFFER):  # to its end, or the program would be killed by SIGPIPE
            pass
        code = group.wait(timeout)[0]
        if code:
            raise group.error(f"{argv[0]} {describe(code)}")


def pipe(argvs: Sequence[Sequence[str]], *, log: Path, stdin: Optional[Path] = None, stdout: Optional[Path] = None,
         cwd: Optional[Path] = None, timeout: float = 0) -> None:  # fmt: skip
    """Run programs as one pipe, from the file stdin to the file stdout; each one's failure counts.

    stderr of all goes to log. Raises CommandError that names the program which failed.
    """
    for argv in argvs:
        need(argv[0])  # before the first one writes anything
    with _Group(log, None, cwd) as group:
        source = group.open(stdin or os.devnull, "rb")
        target = group.open(stdout or os.devnull, "wb")
        err = group.log(" | ".join(map(first_lines, argvs)))
        for number, argv in enumerate(argvs, 1):
            following, out = group.pipe() if number < len(argvs) else (None, target)
            group.start(argv, source, out, err)
            source.close()
            if following is not None:
                out.close()
                source = following
        codes = group.wait(timeout)
        # A program that dies of SIGPIPE fell over its neighbour: name the neighbour.
        failed = [(argv, code) for argv, code in zip(argvs, codes) if code]
        failed = [item for item in failed if item[1] != -signal.SIGPIPE] or failed
        if failed:
            raise group.error(f"{failed[0][0][0]} {describe(failed[0][1])}")
