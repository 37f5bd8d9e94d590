"""Runs that are interrupted, fail, hang, or find a full disk: nothing is left, nothing is lost, and the next one works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness import wait_until

from integration.conftest import both
from integration.harness import (
    PROFILE,
    Installation,
    beside,
    difference,
    look,
    osimage_name,
    output,
    remove,
    served_set,
)

pytestmark = pytest.mark.slow

FIRST = ("prepare_image_directory", "generate_image")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


def expected_code(signum: signal.Signals) -> int:
    return -signum if signum == signal.SIGKILL else 128 + signum


def stuck_step(installation: Installation, body: str = "") -> Path:
    """A procedure that touches a marker and hangs; returns the marker."""
    marker = installation.top / "tmp/running"
    text = f"#!/bin/sh\n# Hang\necho the last words\n{body}\n: >{shlex.quote(str(marker))}\nsleep 600\n"
    installation.site_file("procedures/el/stuck.sh", text, 0o755)
    installation.recipe(*FIRST, "stuck", "cleanup")
    return marker


def unstick(installation: Installation) -> None:
    installation.site_file("procedures/el/stuck.sh", "#!/bin/sh\n# Hang no more\n", 0o755)


def serve(installation: Installation, source: Path, tag: str = "t1") -> dict[str, str]:
    """Build, tag and pack a first version; returns what is served."""
    installation.create(source)
    installation.run("tag", PROFILE, "-t", tag)
    installation.run("pack", PROFILE, "-t", tag)
    return served_set(installation.served())


# -- interrupted in a create


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_create_cut_off_in_a_procedure(installation: Installation, source: Path, signum: signal.Signals) -> None:
    served = serve(installation, source)
    before = installation.youngest()
    marker = stuck_step(installation)
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(marker.exists)
    started = time.monotonic()
    run.send_signal(signum)
    result = installation.finish(run, 20)
    assert time.monotonic() - started < 10
    assert result.code == expected_code(signum), str(result)
    assert "Traceback" not in result.stderr
    if signum != signal.SIGKILL:
        assert f"interrupted by {signum.name}" in result.error
    installation.assert_clean()
    assert served_set(installation.served()) == served
    assert installation.youngest() == before

    unstick(installation)
    installation.create(source, "-b")
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]


def test_interrupt_from_the_terminal(installation: Installation, source: Path) -> None:
    """Ctrl-C goes to the whole foreground group, and again where the user is impatient."""
    marker = stuck_step(installation, "trap 'sleep 1; exit 1' TERM")
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(marker.exists)
    for _ in range(3):
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.05)
    result = installation.finish(run, 20)
    assert result.code == 130, str(result)
    assert result.stderr.count("Error: ") == 1
    installation.assert_clean()


def test_hangup(installation: Installation, source: Path) -> None:
    marker = stuck_step(installation)
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(marker.exists)
    run.send_signal(signal.SIGHUP)
    assert installation.finish(run, 20).code == 129
    installation.assert_clean()


def test_in_the_background(installation: Installation, source: Path) -> None:
    """`nohup avsimage ... &`: what was ignored at the start stays so, and what it starts does not die of it either."""
    marker = stuck_step(installation)
    run = installation.start(
        "create", PROFILE, "--from", str(source), prefix=("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh")
    )
    wait_until(marker.exists)
    for signum in (signal.SIGHUP, signal.SIGINT):
        os.killpg(run.pid, signum)
    time.sleep(0.5)
    assert run.poll() is None
    run.terminate()
    assert installation.finish(run, 20).code == 143
    installation.assert_clean()


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_grandchild_that_hides_is_gone_too(installation: Installation, source: Path, signum: signal.Signals) -> None:
    """It ignores what it can, and is in a session of its own, as daemons are."""
    hidden = "setsid sh -c \"trap '' TERM INT HUP; exec sleep 601\" </dev/null >/dev/null 2>&1 &\nsleep 0.2"
    marker = stuck_step(installation, hidden)
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(marker.exists)
    assert any("sleep 601" in text for text in installation.leftovers())
    run.send_signal(signum)
    installation.finish(run, 20)
    installation.assert_clean()


def test_process_left_by_a_step_that_ended_well_is_gone(installation: Installation, source: Path) -> None:
    script = "#!/bin/sh\nsetsid sleep 602 </dev/null >/dev/null 2>&1 &\n"
    installation.site_file("procedures/el/leave.sh", script, 0o755)
    installation.recipe(*FIRST, "leave")
    installation.create(source)
    installation.assert_clean()


@pytest.mark.parametrize(
    ("installation", "delay"),
    [("fsvs", 0.1), ("ostree", 0.3), ("fsvs", 0.5), ("ostree", 0.7)],
    indirect=["installation"],
)
def test_create_killed_at_any_time(installation: Installation, source: Path, tmp_path: Path, delay: float) -> None:
    """From the first moment on: the repository being made, the tree copied, the commit, the pack."""
    run = installation.start("create", PROFILE, "--from", str(source), "-f")
    time.sleep(delay)
    with suppress(ProcessLookupError):
        run.kill()
    installation.finish(run)
    installation.assert_clean()
    time.sleep(1)  # it may have tagged, and a default name says the second
    installation.recipe(*FIRST)
    installation.create(source, "-f")
    installation.verify_repository()
    assert difference(look(source / "rootimg"), look(installation.checkout(tmp_path / "out"))) == {}
    names = beside(installation.served())
    assert [name for name in names if not name.startswith(PROFILE)] == []
    assert (installation.served() / "rootimg.cpio.gz").exists()


# -- interrupted in a pack


@pytest.fixture
def large(source: Path) -> Path:
    """A tree that takes a second or two to pack."""
    with open(source / "rootimg/usr/share/large", "wb") as stream:
        for _ in range(70):
            stream.write(os.urandom(1 << 20))
    return source


def packing(installation: Installation) -> bool:
    """Whether the archive is being written."""
    staging = installation.served().with_name(f".{PROFILE}.avs-new")
    with suppress(OSError):
        return any(path.stat().st_size > 1 << 20 for path in staging.iterdir())
    return False


def checking_out(installation: Installation) -> bool:
    """Whether the tag is being checked out, where it is then kept."""
    directory = installation.state / "checkouts" / osimage_name(PROFILE)
    with suppress(OSError):  # in parts, that are put together
        return any(any((directory / name).rglob("large*")) for name in ("tree.new", "tree.new.parts"))
    return False


def test_pack_cut_off(installation: Installation, large: Path) -> None:
    """Each signal at each point, on one repository."""
    small = large / "rootimg/usr/share/large"
    data = small.read_bytes()
    small.write_bytes(b"small\n")
    served = serve(installation, large)
    small.write_bytes(data)
    installation.create(large)
    installation.run("tag", PROFILE, "-t", "t2")
    installation.forget_build()
    for point, signals in ((checking_out, SIGNALS[1:]), (packing, SIGNALS)):
        for signum in signals:
            run = installation.start("pack", PROFILE, "-t", "t2")
            wait_until(lambda point=point: point(installation))  # type: ignore[misc]
            started = time.monotonic()
            run.send_signal(signum)
            result = installation.finish(run, 20)
            assert time.monotonic() - started < 10
            assert result.code == expected_code(signum), f"{point.__name__} {result}"
            installation.assert_clean()
            assert served_set(installation.served()) == served
            if signum != signal.SIGKILL:
                assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]
                assert list((installation.state / "staging").iterdir()) == []
    installation.run("pack", PROFILE, "-t", "t2")
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1", f"{PROFILE}.t2"]
    assert os.readlink(installation.served()) == f"{PROFILE}.t2"
    assert list((installation.state / "staging").iterdir()) == []
    status = installation.run("status", PROFILE).stdout
    assert "t2" in status
    assert "t1" in status


def test_nodes_never_see_half_a_set(installation: Installation, source: Path) -> None:
    """Whoever reads while two tags are published in turn gets files of one tag, all of them."""
    (source / "kernel").write_bytes(b"t1" * 100_000)
    (source / "initrd-stateless.gz").write_bytes(b"t1" * 100_000)
    serve(installation, source)
    (source / "kernel").write_bytes(b"t2" * 100_000)
    (source / "initrd-stateless.gz").write_bytes(b"t2" * 100_000)
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t2")
    reads = 0
    for tag in ("t2", "t1", "t1"):
        run = installation.start("pack", PROFILE, "-t", tag, "--force")
        while run.poll() is None:
            directory = os.open(installation.served(), os.O_RDONLY)
            try:
                seen = set()
                for name in ("kernel", "initrd-stateless.gz"):
                    with open(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as stream:
                        data = stream.read()
                    assert len(data) == 200_000
                    seen.add(data[:2])
                assert len(seen) == 1
                reads += 1
            finally:
                os.close(directory)
        installation.finish(run)
        assert (installation.served() / "kernel").read_bytes()[:2] == tag.encode()
    assert reads > 100


def test_real_directory_is_moved_aside(installation: Installation, source: Path) -> None:
    served = installation.served()
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_bytes(b"from before")
    serve(installation, source)
    aside = [path for path in served.parent.iterdir() if ".moved.aside.on." in path.name]
    assert len(aside) == 1
    assert (aside[0] / "rootimg.gz").read_bytes() == b"from before"
    assert served.is_symlink()
    # Interrupted between the exchange and the rename, it is where the link was made.
    os.rename(aside[0], served.with_name(f".{PROFILE}.avs-link"))
    installation.run("pack", PROFILE, "-t", "t1", "--force")
    assert [name for name in beside(installation.served()) if name.startswith(".")] == []
    assert any(".moved.aside.on." in name for name in beside(installation.served()))


def test_link_to_elsewhere_is_replaced(installation: Installation, source: Path) -> None:
    """Where the disk was small, the served directory was moved and a link left in its place."""
    served, elsewhere = installation.served(), installation.top / "bigger/disk"
    served.parent.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    (elsewhere / "rootimg.gz").write_bytes(b"from before")
    served.symlink_to(elsewhere)
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    result = installation.run("pack", PROFILE, "-t", "t1")
    assert "Traceback" not in result.stderr
    assert "rootimg.cpio.gz" in served_set(served)
    assert (elsewhere / "rootimg.gz").read_bytes() == b"from before"


def test_tag_that_spells_another_image_is_kept_apart(installation: Installation, source: Path) -> None:
    """PROFILE.TAG of one image must never be the directory of another."""
    installation.define("example")
    installation.recipe(*FIRST)
    served = serve(installation, source)
    (source / "rootimg/etc/other").write_text("the other image\n")
    installation.create(source, profile="example")
    installation.run("tag", "example", "-t", "prod")
    result = installation.run("pack", "example", "-t", "prod", code=None)
    assert served_set(installation.served()) == served, str(result)
    record = json.loads((installation.served() / "avs.json").read_text())
    assert record["osimage"] == osimage_name(PROFILE)
    if result.code:
        assert PROFILE in result.error

    installation.run("tag", "example", "-t", "prod.t1")
    result = installation.run("pack", "example", "-t", "prod.t1", code=None)
    assert served_set(installation.served()) == served, str(result)


def test_foreign_directory_of_that_name_is_kept(installation: Installation, source: Path) -> None:
    foreign = installation.served().with_name(f"{PROFILE}.t1")
    foreign.mkdir(parents=True)
    (foreign / "precious").write_text("not made by us\n")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1", code=None)
    kept = list(installation.served().parent.rglob("precious"))
    assert len(kept) == 1


def test_pack_of_the_wrong_programs(installation: Installation, source: Path) -> None:
    """A compressor that fails half-way: nothing is published, and the error names it."""
    served = serve(installation, source)
    (source / "rootimg/etc/new").write_text("x")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t2")
    bin_directory = installation.top / "bin"
    bin_directory.mkdir()
    for name in ("igzip", "pigz", "gzip"):
        (bin_directory / name).write_text("#!/bin/sh\nhead -c 100\necho 'this machine is on fire' >&2\nexit 3\n")
        (bin_directory / name).chmod(0o755)
    path = f"PATH={bin_directory}:{os.environ['PATH']}"
    result = installation.run("pack", PROFILE, "-t", "t2", code=1, prefix=["env", path])
    assert "failed with exit code 3" in result.error
    assert "this machine is on fire" in result.error
    assert served_set(installation.served()) == served
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]
    for log in re.findall(r"log: (\S+)", result.error):
        assert Path(log).exists(), "the error names a log that is not there"


def test_lossy_compressor_is_found_out(installation: Installation, source: Path) -> None:
    """It says that all went well, and lost the end."""
    served = serve(installation, source)
    (source / "rootimg/etc/new").write_text("x")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t2")
    bin_directory = installation.top / "bin"
    bin_directory.mkdir()
    for name in ("igzip", "pigz", "gzip"):
        text = '#!/bin/sh\ncase "$*" in *-d*) exec cat;; esac\nhead -c 1000\ncat >/dev/null\n'
        (bin_directory / name).write_text(text)
        (bin_directory / name).chmod(0o755)
    path = f"PATH={bin_directory}:{os.environ['PATH']}"
    result = installation.run("pack", PROFILE, "-t", "t2", code=1, prefix=["env", path])
    assert "Traceback" not in result.stderr
    assert served_set(installation.served()) == served
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]


# -- a step that fails


@pytest.mark.parametrize("kind", ["py", "sh"])
def test_failing_step(installation: Installation, source: Path, kind: str) -> None:
    count = installation.top / "tmp/count"
    counting = f"#!/bin/sh\necho once >>{shlex.quote(str(count))}\n"
    installation.site_file("procedures/el/counted.sh", counting, 0o755)
    good = {"py": '"""Fail"""\n\n\ndef run(ctx):\n    pass\n', "sh": "#!/bin/sh\n"}
    bad = {
        "py": '"""Fail"""\n\n\ndef run(ctx):\n    ctx.say("so far so good")\n    raise RuntimeError("the reason")\n',
        "sh": "#!/bin/sh\nfor n in $(seq 30); do echo line $n; done\necho so far so good\necho the reason >&2\nexit 3\n",
    }
    installation.site_file(f"procedures/el/bad.{kind}", bad[kind], 0o755)
    installation.site_file("procedures/el/after.sh", counting.replace("once", "after"), 0o755)
    installation.recipe(*FIRST, "counted", "bad", "after")

    result = installation.create(source, code=1)
    rows = [line.split()[0] for line in result.stdout.splitlines() if re.search(r"\d+s ", line)]
    assert rows == [*FIRST, "counted", "TOTAL"]
    assert "Image example.prod created" not in result.stdout
    error = result.error
    assert f"{osimage_name(PROFILE)}: step bad failed: " in error.splitlines()[0]
    assert "the reason" in error
    assert "so far so good" in error
    assert "nothing was committed" in error
    assert f"`avsimage -c create {PROFILE} --from {source} -b`" in error
    if kind == "sh":
        assert "exit code 3" in error
        assert "line 30" in error
        assert "line 1\n" not in error
    log = Path(error.split("log: ", 1)[1].strip())
    assert "so far so good" in log.read_text()
    assert installation.youngest() == 1
    assert count.read_text().split() == ["once"]

    again = installation.create(source, "-b", code=1)
    assert "step bad failed" in again.error
    installation.site_file(f"procedures/el/bad.{kind}", good[kind], 0o755)
    last = installation.create(source, "-b")
    assert count.read_text().split() == ["once", "after"]
    for name in (*FIRST, "counted"):
        assert f"{name}: done before, not repeated" in last.stderr
    rows = [line.split()[0] for line in last.stdout.splitlines() if re.search(r"\d+s ", line)]
    assert rows == [*FIRST, "counted", "bad", "after", "TOTAL"]
    assert "Stored as revision 2" in last.stdout


def test_failing_step_with_json(installation: Installation, source: Path) -> None:
    """Standard output is one JSON document, or nothing."""
    installation.site_file("procedures/el/bad.sh", "#!/bin/sh\nexit 1\n", 0o755)
    installation.recipe(*FIRST, "bad")
    result = installation.create(source, "--json", code=1)
    if result.stdout.strip():
        assert isinstance(json.loads(result.stdout), dict)


def test_resume_repeats_an_edited_step_and_all_after_it(installation: Installation, source: Path) -> None:
    said = installation.top / "tmp/said"
    for name in ("one", "two", "three"):
        text = f"#!/bin/sh\n# OPTION level=1   which\necho {name} >>{shlex.quote(str(said))}\n"
        installation.site_file(f"procedures/el/{name}.sh", text, 0o755)
    installation.recipe(*FIRST, "one", "two", "three")
    installation.create(source)

    def steps_of(change: Callable[[], object]) -> list[str]:
        said.unlink()
        change()
        installation.create(source, "-b")
        return said.read_text().split() if said.exists() else []

    def edit(name: str) -> None:
        path = installation.site / f"procedures/el/{name}.sh"
        path.write_text(path.read_text() + "# edited\n")

    assert steps_of(lambda: edit("two")) == ["two", "three"]
    assert steps_of(lambda: installation.recipe(*FIRST, "one", "two", "three", more="\n[three]\nlevel = 2\n")) == [
        "three"
    ]
    assert steps_of(lambda: edit("one")) == ["one", "two", "three"]
    said.write_text("")
    installation.define(PROFILE, osname="Linux")
    assert "done before" not in installation.create(source, "-b").stderr


def test_resume_after_a_step_was_taken_out(installation: Installation, source: Path) -> None:
    """What a step that is no longer in the recipe did must not be in what is committed."""
    installation.site_file("procedures/el/extra.sh", '#!/bin/sh\ntouch "$AVS_ROOT/etc/extra"\nexit $FAIL\n', 0o755)
    installation.recipe(*FIRST, "extra")
    installation.create(source)
    installation.recipe(*FIRST)
    installation.create(source, "-b")
    assert not (installation.tree() / "rootimg/etc/extra").exists()


def test_resume_after_a_failing_step_was_taken_out(installation: Installation, source: Path) -> None:
    """The admin drops the step that fails, and goes on with -b as the error says."""
    installation.site_file("procedures/el/extra.sh", '#!/bin/sh\ntouch "$AVS_ROOT/etc/extra"\nexit 3\n', 0o755)
    installation.recipe(*FIRST, "extra")
    installation.create(source, code=1)
    installation.recipe(*FIRST)
    installation.create(source, "-b")
    assert not (installation.tree() / "rootimg/etc/extra").exists()


def test_resume_hint_repeats_the_whole_command(installation: Installation, source: Path) -> None:
    """Taken as it is printed, the hint builds the same thing into the same store."""
    installation.site_file("procedures/el/bad.sh", "#!/bin/sh\nexit 1\n", 0o755)
    installation.recipe(*FIRST, "bad")
    spaced = installation.top / "a source"
    spaced.symlink_to(source)
    store = f"file://{installation.top}/store/other"
    error = installation.create(spaced, "-s", store, "-m", "a reason", "-u", "ann", "-f", code=1).error
    hint = re.search(r"`avsimage ([^`]*)`", error)
    assert hint
    words = shlex.split(hint.group(1))
    for flag, value in (("--from", str(spaced)), ("-s", store), ("-m", "a reason"), ("-u", "ann")):
        assert flag in words, flag
        assert words[words.index(flag) + 1] == value
    assert "-f" in words
    assert "-b" in words


def test_resume_without_an_earlier_build(installation: Installation, source: Path) -> None:
    installation.create(source, "-b")
    remove(installation.tree())
    installation.create(source, "-b")
    assert (installation.tree() / "rootimg/etc/passwd").exists()


def test_resume_after_the_mirror_was_down(installation: Installation) -> None:
    """What a failed generate_image left must not be in the way of the next one."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("not installed: mmdebstrap")
    pkglist = installation.top / "deb.pkglist"
    pkglist.write_text("bash\n")
    name = installation.define("deb", "debian12", pkgdir="file:///nowhere/at/all", pkglist=str(pkglist))
    for argv in ([], ["-b"], ["-b"]):
        error = installation.run("create", "deb", *argv, code=1).error
        assert f"{name}: step generate_image failed" in error
        assert "/nowhere/at/all" in error
        assert "is not empty" not in error


