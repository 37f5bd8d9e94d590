"""No moment without an image: a reader that never stops, over packs, rollbacks and packs that are killed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.node import ManagementNode, osimage
from harness import processes_below

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
    made = prepared(tmp_path)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


@pytest.fixture
def fuse_node(tmp_path: Path) -> Iterator[ManagementNode]:
    """The same with INSTALLDIR on a file system that cannot exchange two names, as NFS cannot."""
    if shutil.which("fuse2fs") is None or not os.path.exists("/dev/fuse"):
        pytest.skip("no fuse2fs, or no /dev/fuse: no file system without RENAME_EXCHANGE")
    disk, point = tmp_path / "disk", tmp_path / "install"
    with open(disk, "wb") as stream:
        stream.truncate(256 << 20)
    point.mkdir()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(disk)], check=True)
    mounted = subprocess.run(["fuse2fs", "-o", "fakeroot", str(disk), str(point)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"fuse2fs cannot mount here: {mounted.stderr.decode(errors='replace').strip()}")
    made = None
    try:
        made = prepared(tmp_path)
        yield made
    finally:
        subprocess.run(["umount", str(point)], check=True)
        left = made.close() if made else []
    assert not left, f"left behind: {left}"


def prepared(top: Path) -> ManagementNode:
    made = ManagementNode(top)
    made.image()
    made.nodes(PROD, "cn001")
    for tag, issue in (("v1", "the first"), ("v2", "the second")):
        made.knob("genimage", issue=issue, size=150_000)
        made.run("create", "example.prod")
        made.run("tag", "example.prod", "-t", tag)
    for program in ("genimage", "packimage"):
        assert made.program(program, PROD, **BYPASS).code == 0
    made.reload()
    return made


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
        hidden = {name for name in beside(node) if name.startswith(".") or ".moved." in name}
        chance = random.Random(4)
        for number in range(KILLED):
            process = node.avsimage("pack", "example.prod", "-t", "v2" if number % 2 else "v1", "--force")
            # Anywhere in a pack, and more often where it publishes.
            part = chance.uniform(0.1, 0.6) if number % 2 else chance.uniform(0.6, 1.0)
            time.sleep(part * min(took))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + 5
            while processes_below(node.root) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert processes_below(node.root) == {}
        for tag in ("v2", "v1"):
            node.run("pack", "example.prod", "-t", tag, "--force")
        node.run("rollback", "example.prod", "-t", "v2")
    finally:
        found = reader.finish()
    assert found["failures"] == []
    assert found["seen"] == ["the first", "the second"]
    assert found["reads"] > 500
    left = beside(node)
    assert {name for name in left if name.startswith(".") or ".moved." in name} == hidden, (
        "left by a pack that was killed"
    )
    assert len([name for name in left if "@" in name]) <= 4, "of each tag one that is served or was, and the newest"
    assert not (node.state / "staging" / PROD).exists()


def test_where_two_names_cannot_be_exchanged(fuse_node: ManagementNode, tmp_path: Path) -> None:
    """The first pack, which puts a link in place of a real directory, has a moment without an image, and says so."""
    node, archive = fuse_node, fuse_node.served() / "rootimg.cpio.gz"
    reader = Reader(archive, tmp_path / "first")
    try:
        time.sleep(0.2)
        first = node.run("pack", "example.prod", "-t", "v1")
    finally:
        found = reader.finish()
    said = re.search(r"cannot exchange two names, so for (\d+\.\d) ms there was nothing", first.stderr)
    assert said is not None, str(first)
    print(f"first pack: {float(said[1])} ms, {len(found['failures'])} of {found['reads']} reads failed")
    assert all("FileNotFoundError" in failure for failure in found["failures"])
    assert len(found["failures"]) <= 1 + float(said[1]) / 4

    reader = Reader(archive, tmp_path / "then")
    try:
        for number in range(6):
            again = node.run("pack", "example.prod", "-t", "v2" if number % 3 else "v1", "--force")
            assert "cannot exchange" not in again.stderr
            node.run("rollback", "example.prod")
    finally:
        found = reader.finish()
    print(f"then: {len(found['failures'])} of {found['reads']} reads failed")
    # Who opens while FUSE itself renames may be told that there is no such file; nothing is ever half there.
    assert all("FileNotFoundError" in failure for failure in found["failures"])
    assert len(found["failures"]) <= 2 * 12
    assert found["reads"] > 100


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
