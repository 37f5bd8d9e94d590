"""Runs of the command without what Python needs to load it: a process that has it loaded forks for each of them.

What a run is given (words, environment, directory, streams) is what `python -m xcat_avs` would get, and all that it
does from its main() on is the same; only the interpreter and the imports are not started again, which is most of
what a short run takes. A prefix, or a variable that the interpreter itself reads, makes it an ordinary process.
The programs of xCAT that the tests call themselves, which are Python as well, are run in the same way.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Optional, Union

TOP = Path(__file__).resolve().parents[1]
MODULE = [sys.executable, "-m", "xcat_avs"]
FAKES = str(TOP / "tests/fakes/bin") + "/"
PR_SET_CHILD_SUBREAPER = 36
ARGUMENTS = 4096  # bytes kept for what /proc shows as the command line
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_")

_servers: dict[tuple[tuple[str, str], ...], socket.socket] = {}
_lock = threading.Lock()
_libc = ctypes.CDLL(None, use_errno=True)


class Process(subprocess.Popen[Any]):
    """A forked run. It is a child of this process, as one that was started would be."""

    def __init__(self, args: Sequence[str], pid: int) -> None:
        self.args, self.pid, self.returncode = list(args), pid, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created, self._waitpid_lock, self._communication_started = True, threading.Lock(), False
        self._sigint_wait_secs, self._input = 0.25, None

    def wait(self, timeout: Optional[float] = None) -> int:
        if timeout is None or self.returncode is not None:
            return super().wait()
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:  # an old kernel
            return super().wait(timeout)
        try:  # Popen's own wait looks only every 50 ms
            if not select.select([descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
        finally:
            os.close(descriptor)
        return super().wait()


def popen(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Union[str, Path],
    out: IO[Any],
    err: IO[Any],
    session: bool = False,
) -> subprocess.Popen[Any]:
    """Start MODULE and its words, or a fake, without a stdin; session: as the leader of a session of its own."""
    key = tuple(sorted((name, value) for name, value in env.items() if name.startswith(READ_AT_START)))
    usual = {name for name, _ in key} <= {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG"} and env.get(
        "PYTHONPATH"
    ) == str(TOP)
    if not usual or sum(len(os.fsencode(word)) + 1 for word in argv) > ARGUMENTS:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd, start_new_session=session
        )
    job = pickle.dumps((argv, dict(env), str(cwd), session, _umask()))
    with _lock:
        server = _servers.get(key) or _start(key)
        # Who forked it ends at once, and this process inherits the run.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            rights = array.array("i", [out.fileno(), err.fileno()])
            server.sendmsg([len(job).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            server.sendall(job)
            pid = int.from_bytes(_read(server, 4), "big")
        finally:
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert pid, "cannot fork"
    return Process(argv, pid)


def is_fake(argv: Sequence[str]) -> bool:
    """Whether a program is one of xCAT's, as the tests have them."""
    return os.path.realpath(argv[0]).startswith(FAKES)


def _umask() -> int:
    """The mask of this process, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise EOFError("the other side has ended")
        data += more
    return data


def _start(key: tuple[tuple[str, str], ...]) -> socket.socket:
    ours, theirs = socket.socketpair()
    env = {"PATH": os.environ["PATH"], **dict(key)}
    argv = [sys.executable, __file__, str(theirs.fileno()), "x" * ARGUMENTS]
    subprocess.Popen(
        argv,
        pass_fds=[theirs.fileno()],
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    _servers[key] = ours
    return ours


# -- the other side


def _load() -> None:
    """Everything that a run may import."""
    import importlib
    import pkgutil

    import sh  # noqa: F401
    import tabulate  # noqa: F401
    import typer  # noqa: F401

    import xcat_avs

    for module in pkgutil.walk_packages(xcat_avs.__path__, "xcat_avs."):
        if not module.name.startswith(("xcat_avs.procedures", "xcat_avs.addons")):
            importlib.import_module(module.name)


def _serve(control: socket.socket) -> None:
    """Fork for every job; returns in the forked process, with all set for the run, and ends with the other side."""
    while True:
        first, descriptors, _, _ = socket.recv_fds(control, 4, 2)
        if not first:
            os._exit(0)
        job = pickle.loads(_read(control, int.from_bytes(first, "big")))
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                break
            os.write(writer, pid.to_bytes(4, "big"))
            os._exit(0)
        os.waitpid(between, 0)
        os.close(writer)
        answer = os.read(reader, 4)
        for descriptor in (reader, *descriptors):
            os.close(descriptor)
        control.sendall(answer.rjust(4, b"\0"))
    control.detach()  # closed with all that a new program would not have
    _become(job, descriptors)


def _become(job: tuple[list[str], dict[str, str], str, bool, int], descriptors: Sequence[int]) -> None:
    argv, env, cwd, session, mask = job
    if session:
        os.setsid()
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    kept = {name: os.environ[name] for name in ("LC_CTYPE",) if name in os.environ}  # set by Python itself for C
    os.environ.clear()
    os.environ.update({**kept, **env})
    time.tzset()
    os.chdir(cwd)
    os.umask(mask)
    _show_as(argv)
    sys.argv = list(argv) if is_fake(argv) else [str(TOP / "xcat_avs/__main__.py"), *argv[len(MODULE) :]]
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        stream = open(descriptor, "w", encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if "AVS_TEST_INSIDE" in env:
        from faults import inside

        inside.prepare(env)


def _show_as(argv: Sequence[str]) -> None:
    """Have /proc show these words as the command line."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    data = b"".join(os.fsencode(word) + b"\0" for word in argv)
    with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(data[: end - start].ljust(end - start, b"\0"))


def _end(code: Union[str, int, None]) -> None:
    """As sys.exit does it; but nothing is taken down, which would copy all the memory that both sides share."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    # As the command begins: see xcat_avs/__main__.py.
    sys.path.pop(0)
    sys.path.insert(0, str(TOP / "tests"))
    from fakes import xcat

    from xcat_avs import __main__ as command

    _load()
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        if is_fake(sys.argv):
            sys.exit(xcat.main())
        command.main()
    except SystemExit as end:
        _end(end.code)
