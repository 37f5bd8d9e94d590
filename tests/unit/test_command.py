"""Commands: real processes, their ends, and what is said about them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import pytest

from xcat_avs.errors import CommandError, Interrupted
from xcat_avs.system import command, provides
from xcat_avs.system.meter import Far
from xcat_avs.system.runner import Runner, capture

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that ignore SIGTERM are not waited for as long as on a real machine."""
    monkeypatch.setattr(command, "GRACE", 0.3)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def alive(pid_file: Path) -> bool:
    """Whether the process of that file runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[-1].split()[0] != "Z"


def ends(pid_file: Path) -> bool:
    """Whether the process of that file is gone, at once or after the moment that a killed one takes."""
    assert pid_file.read_text().strip().isdigit()
    deadline = time.monotonic() + 2
    while alive(pid_file) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid_file)


def zombies() -> int:
    """How many children of ours ended without being waited for."""
    count = 0
    for proc in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = proc.read_text().rsplit(")", 1)[-1].split()
        except OSError:
            continue
        count += fields[0] == "Z" and int(fields[1]) == os.getpid()
    return count


def test_run(log: Path) -> None:
    log.write_text("before\n")
    assert Runner(log).run(shell("echo out; echo err >&2; echo more")) == 0
    assert log.read_text() == "before\n+ sh -c echo out; echo err >&2; echo more\nout\nerr\nmore\n"


@pytest.mark.parametrize("code", [1, 2, 127, 255])
def test_an_exit_code(log: Path, code: int) -> None:
    with pytest.raises(CommandError, match=f"^sh failed with exit code {code}\n") as caught:
        Runner(log).run(shell(f"echo why; exit {code}"))
    assert caught.value.tail[-1] == "why"
    assert caught.value.log == str(log)
    assert Runner(log).run(shell(f"exit {code}"), check=False) == code


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_a_signal(log: Path, signum: signal.Signals) -> None:
    with pytest.raises(CommandError, match=f"^sh was killed by {signum.name}"):
        Runner(log).run(shell(f"kill -{int(signum)} $$"))
    assert Runner(log).run(shell(f"kill -{int(signum)} $$"), check=False) == -signum


def test_the_last_lines_are_quoted_not_the_first(log: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Runner(log).run(shell("seq 1 5000; printf 'the reason\\n\\n\\n'; exit 1"))
    assert len(caught.value.tail) == command.TAIL_LINES
    assert caught.value.tail[-2:] == ("5000", "the reason")
    with pytest.raises(CommandError) as caught:
        capture(shell("seq 1 5000 >&2; echo the reason >&2; echo out; exit 1"))
    assert caught.value.tail[-2:] == ("5000", "the reason")
    assert "out" not in caught.value.tail
    with pytest.raises(CommandError) as caught:
        capture(shell("echo only out; exit 1"))
    assert caught.value.tail == ("only out",)


def test_tail_of_odd_logs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe binary \0\n 10%\r 50%\r100%\r\nlast")
    assert command.tail(path) == ["\ufffd\ufffd binary \0", "100%", "last"]
    path.write_bytes(b"x" * 1_000_000)
    assert sum(map(len, command.tail(path))) <= command.TAIL_BYTES
    assert command.tail(tmp_path / "none") == []
    path.write_bytes(b"")
    assert command.tail(path) == []


def test_arguments_arrive_as_they_are(log: Path) -> None:
    words = [
        "",
        " ",
        "a b",
        "$HOME",
        "*",
        "'",
        '"',
        "\\",
        "-n",
        "new\nline",
        "ü✓",
        "--x=y z",
        "{}",
        "`id`",
    ]
    output = capture(
        [sys.executable, "-c", "import os, sys; sys.stdout.buffer.write(os.fsencode('\\0'.join(sys.argv[1:])))", *words]
    )
    assert [os.fsdecode(word) for word in output.stdout.split(b"\0")] == words
    assert Runner(log).run(["true", *words]) == 0


def test_output_is_bytes(log: Path) -> None:
    data = bytes(range(256)) * 10
    path = log.with_name("data")
    path.write_bytes(data)
    assert capture(["cat", str(path)]).stdout == data
    assert capture(["printf", r"\303\374"]).text.encode("utf-8", "surrogateescape") == b"\xc3\xfc"


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("mmdebstrap", "mmdebstrap"),
        ("svn", "subversion"),
        ("mksquashfs", "squashfs-tools"),
        ("xz", "xz-utils"),
        ("fsvs", "fsvs"),
    ],
)
def test_a_missing_program_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setattr(command, "environment", lambda extra=None: {"PATH": str(tmp_path)})
    for call in (
        lambda: command.need(program),
        lambda: Runner(tmp_path / "l").run([program]),
        lambda: capture([program]),
    ):
        with pytest.raises(
            CommandError, match=f"the program {program} is not installed; it is in the package {package}$"
        ):
            call()
    assert command.find(program) is None


@pytest.mark.parametrize(
    ("release", "family", "found"),
    [
        ("ID=debian\n", "debian", ("xz-utils", "squashfs-tools", "rinse", "mount", "ostree")),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian", ("xz-utils", "squashfs-tools", "rinse", "mount", "ostree")),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "el", ("xz", "squashfs-tools", "", "util-linux", "ostree")),
        ("NAME=x\nID=fedora\n", "el", ("xz", "squashfs-tools", "", "util-linux", "ostree")),
        ('ID="sles"\nID_LIKE="suse"\n', "sles", ("xz", "squashfs", "", "util-linux", "libostree")),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sles", ("xz", "squashfs", "", "util-linux", "libostree")),
        ("ID=gentoo\n", "", ("", "", "", "", "")),
        (None, "", ("", "", "", "", "")),
    ],
    ids=str,
)
def test_a_package_is_called_as_this_machine_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: Optional[str], family: str, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(provides, "OS_RELEASE", (tmp_path / "none", tmp_path / "os-release"))
    if release is not None:
        (tmp_path / "os-release").write_text(f"PRETTY_NAME='x y'\n{release}")
    assert provides.family() == family
    assert tuple(provides.package(name) for name in ("xz", "mksquashfs", "rinse", "mount", "ostree")) == found


def test_a_missing_program_of_no_known_package(log: Path) -> None:
    with pytest.raises(CommandError, match=r"the program no-such-thing is not installed$"):
        command.need("no-such-thing")
    with pytest.raises(CommandError, match="/no/such/thing"):
        Runner(log).run(["/no/such/thing"])


@pytest.mark.parametrize(
    "text",
    [b"echo no shebang\n", b"#!/no/such/interpreter\n", b"\x7fELF rubbish", b""],
    ids=["plain", "interpreter", "elf", "empty"],
)
def test_a_file_that_cannot_be_executed_is_a_clear_error_or_runs(log: Path, text: bytes) -> None:
    """A site's procedure may lack its first line; whatever happens, it is not a traceback of ours."""
    path = log.with_name("program")
    path.write_bytes(text)
    path.chmod(0o755)
    with pytest.raises(CommandError, match=str(path)):
        Runner(log).run([str(path)])


