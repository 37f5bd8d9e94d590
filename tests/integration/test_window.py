"""No moment without an image: a reader that never stops, over packs, rollbacks and packs that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.node import ManagementNode, osimage, strays

pytestmark = pytest.mark.slow

PROD = osimage("example.prod")
BYPASS = {"XCATBYPASS": "1"}
PACKS, ROLLBACKS, KILLED = 20, 20, 10
# What a node does, as the web server would let it: a file that others may not read is a 403.
READER = r"""
import gzip, json, os, sys, time
archive, stop, result = sys.argv[1:]
reads, failures, seen = 0, [], set()
while not os.path.exists(stop):
    try:
        with open(archive, "rb") as stream:
            if not os.fstat(stream.fileno()).st_mode & 0o004:
                raise OSError("forbidden")
            data = stream.read(65536)
            while chunk := stream.read(65536):
                data += chunk
        text = gzip.decompress(data)
        if b"TRAILER!!!" not in text[-2048:]:
            raise ValueError("no trailer")
        start = text.index(b"etc/issue\0")
        issue = text[start + 10:start + 64].strip(b"\0").split(b"\n")[0].decode()
        if not issue.startswith("the "):
            raise ValueError(f"etc/issue holds {issue!r}")
        seen.add(issue)
    except Exception as err:
        failures.append(f"read {reads}: {type(err).__name__}: {err}")
    reads += 1
    time.sleep(0.004)
with open(result, "w") as stream:
    json.dump({"reads": reads, "failures": failures, "seen": sorted(seen)}, stream)
"""


class Reader:
    """Reads the served archive in a process of its own, from start to finish()."""

    def __init__(self, archive: Path, work: Path) -> None:
        work.mkdir()
        self.stop, self.result = work / "stop", work / "result"
        argv = [sys.executable, "-c", READER, str(archive), str(self.stop), str(self.result)]
        self.process = subprocess.Popen(argv)

    def finish(self) -> dict[str, Any]:
        self.stop.touch()
        assert self.process.wait(30) == 0
        found: dict[str, Any] = json.loads(self.result.read_text())
        return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ManagementNode]:
    """example.prod in a real directory, as genimage and packimage leave it, and two tags of it."""
    made = ManagementNode(tmp_path)
    made.image()
    made.nodes(PROD, "cn001")
    for tag, issue in (("v1", "the first"), ("v2", "the second")):
        made.knob("genimage", issue=issue, size=150_000)
        made.run("create", "example.prod")
        made.run("tag", "example.prod", "-t", tag)
    for program in ("genimage", "packimage"):
        assert made.program(program, PROD, **BYPASS).code == 0
    made.reload()
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


def beside(made: ManagementNode) -> set[str]:
    return set(os.listdir(made.served().parent))


def test_whoever_boots_gets_a_whole_image(node: ManagementNode, tmp_path: Path) -> None:
    reader = Reader(node.served() / "rootimg.cpio.gz", tmp_path / "reader")
    try:
        time.sleep(0.2)
        node.knob("packimage", delay=0.1)
        took = []
        for number in range(PACKS):
            started = time.monotonic()
            node.run("pack", "example.prod", "-t", "v2" if number % 2 else "v1")
            took.append(time.monotonic() - started)
        for _ in range(ROLLBACKS):
            node.run("rollback", "example.prod")
        names = beside(node)
        chance = random.Random(4)
        for number in range(KILLED):
            process = node.avsimage("pack", "example.prod", "-t", "v2" if number % 2 else "v1", "--force")
            # Anywhere in a pack, and more often where it publishes.
            part = chance.uniform(0.1, 0.6) if number % 2 else chance.uniform(0.6, 1.0)
            time.sleep(part * min(took))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + 5
            while any(True for _ in strays(node.root)) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert list(strays(node.root)) == []
        node.run("pack", "example.prod", "-t", "v1", "--force")
        node.run("rollback", "example.prod", "-t", "v2")
    finally:
        found = reader.finish()
    assert found["failures"] == []
    assert found["seen"] == ["the first", "the second"]
    assert found["reads"] > 500
    assert beside(node) == names, "a pack that was killed has left something that later ones did not take away"
    assert not (node.state / "staging" / PROD).exists()


def test_the_reader_sees_what_plain_packimage_does(node: ManagementNode, tmp_path: Path) -> None:
    """The same loop, on a real directory: this is what all of it is for."""
    node.knob("packimage", delay=0.3)
    reader = Reader(node.served() / "rootimg.cpio.gz", tmp_path / "reader")
    try:
        time.sleep(0.2)
        for _ in range(3):
            assert node.program("packimage", PROD, **BYPASS).code == 0
        time.sleep(0.2)
    finally:
        found = reader.finish()
    assert found["reads"] > 50
    assert any("forbidden" in failure for failure in found["failures"])
    assert len(found["failures"]) < found["reads"]