def test_timeout_ends_a_hanging_step(installation: Installation, source: Path) -> None:
    installation.configure("image", timeout="1")
    stuck_step(installation, "sleep 603 &")
    started = time.monotonic()
    result = installation.create(source, code=1)
    assert time.monotonic() - started < 15
    assert "did not end within 1 s" in result.error
    assert "the last words" in result.error
    installation.assert_clean()
    installation.configure("image", timeout="60")
    unstick(installation)
    installation.create(source, "-b")


def test_pack_that_fails_after_a_create(installation: Installation, source: Path) -> None:
    """With -f the build is done and stored: its report is not lost, and the tag is named."""
    (installation.installdir / "netboot").write_text("a file where the served directories are to be\n")
    result = installation.create(source, "-f", code=1)
    assert str(installation.installdir / "netboot") in result.error
    assert "generate_image" in result.stdout, "the report of the build is lost"
    tags = installation.run("list-tags", PROFILE, "--json").document["tags"]
    for tag in tags:
        assert tag["name"] in result.stdout + result.stderr, "nothing says that it was tagged"


# -- two at once


def test_second_create_says_who_holds_it(installation: Installation, source: Path) -> None:
    marker = stuck_step(installation)
    run = installation.start("create", PROFILE, "--from", str(source), "-u", "ann")
    wait_until(marker.exists)
    result = installation.create(source, "-u", "bob", code=1)
    assert f"{osimage_name(PROFILE)} is being built by ann (process {run.pid} on " in result.error
    assert "since 20" in result.error
    assert "ann" in installation.create(source, "-b", code=1).error
    # Another image, and what only reads, do not wait.
    installation.recipe(*FIRST, profile="example.test")
    installation.create(source, profile="example.test")
    installation.run("list-tags", PROFILE)
    installation.run("steps", PROFILE)
    run.send_signal(signal.SIGTERM)
    installation.finish(run, 20)
    unstick(installation)
    installation.create(source, "-b")


