"""What a newcomer, and a user of avs_image_mgr, types: whole runs of the command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import others
import pytest

from .conftest import PROD, Installation
from .test_cli import refused

NOBODY = others.by_uid(65534)
# The definition as the README of avs_image_mgr makes it: its name says all.
CLASSIC = """SL6.3-x86_64-netboot-{name}:
    objtype=osimage
    provmethod=netboot
    pkglist={top}/install/custom/example.pkglist
    imagetype=linux
    rootimgdir={top}/install/netboot/SL6.3/x86_64/{name}

"""


@pytest.mark.slow
@pytest.mark.parametrize("image", ["-p classic.prod -o x86_64 -o SL6.3", "-p classic.prod -a x86_64 -o SL6.3"])
def test_the_quick_start_of_avs_image_mgr(avs: Installation, image: str) -> None:
    """Line by line, with `image_mgr.sh` replaced; the tree is given, for there is no SL 6.3 any more."""
    avs.put("images.stanza", "".join(CLASSIC.format(name=f"classic.{kind}", top=avs.top) for kind in ("prod", "test")))
    source = avs.tree()

    def image_mgr(line: str) -> str:
        answer = avs(*shlex.split(line))
        assert answer.code == 0, answer.err
        return answer.out

    report = image_mgr(f'create {image} -u larry -m "Initial build" --from {source}')
    assert "Initial build" in report
    assert "Image classic.prod created" in report
    tag = image_mgr(f"tag {image} -u larry").split()[-1]
    assert tag in image_mgr(f"list-tags {image}")
    assert image_mgr(f"list-tags {image} -u larry") == image_mgr(f"list_tags {image}")
    assert "as SL6.3-x86_64-netboot-classic.test" in image_mgr(f"pack {image} -t {tag} -x classic.test")
    assert f"Packed SL6.3-x86_64-netboot-classic.prod tag {tag}" in image_mgr(f"pack {image} -t {tag}")
    assert "Served:" in image_mgr(f"show {image} -t {tag}")


def test_avsimage_alone(avs: Installation) -> None:
    answer = avs()
    assert (answer.code, answer.err) == (0, "")
    assert len(answer.out.splitlines()) == 10


def test_a_wrong_line_is_answered_by_one(avs: Installation) -> None:
    for argv, look in ((["-c", "pack", "a"], "avsimage -c pack -h"), (["crate", "a"], "avsimage -h")):
        answer = avs(*argv)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.count("\n") == 1
        assert answer.err.endswith(f"; see {look}\n")
        assert avs(*look.split()[1:]).out.startswith("Usage:\n")


def test_an_image_of_another_case(avs: Installation) -> None:
    refused(avs("env", "Example.Prod"), "no osimage 'Example.Prod'", "did you mean example.prod?")


def test_live_without_xcat(avs: Installation) -> None:
    refused(avs("status", "--live"), "--live asks the nodes by xdsh", usage=True)


@pytest.fixture
def open_to_all() -> Iterator[Installation]:
    """An installation that others may read, with a repository that they may not. Not below pytest's own directory, which is closed."""
    with tempfile.TemporaryDirectory(prefix="avs-words-") as top:
        os.chmod(top, 0o755)
        made = Installation.make(Path(top))
        subprocess.run(["svnadmin", "create", made.top / "repo"], check=True)
        (made.top / "repo").chmod(0o700)
        yield made


def test_who_may_not_read_the_store_is_told_to_use_sudo(open_to_all: Installation) -> None:
    answers = [open_to_all("-c", mode, "example.prod", prefix=NOBODY) for mode in ("list-tags", "tag")]
    open_to_all.conf.chmod(0o600)
    answers.append(open_to_all("-c", "list-tags", "example.prod", prefix=NOBODY))
    for answer in answers:
        refused(answer, "use sudo")
        assert "E180001" not in answer.err
    assert "the store file://" in answers[0].err
    assert "avs.conf: Permission denied" in answers[-1].err


@pytest.mark.slow
def test_messages_are_the_persons_own(built: Installation) -> None:
    tag = json.loads(built("-c", "list-tags", "example.prod", "--json").out)["tags"][0]
    assert (tag["message"], tag["bookkeeping"].partition("; ")[2]) == ("why", "Tag of revision 2")
    assert json.loads(built("-c", "tag", "example.prod", "-t", "v2", "--json").out)["message"] == ""
    revision = json.loads(built("-c", "log", "example.prod", "--json").out)["revisions"][0]
    assert revision["message"] == "first"
    assert "; Image rebuild completed at " in revision["bookkeeping"]
    shown = json.loads(built("-c", "show", "example.prod", "-t", "v1", "--json").out)
    assert (shown["revision"]["message"], shown["tag"]["message"]) == ("first", "why")


