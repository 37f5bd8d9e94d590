"""The kinds of faults. Each is done at many points, and says of each what came of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import Result
from integration.harness import PROFILE, output

from faults.world import COMMANDS, NAME, Command, Place, World, again

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FULL = ("full", "No space left on device", "no space left")
USED_BY = {
    "logs": ("create", "pack"),
    "store": ("create", "commit", "tag", "prune", "verify"),
    "staging": ("pack",),
    "install": ("pack", "rollback"),
}  # what writes there; elsewhere all do
# What is done in one world in any order; prune takes sets away that a rollback needs.
MIXED = tuple(name for name in COMMANDS if name != "prune")
SLACK = 6  # paths; a tag whose kept set has a link more, a file more in a version
LATER = 0.05  # seconds; the longest that is waited after the point
Go = Callable[[], None]


class Kind(ABC):
    """A kind of fault, done in one world as long as nothing is found there."""

    share = 1.0  # how many points, of what is asked for

    def __init__(self, name: str, engine: str = "fsvs") -> None:
        self.name = name if engine == "fsvs" else f"{name}, {engine}"
        self.engine = engine

    def __str__(self) -> str:
        return self.name

    def world(self, top: Path) -> Any:
        return World(top, self.engine).begin()

    @abstractmethod
    def point(self, world: Any, chance: random.Random, number: int) -> str:
        """Do it once; returns a word for what came of it. Raises AssertionError for a fault that is found."""

    def end(self, world: Any) -> None:  # noqa: B027
        """Look at the world once more after the last point."""

    def close(self, world: Any) -> None:
        world.close()


def planned(world: World, command: Command, chance: random.Random) -> tuple[list[str], int]:
    """What is to be run, and the number of one of its operations; every one is as likely."""
    if command.name not in world.counts:
        world.chance = random.Random(command.name)  # the same one whichever point comes first
        words = command.words(world)
        world.count(command.name, words)
        again(world, command, words)
    world.chance = chance
    return command.words(world), chance.randint(1, world.counts[command.name])


def in_words(result: Result) -> str:
    """It ended well, or with an error in words."""
    if result.code == 0:
        assert "Traceback" not in result.stderr, str(result)
        return "went on"
    assert "Traceback" not in result.stderr, str(result)
    assert "[FAIL]" in result.stdout or result.error, str(result)
    return "refused"


class Kill(Kind):
    """A signal at any point: before an operation, or up to 50 ms later, when other programs may run."""

    def __init__(self, command: str, engine: str = "fsvs") -> None:
        super().__init__(f"kill {command}", engine)
        self.command = COMMANDS[command]
        self.held, self.points = set[str](), 0  # what the world held after its first points

    def world(self, top: Path) -> World:
        self.held, self.points = set(), 0
        return World(top, self.engine).begin()

    def point(self, world: World, chance: random.Random, number: int) -> str:
        number_of = SIGNALS[number % len(SIGNALS)]
        words, stop = planned(world, self.command, chance)
        exact, worker = chance.random() < 0.7, number_of == signal.SIGKILL and chance.random() < 0.3
        delay = chance.uniform(0, LATER)

        def act(process: subprocess.Popen[Any], go: Go) -> None:
            if not exact:
                go()
                time.sleep(delay)
            for pid in workers(process.pid) if worker else [process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number_of)
            if exact and number_of == signal.SIGKILL:
                process.wait(20)  # it dies where it is
            elif exact:
                time.sleep(0.02)  # and is interrupted where it is

        before = world.version
        result = world.stopped(words, stop, act)
        outcome = killed(result, number_of)
        served = world.check()
        assert served in (1, 2)
        assert world.stored() <= before
        again(world, self.command, words)
        self.points += 1
        if self.points == len(SIGNALS):
            self.held = world.kept()
        return outcome

    def end(self, world: World) -> None:
        """The state directory is no larger than after the first points."""
        if self.held:
            now = world.kept()  # other names, of another tag and method, but not more of them
            assert len(now) <= len(self.held) + SLACK, f"the directories grow: {sorted(now - self.held)[:20]}"


def workers(pid: int) -> list[int]:
    """The process that does the work for one that waits, or that one itself."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [int(child) for child in children] or [pid]
    return [pid]


