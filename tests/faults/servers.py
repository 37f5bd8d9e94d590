"""What the program asks dies: the server of the store, and the daemon of xCAT."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes.node import ManagementNode, unpack
from harness import Result, wait_until
from integration.harness import output
from integration.test_remote import Server

from faults.kinds import LATER, Go, Kind, in_words, planned
from faults.world import COMMANDS, Runs, World, again

IMAGE = "example.prod"


class ServerKilled(Kind):
    """svnserve and all that it has forked are killed while a command runs, and started again when that has ended."""

    share = 1 / 3

    def world(self, top: Path) -> World:
        world = World(top, "fsvs")
        self.server = Server(top / "server", "anon-access = write\n")
        self.server.create()
        self.server.start()
        world.site.server, world.site.repository = self.server.url, self.server.repository
        world.site.configure("paths", store=self.server.url)
        return world.begin()

    def point(self, world: World, chance: random.Random, number: int) -> str:
        command = COMMANDS[chance.choice(("create", "commit", "tag", "pack", "verify"))]
        words, stop = planned(world, command, chance)
        later = chance.random() < 0.5

        def act(_process: subprocess.Popen[Any], go: Go) -> None:
            if later:
                go()
                time.sleep(chance.uniform(0, LATER))
            self.server.kill()

        try:
            outcome = in_words(world.stopped(words, stop, act))
        finally:
            self.server.kill()
            self.server.start()
        assert world.check() in (1, 2)
        again(world, command, words)
        return outcome

    def close(self, world: World) -> None:
        self.server.kill()
        world.close()


class Managed(Runs):
    """A management node with the programs of xCAT: two tags, both packed."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.node, self.tags, self.version = ManagementNode(top), 2, 0
        self.node.image()
        for tag in ("t1", "t2"):
            self.change()
            for words in (["create", IMAGE], ["tag", IMAGE, "-t", tag], ["pack", IMAGE, "-t", tag]):
                self.node.run(*words)

    def change(self) -> None:
        self.version += 1
        self.node.knob("genimage", issue=f"version {self.version}", size=100_000)

    def launch(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[Any]:
        return self.node.avsimage(*words, **env)

    def finish(self, process: subprocess.Popen[Any]) -> Result:
        return self.node.finish(process, 60)

    def check(self) -> int:
        wait_until(lambda: not self.node.leftovers(), 8, lambda: f"left behind: {self.node.leftovers()}")
        output(["svnadmin", "verify", "-q", str(self.node.repository)])
        served = self.node.served()
        archive = next(path for path in sorted(served.iterdir()) if path.name.startswith("rootimg."))
        shutil.rmtree(self.top / "unpacked", ignore_errors=True)
        out = unpack(archive, self.top / "unpacked")
        version = int((out / "etc/issue").read_text().split()[1])
        assert (out / "usr").is_dir()
        tag = json.loads((served / "avs.json").read_text())["tag"]
        assert tag == f"t{version}", f"the archive of {tag} holds version {version}"
        return version

    def close(self) -> None:
        super().close()
        self.node.close()
        shutil.rmtree(self.top, ignore_errors=True)


class DaemonDies(Kind):
    """xcatd goes away while a command runs, or stops to answer, and is back when that has ended."""

    share = 1 / 3

    def world(self, top: Path) -> Managed:
        top.mkdir(parents=True)
        return Managed(top)

    def point(self, world: Managed, chance: random.Random, number: int) -> str:
        name = ("create", "tag", "pack", "rollback")[number % 4]
        other = "t1" if world.check() == 2 else "t2"
        if name == "create":
            world.change()
        world.tags += 1
        words = {"create": ["create", IMAGE], "tag": ["tag", IMAGE, "-t", f"k{world.tags}"],
                 "pack": ["pack", IMAGE, "-t", other, "--force"], "rollback": ["rollback", IMAGE, "-t", other]}[name]  # fmt: skip
        if name not in world.counts:
            world.count(name, words)
            return "undisturbed"
        stop = chance.randint(1, world.counts[name])

        def act(_process: subprocess.Popen[Any], _go: Go) -> None:
            world.node.daemon("down")

        outcome = in_words(world.stopped(words, stop, act))
        world.node.daemon("up")
        assert world.check() in (1, 2)
        result = world.node.run(*words, code=None)
        assert result.code == 0 or (name == "tag" and "already" in result.stderr), f"the same again: {result}"
        served = world.check()
        assert name not in ("pack", "rollback") or f"t{served}" == other, f"version {served} is served, not {other}"
        return outcome