@pytest.mark.slow
def test_a_tag_that_was_served_says_from_when_to_when(built: Installation) -> None:
    assert built("-c", "tag", "example.prod", "-t", "v2").code == 0
    for tag in ("v1", "v2"):
        assert built("-c", "pack", "example.prod", "-t", tag, "-u", "ann").code == 0
    dates = [json.loads(line)["date"] for line in (built.top / f"state/journal/{PROD}.jsonl").read_text().splitlines()]
    shown = built("-c", "show", "example.prod", "-t", "v1")
    line = next(line for line in shown.out.splitlines() if line.startswith("Served:"))
    assert f"as {PROD} from " in line
    assert " to " in line
    assert "(pack by ann)" in line
    history = json.loads(built("-c", "show", "example.prod", "-t", "v1", "--json").out)["history"]
    assert [(item["date"], item["until"]) for item in history] == [(dates[0], dates[1])]
    assert f"as {PROD} since " in built("-c", "show", "example.prod", "-t", "v2").out


@pytest.mark.slow
def test_what_to_do_next_is_said(avs: Installation) -> None:
    """Each step of the runbook names the one after it, and nothing that cannot be done."""
    (avs.tree() / "kernel").unlink()
    assert avs.create("-m", "first").out.endswith("Next: avsimage -c tag example.prod\n")
    assert avs("tag", "example.prod", "-t", "v1").out.endswith("Next: avsimage -c pack example.prod -t v1\n")
    packed = avs("pack", "example.prod", "-t", "v1")
    assert "holds no kernel; nodes cannot boot this image" in packed.err
    assert "Boot: " not in packed.out
    refused(avs("rollback", "example.prod"), "no set was served before", "; no other is kept; pack another tag")
    refused(avs("shell", "example.prod"), f"`avsimage -c checkout {PROD} DIR`")
    assert avs("tag", "example.prod", "-t", "v2").code == avs("pack", "example.prod", "-t", "v2").code == 0
    (avs.install / "netboot/debian12/x86_64/.example.prod.avs-previous").unlink()
    refused(avs("rollback", "example.prod"), "; choose one with -t: v1")


FAILS_ONCE = """\"\"\"Write much, and fail the first time\"\"\"


def run(ctx):
    ctx.install_file("x" * 5_000_000, "/etc/much")
    if not (ctx.installdir / "ready").exists():
        ctx.fail("not ready")
"""


@pytest.mark.slow
def test_the_report_of_a_resumed_build_adds_up(avs: Installation) -> None:
    """What an attempt that failed has left is of the step that then succeeds."""
    avs.put("install/custom/avs/images/example.prod/much.py", FAILS_ONCE)
    avs.put("install/custom/avs/images/example.prod/recipe.conf", "[recipe]\nsteps_add = much before cleanup\n")
    answer = avs.create()
    assert "`avsimage -c create example.prod --from" in answer.err
    avs.put("install/ready", "")
    steps = json.loads(avs.create("-b", "--json").out)["steps"]
    for before, step in zip(steps, steps[1:]):
        assert step["bytes_before"] == before["bytes_after"], step["name"]
    assert [step["name"] for step in steps if step["bytes_after"] - step["bytes_before"] > 4_000_000] == ["much"]


SLOW = """\"\"\"Takes a while\"\"\"


def run(ctx):
    ctx.run(["sh", "-c", "while :; do echo x; sleep 0.02; done"])
"""


# As a shell with job control starts it: in a process group of its own, in its session.
JOB = "import os, runpy; os.setpgrp(); runpy.run_module('xcat_avs', run_name='__main__', alter_sys=True)"


@contextmanager
def building(avs: Installation) -> Iterator[subprocess.Popen[bytes]]:
    """A create that runs a program without an end, as a job of this session."""
    avs.put("install/custom/avs/images/example.prod/slow.py", SLOW)
    avs.put("install/custom/avs/images/example.prod/recipe.conf", "[recipe]\nsteps_add = slow before cleanup\n")
    argv = [sys.executable, "-c", JOB, "create", "example.prod", "--from", str(avs.tree())]
    with open(avs.top / "err", "wb") as err:
        job = subprocess.Popen(argv, env=avs.environment(), cwd="/", stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        try:
            yield job
        finally:
            job.kill()  # also where it is stopped; the kernel ends the rest
            job.wait()


def grows(log: Path, seconds: float = 0.2) -> bool:
    before = log.stat().st_size if log.exists() else 0
    time.sleep(seconds)
    return log.exists() and log.stat().st_size > before


def wait_for(what: object) -> None:
    deadline = time.monotonic() + 20
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["by the terminal", "by kill"])
def test_ctrl_z_stops_a_build_and_fg_continues_it(avs: Installation, whole: bool) -> None:
    log = avs.top / f"logs/{PROD}/slow.log"
    with building(avs) as job:
        send = os.killpg if whole else os.kill
        wait_for(lambda: grows(log, 0.05))
        for _ in range(2):
            send(job.pid, signal.SIGTSTP)
            _, status = os.waitpid(job.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == signal.SIGTSTP
            assert not grows(log)
            send(job.pid, signal.SIGCONT)
            wait_for(lambda: grows(log, 0.05))
        send(job.pid, signal.SIGINT)
        assert job.wait(20) == 128 + signal.SIGINT
    words = " ".join((avs.top / "err").read_text().split())
    resume = f"avsimage -c create example.prod --from {avs.top}/source -b"
    assert (
        f"interrupted by SIGINT; nothing unfinished was committed or published; `{resume}` resumes the build" in words
    )
