"""How programs are run: a Runner is handed to what works for long."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Optional, Protocol

from xcat_avs.errors import CommandError
from xcat_avs.escape import first_lines
from xcat_avs.system.command import PIPE_BUFFER, TAIL_LINES, Group, Terms, describe, need
from xcat_avs.system.meter import READ, Far, Size

PIPE_SIZE = 1 << 20  # bytes
PAGE = 4096  # bytes; what a file grows by on most file systems
F_SETPIPE_SZ = 1031  # linux/fcntl.h; fcntl has it from Python 3.10


def _full(stream: IO[bytes]) -> bool:
    """Whether a file cannot grow any more from where it is read or written."""
    try:
        end = stream.tell()
        os.posix_fallocate(stream.fileno(), end, PAGE)
        os.ftruncate(stream.fileno(), end)
    except OSError as err:
        return err.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


class Stream(Protocol):
    """What can be read to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """As of any file."""


class _Watched:
    """What a program makes of a source; the progress is told how far that is read."""

    def __init__(self, stream: Stream, source: IO[bytes], total: int, terms: Terms) -> None:
        self._stream, self._source, self._total, self._terms = stream, source, total, terms

    def read(self, size: int = -1, /) -> bytes:
        if self._terms.progress:
            self._terms.progress.tick(self._terms.log, self._far)
        return self._stream.read(size)

    def _far(self) -> Far:
        # The program reads by the same open file, which knows it.
        return Far(os.lseek(self._source.fileno(), 0, os.SEEK_CUR), self._total, READ)


@dataclass(frozen=True)
class Output:
    """What a captured command said."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Runner(Terms):
    """Runs programs, each call on these terms. All raise CommandError."""

    @property
    def directory(self) -> Path:
        """Where the log is: for what is needed beside it for a while. Without a log, the directory for temporary files."""
        return self.log.parent if self.log else Path(tempfile.gettempdir())

    def to(self, log: Path) -> Runner:
        """The same with another log."""
        return replace(self, log=log)

    def within(self, seconds: float) -> Runner:
        """The same with another limit of time."""
        return replace(self, timeout=seconds)

    def sized(self, total: int, word: str = READ, program: str = "") -> Runner:
        """The same for programs that have so many bytes to read or write: the progress says how far they are.

        program: the one that does, where others read and write as well. total 0: nobody knows.
        """
        return replace(self, size=Size(total, word, program) if total else None)

    def tell(self, far: Far) -> None:
        """Tell the progress how far something is that no program does."""
        if self.progress:
            self.progress.tick(None, lambda: far)

    def run(self, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
            check: bool = True) -> int:  # fmt: skip
        """Run a program, its output appended to the log. Returns its exit code.

        env: added to the built environment. Raises CommandError (missing, failed, killed, timed out) with the log's last lines.
        """
        with Group(self, env, cwd) as group:
            group.start(argv, None, group.log(first_lines(argv)), None)
            code = group.wait()[0]
            if code and check:
                raise group.error(f"{argv[0]} {describe(code)}")
        return code

    def capture(self, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
                check: bool = True) -> Output:  # fmt: skip
        """Run a program and keep its output (in files while it runs). Raises CommandError as run does."""
        output = self.capture_all([argv], env=env, cwd=cwd)[0]
        if output.code and check:
            lines = [line for line in (output.stderr or output.text).splitlines() if line.strip()]
            raise CommandError(f"{argv[0]} {describe(output.code)}", lines[-TAIL_LINES:])
        return output

    def capture_all(self, argvs: Sequence[Sequence[str]], *, env: Optional[Mapping[str, str]] = None,
                    cwd: Optional[Path] = None) -> list[Output]:  # fmt: skip
        """Run programs side by side and keep the output of each, whatever their exit codes.

        Raises CommandError for one that is missing or too late.
        """
        with Group(replace(self, log=None), env, cwd) as group:
            files = []
            for argv in argvs:
                out, err = (group.scratch() for _ in range(2))
                files.append((out, err))
                group.start(argv, None, out, err)
            found = []
            for code, (out, err) in zip(group.wait(), files):
                out.seek(0)
                err.seek(0)
                found.append(Output(code, out.read(), err.read().decode("utf-8", "replace")))
                if _full(out) or _full(err):  # not every program fails then
                    raise CommandError(
                        f"what {argvs[len(found) - 1][0]} said is lost: the disk of {tempfile.gettempdir()} is full"
                    )
            return found

    @contextmanager
    def reading(self, argv: Sequence[str], *, stdin: Path) -> Iterator[Stream]:
        """What a program makes of the file stdin, as a stream, while it runs beside the one that reads.

        The time allowed begins with the end of the block. Raises CommandError at the end of the block if it fails.
        """
        with Group(self) as group:
            source = group.open(stdin, "rb")
            size = os.fstat(source.fileno()).st_size
            err = group.log(f"{first_lines(argv)} < {stdin}")
            stream, out = group.pipe()
            with suppress(OSError):  # more than this user may have
                fcntl.fcntl(out, F_SETPIPE_SZ, PIPE_SIZE)  # on a busy machine each change of process is a wait
            group.start(argv, source, out, err)
            out.close()
            yield _Watched(stream, source, size, self) if self.progress else stream
            while stream.read(PIPE_BUFFER):  # to its end, or the program would be killed by SIGPIPE
                pass
            code = group.wait()[0]
            if code:
                raise group.error(f"{argv[0]} {describe(code)}")

    def pipe(self, argvs: Sequence[Sequence[str]], *, stdin: Optional[Path] = None, stdout: Optional[Path] = None,
             cwd: Optional[Path] = None) -> None:  # fmt: skip
        """Run programs as one pipe, from the file stdin to the file stdout; each one's failure counts.

        Raises CommandError that names the program which failed.
        """
        need(*(argv[0] for argv in argvs))  # before the first one writes anything
        with Group(self, None, cwd) as group:
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
            codes = group.wait()
            # A program that dies of SIGPIPE fell over its neighbour: name the neighbour.
            failed = [(argv, code) for argv, code in zip(argvs, codes) if code]
            failed = [item for item in failed if item[1] != -signal.SIGPIPE] or failed
            if failed:
                why = f": the disk of {stdout} is full" if _full(target) else ""  # not every program says so
                raise group.error(f"{failed[0][0][0]} {describe(failed[0][1])}{why}")


# For a short question: no log, no limit of time, and nobody is told.
QUIET = Runner()
capture = QUIET.capture