def test_a_program_that_may_not_be_executed(log: Path) -> None:
    path = log.with_name("program")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    with pytest.raises(CommandError, match=str(path)):
        Runner(log).run([str(path)])


def test_stdin_is_empty(log: Path) -> None:
    """lsdef, for one, reads it to its end."""
    assert capture(["readlink", "/proc/self/fd/0"]).text == "/dev/null\n"
    Runner(log).run(["readlink", "/proc/self/fd/0"])
    assert log.read_text().endswith("/dev/null\n")
    Runner(log).pipe([["readlink", "/proc/self/fd/0"], ["cat"]], stdout=log.with_name("out"))
    assert log.with_name("out").read_text() == "/dev/null\n"


def test_stdout_is_no_terminal_and_nothing_of_ours_leaks(log: Path) -> None:
    """A child gets what this process was itself given, and nothing that it opened."""
    given = {name for name in os.listdir("/proc/self/fd") if _inheritable(int(name))}
    with open(log, "ab") as ours:
        assert not os.get_inheritable(ours.fileno())
        output = capture(shell("test -t 1 || test -t 2 || echo none; ls /proc/self/fd"))
    words = output.text.split()
    assert words[0] == "none"
    # A shell keeps a copy of what it redirects at 10; ls reads the directory itself.
    assert set(words[1:]) <= {"0", "1", "2", "3", "10"} | given


def _inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LD_PRELOAD_X",
        "PERL5LIB",
        "PYTHONPATH",
        "LANG",
        "LC_MESSAGES",
        "BASH_ENV",
        "CDPATH",
        "SUDO_USER",
        "APT_CONFIG",
        "SVN_SSH_X",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("http_proxy", "http://proxy.example:1")
    monkeypatch.setenv("XCATROOT", "/opt/xcat")
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    text = capture(["env", "-0"], env={"MINE": "1\n2", "HOME": "/other"}).text
    found = dict(item.split("=", 1) for item in text.split("\0") if item)
    assert found["PATH"] == "/usr/bin:/bin:/usr/sbin:/sbin"
    assert found["LC_ALL"] == "C.UTF-8"
    assert found["http_proxy"] == "http://proxy.example:1"
    assert found["MINE"] == "1\n2"
    assert found["HOME"] == "/other"
    assert set(found) <= {*command.KEPT, "PATH", "LC_ALL", "MINE"}


