"""The one place that starts processes. It alone imports `sh`."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Optional

from xcat_avs.errors import CommandError
from xcat_avs.system import provides

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


class _TimedOut(Exception):
    """The time that commands were given is over. late: the numbers of those that had not ended."""

    def __init__(self, text: str, late: Sequence[int]) -> None:
        super().__init__(text)
        self.late = late


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
            try:
                os.killpg(command.pid, signum)
            except OSError:
                pass  # all of it is gone
        while any(command.process.is_alive()[0] for command in running) and time.monotonic() < deadline:
            time.sleep(0.02)
        deadline = time.monotonic() + GRACE


def _wait(running: Sequence[Any], timeout: float, log: Optional[Path]) -> list[int]:
    """Wait for all; on a timeout, a signal or any exception end them all first."""
    started = time.monotonic()
    try:
        while any(command.process.is_alive()[0] for command in running):
            if timeout and time.monotonic() - started > timeout:
                late = [number for number, command in enumerate(running) if command.process.is_alive()[0]]
                raise _TimedOut(f"did not end within {timeout:g} s and was ended", late)
            # A twentieth of the time so far is what the end may be noticed too late.
            time.sleep(min(max((time.monotonic() - started) / 20, 0.002), 0.1))
            if _listener:
                _listener(None, log)
    except BaseException:
        _end(running)
        raise
    return [int(command.process.exit_code) for command in running]


def describe(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"failed with exit code {code}"


def run(argv: Sequence[str], *, log: Path, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
        timeout: float = 0, check: bool = True) -> int:  # fmt: skip
    """Run a program, its output appended to log. Returns its exit code.

    env: added to the built environment. timeout: seconds, 0 for none.
    Raises CommandError (missing, failed, killed, timed out) with the log's last lines.
    """
    with ExitStack() as stack:
        stdin = stack.enter_context(open(os.devnull, "rb"))
        out = stack.enter_context(open(log, "ab"))
        out.write(f"+ {' '.join(argv)}\n".encode("utf-8", "surrogateescape"))
        out.flush()
        try:
            code = _wait([_start(argv, environment(env), cwd, stdin, out, None)], timeout, log)[0]
        except _TimedOut as err:
            raise CommandError(f"{argv[0]} {err}", tail(log), str(log)) from None
    if code and check:
        raise CommandError(f"{argv[0]} {describe(code)}", tail(log), str(log))
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
    with ExitStack() as stack:
        files: list[tuple[IO[bytes], IO[bytes]]] = []
        running: list[Any] = []
        try:
            for argv in argvs:
                stdin = stack.enter_context(open(os.devnull, "rb"))
                files.append(
                    (stack.enter_context(tempfile.TemporaryFile()), stack.enter_context(tempfile.TemporaryFile()))
                )
                running.append(_start(argv, environment(env), cwd, stdin, *files[-1]))
        except BaseException:
            _end(running)
            raise
        try:
            codes = _wait(running, timeout, None)
        except _TimedOut as error:
            raise CommandError(f"{argvs[error.late[0]][0]} {error}") from None
        for out, err in files:
            out.seek(0)
            err.seek(0)
        return [
            Output(code, out.read(), err.read().decode("utf-8", "replace")) for code, (out, err) in zip(codes, files)
        ]


@contextmanager
def reading(argv: Sequence[str], *, stdin: Path, log: Path, timeout: float = 0) -> Iterator[IO[bytes]]:
    """What a program makes of the file stdin, as a stream, while it runs beside the one that reads.

    stderr goes to log. timeout: seconds for its end once the block is over. Raises CommandError at the end of the block if it fails.
    """
    with ExitStack() as stack:
        source = stack.enter_context(open(stdin, "rb"))
        err = stack.enter_context(open(log, "ab"))
        err.write(f"+ {' '.join(argv)} < {stdin}\n".encode("utf-8", "surrogateescape"))
        err.flush()
        reader, writer = os.pipe()
        try:
            fcntl.fcntl(writer, F_SETPIPE_SZ, PIPE_SIZE)  # on a busy machine each change of process is a wait
        except OSError:
            pass  # more than this user may have
        stream = stack.enter_context(os.fdopen(reader, "rb", PIPE_BUFFER))
        with os.fdopen(writer, "wb") as out:  # only the child may hold this end, or the stream has none
            running = _start(argv, environment(), None, source, out, err)
        try:
            yield stream
            while stream.read(PIPE_BUFFER):  # to its end, or the program would be killed by SIGPIPE
                pass
        except BaseException:
            _end([running])
            raise
        try:
            code = _wait([running], timeout, log)[0]
        except _TimedOut as error:
            raise CommandError(f"{argv[0]} {error}", tail(log), str(log)) from None
    if code:
        raise CommandError(f"{argv[0]} {describe(code)}", tail(log), str(log))


def pipe(argvs: Sequence[Sequence[str]], *, log: Path, stdin: Optional[Path] = None, stdout: Optional[Path] = None,
         cwd: Optional[Path] = None, env: Optional[Mapping[str, str]] = None, timeout: float = 0) -> None:  # fmt: skip
    """Run programs as one pipe, from the file stdin to the file stdout; each one's failure counts.

    stderr of all goes to log. Raises CommandError that names the program which failed.
    """
    for argv in argvs:
        need(argv[0])  # before the first one writes anything
    with ExitStack() as stack:
        source: IO[bytes] = stack.enter_context(open(stdin or os.devnull, "rb"))
        target = stack.enter_context(open(stdout or os.devnull, "wb"))
        err = stack.enter_context(open(log, "ab"))
        err.write(("+ " + " | ".join(" ".join(argv) for argv in argvs) + "\n").encode("utf-8", "surrogateescape"))
        err.flush()
        running: list[Any] = []
        try:
            for number, argv in enumerate(argvs):
                last = number == len(argvs) - 1
                out: IO[bytes] = target
                following: Optional[IO[bytes]] = None
                if not last:
                    reader, writer = os.pipe()
                    following = stack.enter_context(os.fdopen(reader, "rb"))
                    out = stack.enter_context(os.fdopen(writer, "wb"))
                running.append(_start(argv, environment(env), cwd, source, out, err))
                # Only the children may hold the ends, or the reader never sees the end of its input.
                source.close()
                if following is not None:
                    out.close()
                    source = following
        except BaseException:
            _end(running)
            raise
        try:
            codes = _wait(running, timeout, log)
        except _TimedOut as error:
            names = " and ".join(argvs[number][0] for number in error.late)
            raise CommandError(f"{names} {error}", tail(log), str(log)) from None
    # A program that dies of SIGPIPE fell over its neighbour: name the neighbour.
    failed = [(argv, code) for argv, code in zip(argvs, codes) if code]
    failed = [item for item in failed if item[1] != -signal.SIGPIPE] or failed
    if failed:
        raise CommandError(f"{failed[0][0][0]} {describe(failed[0][1])}", tail(log), str(log))
