"""The pack benchmark: how much of a pack is the proof of its archive.

Run as root by hand; see the text of -h.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import trees
from trees import TOP, BenchmarkError

DESCRIPTION = """\
Pack a tag of a real Debian tree in each form, from a checkout that is there already, and time the whole of it and
the proof of the archive. Needs root, fsvs, subversion, mmdebstrap and squashfs-tools; the tree is built once, from
the machine's own apt sources (1.2 GB; 6 GB in all). The exit code is 1 if a proof takes more than a quarter
by the clock; on a busy machine the ratio of processor time says more."""
DEFAULT_WORK = Path("/var/tmp/avs-benchmark")
METHODS = ("cpio", "tar", "squashfs")
TARGET = 0.25
OSIMAGE = "debian12-x86_64-netboot-benchmark"
STANZA = """\
{name}:
    objtype=osimage
    imagetype=linux
    osarch=x86_64
    osname=Linux
    osvers=debian12
    profile=benchmark
    provmethod=netboot
    rootimgdir={install}/benchmark
"""
CONF = """\
[xcat]
use = no
definitions = {top}/osimages.stanza
[paths]
state = {top}/state
logs = {top}/logs
store = file://{top}/repo
installdir = {top}/install
tftpdir = {top}/tftpboot
"""
# Runs avsimage, and says how long each proof took.
TIMED = """\
import os, sys, time
from xcat_avs.pack import proof
from xcat_avs import cli
def timed(*argv, real=proof.prove, **named):
    started, before = time.monotonic(), sum(os.times()[:4])
    real(*argv, **named)
    print("PROOF", time.monotonic() - started, sum(os.times()[:4]) - before, file=sys.stderr, flush=True)
proof.prove = timed
sys.exit(cli.main())
"""


def avsimage(top: Path, *words: str) -> dict[str, float]:
    """Run a mode; the seconds of all of it, and of the proofs in it, by the clock and of processors."""
    env = {**os.environ, "AVS_CONF": str(top / "avs.conf"), "PYTHONPATH": str(TOP)}
    started, before = time.monotonic(), sum(os.times()[2:4])
    done = subprocess.run([sys.executable, "-c", TIMED, *words], env=env, capture_output=True, text=True, check=False)
    took, used = time.monotonic() - started, sum(os.times()[2:4]) - before
    if done.returncode:
        raise BenchmarkError(f"avsimage {' '.join(words)} failed: {done.stderr[-2000:]}")
    proofs = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("PROOF ")]
    proof, proof_cpu = (sum(float(words[number]) for words in proofs) for number in (0, 1))
    return {
        "seconds": took,
        "proof": proof,
        "ratio": proof / took,
        "cpu": used,
        "proof_cpu": proof_cpu,
        "cpu_ratio": proof_cpu / used,
    }


def prepare(work: Path, source: Path) -> Path:
    """A site with the tree as the tag v1 of its image."""
    top = work / "pack"
    trees.remove(top)
    top.mkdir(parents=True)
    (top / "osimages.stanza").write_text(STANZA.format(name=OSIMAGE, install=top / "install"), encoding="utf-8")
    (top / "avs.conf").write_text(CONF.format(top=top), encoding="utf-8")
    recipe = top / "install/custom/avs/images/benchmark/recipe.conf"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("[recipe]\nsteps = prepare_image_directory, generate_image\n", encoding="utf-8")
    avsimage(top, "-c", "create", OSIMAGE, "--from", str(source), "-m", "benchmark")
    avsimage(top, "-c", "tag", OSIMAGE, "-t", "v1")
    return top


def main() -> int:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where everything goes (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="these forms")
    parser.add_argument("--rounds", type=int, default=1, help="how often (default: 1)")
    options = parser.parse_args()
    try:
        source = options.work / "reference"
        if not source.is_dir():
            source = trees.build(options.work)["reference"]
        top = prepare(options.work, source)
        avsimage(top, "-c", "pack", OSIMAGE, "-t", "v1", "--method", "cpio")  # makes the checkout
        found = []
        for method in options.only:
            for _ in range(options.rounds):
                row = avsimage(top, "-c", "pack", OSIMAGE, "-t", "v1", "--method", method, "--force")
                found.append(row["ratio"])
                print(
                    json.dumps({"method": method, **{name: round(value, 3) for name, value in row.items()}}), flush=True
                )
        trees.remove(top)
    except BenchmarkError as err:
        print(f"Error: {err}", file=sys.stderr)
        return 2
    return 1 if any(ratio > TARGET for ratio in found) else 0


if __name__ == "__main__":
    sys.exit(main())