@pytest.mark.parametrize("path", ["", "/usr/bin:", ":/usr/bin", "/usr/bin::/bin", ".:/usr/bin", "bin:/usr/bin"])
def test_programs_are_never_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """We run as root in whatever directory the user stands; an empty part of PATH means that directory."""
    for directory in (tmp_path, tmp_path / "bin"):
        directory.mkdir(exist_ok=True)
        program = directory / "planted"
        program.write_text("#!/bin/sh\necho planted\n")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    assert command.find("planted") is None


def test_the_working_directory(log: Path, tmp_path: Path) -> None:
    (tmp_path / "with space ü").mkdir()
    assert Runner().capture(["pwd"], cwd=tmp_path / "with space ü").text == f"{tmp_path}/with space ü\n"
    with pytest.raises((CommandError, OSError), match="none"):
        Runner(log).run(["pwd"], cwd=tmp_path / "none")


class Heard:
    """A progress that remembers what it was told: the argv of a start, or the log of a wait."""

    def __init__(self) -> None:
        self.all: list[tuple[Optional[Sequence[str]], Optional[Path]]] = []

    def started(self, argv: Sequence[str]) -> None:
        self.all.append((argv, None))

    def warn(self, text: str) -> None:
        pass

    def tick(self, log: Optional[Path], far: Callable[[], Optional[Far]]) -> None:
        self.all.append((None, log))


GRANDCHILDREN = "sh -c 'echo $$ > {0}/child; sleep 60 & echo $! > {0}/grandchild; wait' & echo $$ > {0}/leader; wait"
STUBBORN = "trap '' TERM INT HUP; sh -c 'echo $$ > {0}/child; while :; do sleep 0.05; done' & echo $$ > {0}/leader; while :; do sleep 0.05; done"


@pytest.mark.parametrize("script", [GRANDCHILDREN, STUBBORN], ids=["group", "stubborn"])
@pytest.mark.parametrize("how", ["run", "capture"])
def test_a_timeout_ends_the_whole_group(tmp_path: Path, log: Path, script: str, how: str) -> None:
    argv = shell(script.format(tmp_path))
    started = time.monotonic()
    runner = Runner(log, 0.4)
    call = runner.run if how == "run" else runner.capture
    with pytest.raises(CommandError, match=r"^sh did not end within 0.4 s and was ended"):
        call(argv)
    assert time.monotonic() - started < 3
    for name in ("leader", "child", *(["grandchild"] if script is GRANDCHILDREN else [])):
        assert ends(tmp_path / name), name


def test_grandchildren_that_outlive_a_leader_which_ends_at_once_are_ended(tmp_path: Path, log: Path) -> None:
    """The leader dies of SIGTERM, its child ignores it: SIGKILL must still reach the child."""
    script = f"sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/child; while :; do sleep 0.05; done' & wait"
    with pytest.raises(CommandError, match="did not end within"):
        Runner(log, 0.4).run(shell(script))
    assert ends(tmp_path / "child")


def test_a_timeout_that_is_not_reached(log: Path) -> None:
    assert Runner(log, 30).run(["true"]) == 0
    assert Runner(log, 0).run(["true"]) == 0


@pytest.mark.parametrize("error", [Interrupted(15), KeyboardInterrupt(), RuntimeError("listener")])
def test_an_interruption_ends_the_whole_group(tmp_path: Path, log: Path, error: BaseException) -> None:
    """What a signal handler raises comes out of the wait; the same for a progress that breaks."""

    names = ("leader", "child", "grandchild")

    class Broken(Heard):
        def tick(self, log: Optional[Path], far: Callable[[], Optional[Far]]) -> None:
            if all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names):
                raise error

    with pytest.raises(type(error)):
        Runner(log, progress=Broken()).run(shell(GRANDCHILDREN.format(tmp_path)))
    for name in names:
        assert ends(tmp_path / name), name


def test_a_progress_hears_of_starts_and_of_waiting(log: Path) -> None:
    heard = Heard()
    Runner(log, progress=heard).run(["sleep", "0.1"])
    assert heard.all[0] == (["sleep", "0.1"], None)
    assert (None, log) in heard.all
    heard.all.clear()
    Runner(log, progress=heard).capture(["sleep", "0.1"])
    assert heard.all[0] == (["sleep", "0.1"], None)
    assert heard.all[-1] == (None, None), "what is captured has no log"