def test_second_pack_says_who_holds_it(installation: Installation, large: Path) -> None:
    installation.create(large)
    installation.run("tag", PROFILE, "-t", "t1")
    installation.forget_build()
    run = installation.start("pack", PROFILE, "-t", "t1", "-u", "ann")
    wait_until(lambda: checking_out(installation))
    result = installation.run("pack", PROFILE, "-t", "t1", "-u", "bob", code=1)
    assert f"{osimage_name(PROFILE)} is being packed by ann (process {run.pid} on " in result.error
    assert installation.finish(run).code == 0


# -- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    file, point = tmp_path / "disk.ext4", tmp_path / "disk"
    with open(file, "wb") as stream:
        stream.truncate(60 << 20)
    point.mkdir()
    output(["mkfs.ext4", "-q", "-m", "0", str(file)])
    loop = subprocess.run(["mount", "-o", "loop", str(file), str(point)], check=False, capture_output=True, timeout=30)
    if loop.returncode:  # a chroot may have no loop devices
        output(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(point)])
    try:
        yield point
    finally:
        wait_until(lambda: subprocess.run(["umount", str(point)], check=False, timeout=30).returncode == 0, 10)
        file.unlink()


def fill(disk: Path, leave: int) -> Path:
    """Fill a file system up to some bytes; returns the file to remove for room."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as stream, suppress(OSError):
        while True:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - leave
            stream.write(bytes(max(4096, min(free, 1 << 20))))
            if leave and free < 8192:
                break
    return ballast


def assert_says_full(error: str) -> None:
    assert "full" in error or "No space left on device" in error, error


@pytest.fixture
def medium(source: Path) -> Path:
    """A tree of some megabytes that no compression makes smaller."""
    for number in range(8):
        (source / f"rootimg/usr/share/random.{number}").write_bytes(os.urandom(1 << 20))
    return source


@pytest.mark.parametrize(("installation", "leave"), [("fsvs", 0), ("ostree", 4 << 20)], indirect=["installation"])
def test_state_disk_full(installation: Installation, medium: Path, disk: Path, leave: int) -> None:
    served = serve(installation, medium)
    installation.state = disk / "state"
    installation.configure("paths", state=str(installation.state))
    (medium / "rootimg/etc/new").write_text("x")
    ballast = fill(disk, leave)
    result = installation.create(medium, code=1)
    assert_says_full(result.error)
    assert str(disk) in result.error, "not said which disk is full"
    assert served_set(installation.served()) == served
    ballast.unlink()
    installation.create(medium)
    installation.run("tag", PROFILE, "-t", "t2")
    installation.forget_build()

    ballast = fill(disk, leave)
    result = installation.run("pack", PROFILE, "-t", "t2", code=1)
    assert_says_full(result.error)
    assert served_set(installation.served()) == served
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]
    ballast.unlink()
    installation.run("pack", PROFILE, "-t", "t2")
    installation.assert_clean()


def test_log_disk_full(installation: Installation, source: Path, disk: Path) -> None:
    installation.logs = disk / "logs"
    installation.configure("paths", logs=str(installation.logs))
    script = "#!/bin/sh\nhead -c 3000000 /dev/urandom | base64 || exit 1\n"
    installation.site_file("procedures/el/talk.sh", script, 0o755)
    installation.recipe(*FIRST, "talk")
    ballast = fill(disk, 1 << 20)
    result = installation.create(source, code=1)
    assert_says_full(result.error)
    ballast.unlink()
    installation.create(source, "-b")


@pytest.mark.parametrize("leave", [0, 4 << 20])
def test_served_disk_full(installation: Installation, medium: Path, disk: Path, leave: int) -> None:
    installation.installdir = disk / "install"
    installation.installdir.mkdir()
    installation.configure("paths", installdir=str(installation.installdir))
    served = serve(installation, medium)
    (medium / "rootimg/etc/new").write_text("x")
    installation.create(medium)
    installation.run("tag", PROFILE, "-t", "t2")
    ballast = fill(disk, leave)
    result = installation.run("pack", PROFILE, "-t", "t2", code=1)
    assert_says_full(result.error)
    for log in re.findall(r"log: (\S+)", result.error):
        assert Path(log).exists(), "the error names a log that is not there"
    assert served_set(installation.served()) == served
    assert beside(installation.served()) == [PROFILE, f"{PROFILE}.t1"]
    ballast.unlink()
    installation.run("pack", PROFILE, "-t", "t2")
    assert os.readlink(installation.served()) == f"{PROFILE}.t2"


@both
@pytest.mark.parametrize("leave", [0, 4 << 20])
def test_store_disk_full(installation: Installation, medium: Path, disk: Path, leave: int) -> None:
    installation.repository = disk / "repo"
    installation.configure("paths", store=installation.url)
    (medium / "rootimg/etc/before").write_text("x")
    small = installation.top / "small"
    (small / "rootimg/etc").mkdir(parents=True)
    installation.create(small)
    before = installation.youngest()
    ballast = fill(disk, leave)
    result = installation.create(medium, code=1)
    assert_says_full(result.error)
    assert installation.url in result.error
    assert installation.youngest() == before
    if not leave:
        assert_says_full(installation.run("tag", PROFILE, "-t", "t1", code=1).error)
    ballast.unlink()
    installation.verify_repository()
    installation.create(medium, "-b")
    installation.verify_repository()
    installation.run("tag", PROFILE, "-t", "t1")
    if installation.engine == "fsvs":
        left = list((installation.repository / "db/transactions").iterdir())
    else:
        left = [
            *(installation.repository / "avs").glob("staging*"),
            *(installation.repository / "tmp").glob("staging*/*"),
        ]
    assert left == [], "half a commit still takes its room"


@pytest.mark.parametrize(("installation", "leave"), [("fsvs", 50_000), ("ostree", 0)], indirect=["installation"])
def test_store_disk_full_at_its_first_use(installation: Installation, source: Path, disk: Path, leave: int) -> None:
    installation.repository = disk / "deep/repo"
    installation.configure("paths", store=installation.url)
    ballast = fill(disk, leave)
    result = installation.create(source, code=1)
    assert_says_full(result.error)
    assert installation.url in result.error
    assert not installation.repository.exists()
    ballast.unlink()
    installation.create(source)


@both
def test_read_only_disk(installation: Installation, source: Path, disk: Path) -> None:
    served = serve(installation, source)
    installation.state = disk / "state"
    installation.configure("paths", state=str(installation.state))
    output(["mount", "-o", "remount,ro", str(disk)])
    error = installation.create(source, code=1).error
    assert "Read-only file system" in error
    assert str(disk) in error
    output(["mount", "-o", "remount,rw", str(disk)])
    installation.create(source)
    assert served_set(installation.served()) == served