def killed(result: Result, number: signal.Signals) -> str:
    """What a signal did to a run: `late` where it was over before."""
    assert "Traceback" not in result.stderr, str(result)
    if result.code == 0:
        return "late"
    if number == signal.SIGKILL and result.code == 1:
        assert "was killed by SIGKILL" in result.error, str(result)  # a program that it had started
        return "its program killed"
    if number == signal.SIGKILL:
        assert result.code in (-9, 137), str(result)
    elif result.code == -number:
        assert result.stderr == "", str(result)  # before anything was begun
    else:
        assert result.code == 128 + number, str(result)
        assert f"interrupted by {number.name}" in result.error, str(result)
    return f"killed by {number.name}"


# -- full disks


class Disk:
    """A file system in memory, which can be filled."""

    SIZE, FILES = 48 << 20, 4000

    def __init__(self, point: Path) -> None:
        self.point = point
        point.mkdir(parents=True)
        options = f"size={self.SIZE},nr_inodes={self.FILES},mode=755"
        output(["mount", "-t", "tmpfs", "-o", options, "avs-faults", str(point)])

    def fill(self, leave: int, inodes: bool) -> None:
        """Leave room for so many bytes, or so many files."""
        ballast = self.point / ".ballast"
        ballast.mkdir()
        free = os.statvfs(self.point)
        if inodes:
            for number in range(max(0, free.f_favail - leave)):
                (ballast / str(number)).touch()
            return
        descriptor = os.open(ballast / "0", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            os.posix_fallocate(descriptor, 0, max(1, free.f_bavail * free.f_frsize - leave))
        os.close(descriptor)

    def empty(self) -> None:
        output(["rm", "-rf", str(self.point / ".ballast")])

    def read_only(self, on: bool) -> bool:
        argv = ["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.point)]
        return subprocess.run(argv, check=False, capture_output=True, timeout=30).returncode == 0

    def close(self) -> None:
        output(["umount", str(self.point)])
        self.point.rmdir()


class Full(Kind):
    """A file system that is full from some point of a command on, of bytes or of inodes."""

    share = 1 / 3

    def __init__(self, where: str, engine: str = "fsvs") -> None:
        super().__init__(f"full {where}", engine)
        self.where = where

    def world(self, top: Path) -> World:
        self.disk = Disk(top.with_name(f"{top.name}.disk"))
        return World(top, self.engine, Place(self.where, self.disk.point)).begin()

    def point(self, world: World, chance: random.Random, number: int) -> str:
        command = COMMANDS[chance.choice(USED_BY.get(self.where, MIXED))]
        words, stop = planned(world, command, chance)
        if chance.random() < 0.4:
            stop = 1
        inodes = number % 2 == 1
        leave = int(chance.random() ** 2 * (40 if inodes else 200_000)) if chance.random() < 0.6 else 0

        def act(_process: subprocess.Popen[Any], _go: Go) -> None:
            self.disk.fill(leave, inodes)

        try:
            result = world.stopped(words, stop, act)
            outcome = in_words(result)
            if outcome == "refused":
                assert any(word in result.stdout + result.stderr for word in FULL), (
                    f"not said that a disk is full: {result}"
                )
            assert world.check() in (1, 2)
        finally:
            self.disk.empty()
        again(world, command, words)
        return outcome

    def close(self, world: World) -> None:
        world.close()
        self.disk.close()


class ReadOnly(Kind):
    """A store that cannot be written to, from some point of a command on."""

    share = 1 / 3

    def world(self, top: Path) -> World:
        self.disk = Disk(top.with_name(f"{top.name}.disk"))
        return World(top, self.engine, Place("store", self.disk.point)).begin()

    def point(self, world: World, chance: random.Random, number: int) -> str:
        command = COMMANDS[MIXED[number % len(MIXED)]]
        words, stop = planned(world, command, chance)
        if chance.random() < 0.4:
            stop = 1
        changed = []

        def act(_process: subprocess.Popen[Any], _go: Go) -> None:
            changed.append(self.disk.read_only(True))

        try:
            outcome = in_words(world.stopped(words, stop, act))
            assert world.check() in (1, 2)
        finally:
            self.disk.read_only(False)
        again(world, command, words)
        return outcome if any(changed) else "late"

    def close(self, world: World) -> None:
        world.close()
        self.disk.close()


# -- others


class Clock(Kind):
    """All that is there is of tomorrow: the clock has been set back by a day."""

    share = 1 / 5
    BACK = 86400

    def world(self, top: Path) -> World:
        world = World(top, self.engine, env={"AVS_TEST_INSIDE": "1", "AVS_TEST_CLOCK": str(self.BACK)}).begin()
        del world.site.extra["AVS_TEST_CLOCK"]
        return world

    def point(self, world: World, chance: random.Random, number: int) -> str:
        world.chance = chance
        command = COMMANDS[MIXED[number % len(MIXED)]]
        # With OSTree the date is a part of the commit, which its name proves.
        for number_of in range(1, (world.site.youngest() if self.engine == "fsvs" else 0) + 1):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + self.BACK + number_of))
            argv = [
                "svnadmin",
                "setrevprop",
                str(world.site.repository),
                "-r",
                str(number_of),
                "svn:date",
                "/dev/stdin",
            ]
            output(argv, stamp.encode())
        words = command.words(world)
        for top in (world.site.state, world.site.installdir):
            for where, names, files in os.walk(top):
                for name in (*names, *files):
                    when = time.time() + self.BACK
                    os.utime(os.path.join(where, name), (when, when), follow_symlinks=False)
        again(world, command, words)
        return "went on"