def test_pipe(tmp_path: Path, log: Path) -> None:
    (tmp_path / "in").write_text("b\na\nc\n" * 100000)
    Runner(log).pipe([["cat"], ["sort"], ["uniq", "-c"]], stdin=tmp_path / "in", stdout=tmp_path / "out")
    assert (tmp_path / "out").read_text().split() == ["100000", "a", "100000", "b", "100000", "c"]
    assert log.read_text() == "+ cat | sort | uniq -c\n"


@pytest.mark.parametrize(
    ("argvs", "name", "how"),
    [
        ([["false"], ["cat"]], "false", "failed with exit code 1"),
        ([["true"], ["false"]], "false", "failed with exit code 1"),
        ([["cat"], ["sh", "-c", "exit 3"], ["cat"]], "sh", "failed with exit code 3"),
        ([["yes"], ["false"]], "false", "failed with exit code 1"),
        ([["yes"], ["sh", "-c", "head -c 100000 >/dev/null; exit 4"], ["cat"]], "sh", "failed with exit code 4"),
        ([["cat"], ["sh", "-c", "kill -9 $$"]], "sh", "was killed by SIGKILL"),
        ([["sh", "-c", "echo x; exit 5"], ["cat"], ["cat"]], "sh", "failed with exit code 5"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_pipe_names_the_member_that_failed(log: Path, argvs: list[list[str]], name: str, how: str) -> None:
    with pytest.raises(CommandError, match=f"^{name} {how}"):
        Runner(log).pipe(argvs)


def test_a_writer_that_dies_of_its_reader_is_an_error_all_the_same(log: Path) -> None:
    with pytest.raises(CommandError, match="yes was killed by SIGPIPE"):
        Runner(log).pipe([["yes"], ["true"]])


def test_a_pipe_with_a_missing_member_starts_none(tmp_path: Path, log: Path) -> None:
    with pytest.raises(CommandError, match="no-such-thing is not installed"):
        Runner(log).pipe([["touch", str(tmp_path / "started")], ["no-such-thing"]], stdout=tmp_path / "out")
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "argvs", [[["sleep", "60"], ["cat"]], [["true"], ["sleep", "60"]], [["yes"], ["sleep", "60"]]], ids=str
)
def test_a_timeout_of_a_pipe_names_who_did_not_end(log: Path, argvs: list[list[str]]) -> None:
    with pytest.raises(CommandError, match=r"did not end within 0.3 s") as caught:
        Runner(log, 0.3).pipe(argvs)
    assert "sleep" in caught.value.text


def test_stderr_of_a_pipe_is_in_the_log_and_in_the_error(tmp_path: Path, log: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Runner(log).pipe([shell("echo data; echo complaint >&2; exit 1"), ["cat"]], stdout=tmp_path / "out")
    assert caught.value.tail[-1] == "complaint"
    assert (tmp_path / "out").read_text() == "data\n"


BIG = """
import resource, sys
from functools import partial
from pathlib import Path
from xcat_avs.system import command
from xcat_avs.system.runner import Runner, capture
log = Path(sys.argv[1])
Runner(log).run(["true"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[2] == "run":
    Runner(log).run(["head", "-c", "50000000", "/dev/zero"])
else:
    Runner(log).pipe([["head", "-c", "50000000", "/dev/zero"], ["cat"]], stdout=log)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, log.stat().st_size)
"""


@pytest.mark.parametrize("how", ["run", "pipe"])
def test_50_megabytes_do_not_go_through_memory(log: Path, how: str) -> None:
    argv = [sys.executable, "-c", BIG, str(log), how]
    output = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=True, timeout=30).stdout
    grown, size = map(int, output.split())
    assert size >= 50_000_000
    assert grown < 5_000, "KiB more than before"


def test_a_full_disk_is_an_error(log: Path) -> None:
    with pytest.raises((CommandError, OSError)):
        Runner(log).pipe([["yes"], ["head", "-c", "1000000"]], stdout=Path("/dev/full"))


def test_a_daemon_that_stays_does_not_hold_up_a_run(tmp_path: Path, log: Path) -> None:
    """A package's script may start one; it keeps the log open, and the command has ended all the same."""
    started = time.monotonic()
    script = f"sleep 30 & echo $! >> {tmp_path}/daemons"
    assert Runner(log).run(shell(script)) == 0
    capture(shell(script))
    assert time.monotonic() - started < 5
    for pid in (tmp_path / "daemons").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("code", "text"), [(1, "failed with exit code 1"), (-9, "was killed by SIGKILL"), (-99, "was killed by signal 99")]
)
def test_describe(code: int, text: str) -> None:
    assert command.describe(code) == text


def test_no_zombies_are_left(log: Path) -> None:
    before = zombies()
    for _ in range(5):
        Runner(log).run(["true"])
    Runner(log).pipe([["true"], ["cat"]])
    assert zombies() == before
