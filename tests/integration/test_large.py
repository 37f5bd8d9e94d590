"""What is large: one file, and how many files there are.

Here they are as large as shows what goes wrong; `tests/benchmarks/large.py` runs the same at the full size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.harness import PROFILE, Installation, output, refuse_warning
from xcat_avs.store.fsvs.store import FsvsStore
from xcat_avs.store.protocol import Version
from xcat_avs.store.trees import checkout_tree

pytestmark = pytest.mark.slow

FULL = os.environ.get("AVS_LARGE") == "1"
# Of the file: its size, what of it is no hole, and where else something is; 2 GiB is where numbers get a sign.
SIZE, DENSE = (3_000_000_000, 200 << 20) if FULL else (150_000_000, 4 << 20)
PLACES = (1 << 31, (1 << 31) - 4096, 2_900_000_000) if FULL else (1 << 26, (1 << 26) - 4096, 140_000_000)
MANY, MEMORY = (150_000, 250) if FULL else (15_000, 50)  # files; MB that a scan of them may take


def test_a_large_file_with_a_hole(installation: Installation, source: Path) -> None:
    """Mostly a hole, and the first part of it dense."""
    installation.recipe("prepare_image_directory", "generate_image")
    large = source / "rootimg/large"
    block = os.urandom(1 << 20)
    with open(large, "wb") as stream:
        for number in range(DENSE >> 20):
            stream.write(number.to_bytes(4, "big") + block[4:])
        for position in PLACES:
            stream.seek(position)
            stream.write(block)
        stream.truncate(SIZE)
    installation.finish(installation.start("create", PROFILE, "--from", str(source)), 300)
    installation.run("tag", PROFILE, "-t", "t1")
    result = installation.finish(
        installation.start("pack", PROFILE, "-t", "t1", "--method", "tar", "--compress", "gzip"), 300
    )
    assert result.code == 0, str(result)
    output(["cmp", str(large), str(installation.kept / "rootimg/large")])
    assert (installation.kept / "rootimg/large").stat().st_blocks <= large.stat().st_blocks + 16


SCAN = """
import re, sys
from xcat_avs.tree import manifest, scan
found = scan.scan(sys.argv[1])
with open(sys.argv[2], "w", encoding="ascii") as stream:
    stream.writelines(manifest.lines(found))
# ru_maxrss begins with what the process that started this one had.
print(len(found), int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) // 1024)
"""


def make_many(top: Path) -> None:
    """Small files, as a large image has them: 300 a directory."""
    here = os.getcwd()
    try:
        for directory in range(MANY // 300):
            below = top / f"lib/package-{directory:04d}"
            below.mkdir(parents=True)
            os.chdir(below)
            for number in range(300):
                descriptor = os.open(f"module-{number:03d}.py", os.O_CREAT | os.O_WRONLY)
                os.write(descriptor, b"%d.%d\n" % (directory, number) * (number % 40))
                os.close(descriptor)
    finally:
        os.chdir(here)


def _scan_in_little_memory(top: Path, target: Path) -> None:
    """The whole tree is scanned and its manifest written."""
    argv = [sys.executable, "-c", SCAN, str(top), str(target)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    paths, megabytes = map(int, done.stdout.split())
    assert paths > MANY
    assert megabytes < MEMORY
    with open(target, encoding="ascii") as stream:
        assert sum(1 for _ in stream) == paths + 2


def test_many_files(installation: Installation, source: Path, tmp_path: Path) -> None:
    """By far the most of the time goes to the first commit."""
    installation.recipe("prepare_image_directory", "generate_image")
    try:
        make_many(source / "rootimg/many")
        took = [time.monotonic()]
        result = installation.finish(installation.start("create", PROFILE, "--from", str(source)), 600)
        assert result.code == 0, str(result)
        took.append(time.monotonic())
        _scan_in_little_memory(installation.tree(), tmp_path / "manifest")
        installation.run("tag", PROFILE, "-t", "t1")
        target = tmp_path / "out"
        target.mkdir()
        store = FsvsStore(installation.url, installation.state / "fsvs")
        checkout_tree(store, installation.image(), Version(tag="t1"), target / "tree", refuse_warning)
        took.append(time.monotonic())
        rsync = ["rsync", "-aHAXn", "--checksum", "--delete", "-i", "--numeric-ids"]
        assert output([*rsync, f"{source}/rootimg/", f"{target}/tree/rootimg/"]) == ""
        took.append(time.monotonic())
        create, checkout, compared = (round(after - before) for before, after in zip(took, took[1:]))
        print(f"create {create} s, checkout {checkout} s, rsync {compared} s")
    finally:
        subprocess.run(
            ["rm", "-rf", str(source), str(tmp_path / "out"), str(installation.state)], check=True, timeout=900
        )