class ForeignMount(Kind):
    """Somebody has mounted something below the build directory, or below the checkout that is kept.

    Before the command begins: what is mounted later is not seen in its namespace.
    """

    share = 1 / 3

    def point(self, world: World, chance: random.Random, number: int) -> str:
        command = COMMANDS[chance.choice(MIXED)]
        world.chance = chance
        words = command.words(world)
        tops = (world.site.tree(), world.site.kept, world.site.state / "staging" / NAME)
        point = tops[number % len(tops)] / chance.choice(["rootimg/etc", "rootimg/foreign", "foreign"])
        point.mkdir(parents=True, exist_ok=True)
        output(["mount", "-t", "tmpfs", "-o", "size=1m", "somebody", str(point)])
        world.foreign.add(str(point))
        (point / "precious").write_text("not of this image\n")
        try:
            outcome = in_words(world.finish(world.start(words, 0)))
            assert (point / "precious").exists(), f"{point} was emptied, or unmounted"
            assert world.check() in (1, 2)
        finally:
            subprocess.run(["umount", str(point)], check=False, timeout=30)
            world.foreign.clear()
        again(world, Command("x", command.words, lambda _: None, command.trivial), words)
        return outcome


class ChangingTree(Kind):
    """The tree changes while it is committed: what is stored is what its manifest says, or never packed."""

    share = 1 / 3

    def point(self, world: World, chance: random.Random, number: int) -> str:
        command = COMMANDS[chance.choice(("create", "commit"))]
        words, stop = planned(world, command, chance)
        root = world.site.tree() / "rootimg"

        def act(_process: subprocess.Popen[Any], go: Go) -> None:
            late = chance.random() < 0.5
            if late:
                go()
                time.sleep(chance.uniform(0, LATER))
            with suppress(OSError):
                disturb(root, chance)

        outcome = in_words(world.stopped(words, stop, act))
        if outcome == "went on":
            world.tags += 1
            world.site.run("tag", PROFILE, "-t", f"k{world.tags}")
            if world.site.run("verify", PROFILE, "-t", f"k{world.tags}", code=None).code:
                assert (
                    "differs from its manifest" in world.site.run("pack", PROFILE, "-t", f"k{world.tags}", code=1).error
                )
                outcome = "stored, not packed"
        assert world.check() in (1, 2)
        again(world, Command("x", command.words, lambda _: None), words)
        return outcome


def disturb(root: Path, chance: random.Random) -> None:
    """One change of a tree."""
    path = root / chance.choice(["etc/issue", "usr/share/noise", "usr/share/zero", "etc/passwd"])
    what = chance.randrange(6)
    if what == 0:
        path.write_bytes(chance.randbytes(chance.randrange(200_000)))
    elif what == 1:
        path.unlink()
    elif what == 2:
        path.unlink()
        path.mkdir()
    elif what == 3:
        with open(path, "ab") as stream:
            stream.write(b"more\n")
    elif what == 4:
        path.chmod(0o600)
    else:
        (path.parent / f"new.{chance.randrange(100)}").write_text("new\n")
