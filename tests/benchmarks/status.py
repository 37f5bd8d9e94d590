"""The benchmark of status: what avsimage adds to the one lsdef that it cannot do without.

Run by hand; see the text of -h.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from fakes.node import ARCH, OSVERS, ManagementNode, osimage  # noqa: E402

from xcat_avs.serve.sets import RECORD, PackedSet  # noqa: E402

DESCRIPTION = """\
Time `avsimage -c status` on stand-ins for xCAT whose lsdef takes as long as the real one was measured to take (an idle
management node: 0.66 s for the provmethod of 1,000 nodes, 0.3 s for one osimage, 1.7 s for 314), beside that lsdef
itself. Each image is served and has three tags in the store; every node has a boot file. The exit code is 1 where
status takes more than twice the time of that lsdef at 1,000 nodes, more than 1.3 times at 5,000, or where 100 served
images take 1.5 s more than one."""
KNOB = {"seconds": 0.15, "per_node": 0.0005, "per_osimage": 0.0045}
QUESTION = ("-t", "node", "-i", "provmethod", "-c")


def site(top: Path, nodes: int, images: int) -> ManagementNode:
    """A management node that serves so many images to so many nodes."""
    made = ManagementNode(top)
    words = []
    store = f"file://{made.repository}"
    made.repository.parent.mkdir(parents=True)
    subprocess.run(["svnadmin", "create", str(made.repository)], check=True)
    places: list[str] = []
    for number in range(images):
        name = made.image(f"image{number:03d}")
        publish(made, name, f"image{number:03d}")
        path = f"{store}/netboot/{OSVERS}/{ARCH}/image{number:03d}"
        places.append(path)
    mucc(
        ["mkdir", f"{store}/netboot", "mkdir", f"{store}/netboot/{OSVERS}", "mkdir", f"{store}/netboot/{OSVERS}/{ARCH}"]
    )
    mucc([word for path in places for name in ("", "/trunk", "/tags") for word in ("mkdir", path + name)])
    for tag in ("v1", "v2", "v3"):
        words = [word for path in places for word in ("cp", "HEAD", f"{path}/trunk", f"{path}/tags/{tag}")]
        mucc(words)
    for number in range(nodes):
        profile = f"image{number % images:03d}"
        node = f"node{number:05d}"
        made.tables["node"][node] = {"provmethod": osimage(profile), "netboot": "xnba", "bmcpassword": "secret"}
        boot = made.tftpdir / "xcat/xnba/nodes" / node
        boot.parent.mkdir(parents=True, exist_ok=True)
        boot.write_text(f"#!gpxe\nimgfetch -n kernel http://mgmt/tftpboot/xcat/osimage/{osimage(profile)}/kernel\n"
                        f"imgargs kernel imgurl=http://mgmt:80/{made.served(profile)}/rootimg.cpio.gz XCAT=mgmt:3001\n")  # fmt: skip
    made.knob("lsdef", **KNOB)
    return made


def mucc(words: Sequence[str]) -> None:
    argv = ["svnmucc", "--non-interactive", "-m", "benchmark", "-X", "-"]
    subprocess.run(argv, input="\n".join(words), text=True, check=True, stdout=subprocess.DEVNULL)


def publish(made: ManagementNode, name: str, profile: str) -> None:
    """A set as pack leaves it, and what nodeset copies of it."""
    directory = made.served(profile).with_name(f"{profile}.v1")
    directory.mkdir(parents=True)
    files = {}
    for file, size in (("kernel", 100_000), ("initrd-stateless.gz", 300_000), ("rootimg.cpio.gz", 10_000)):
        data = (profile + file).encode() * (size // 10)
        (directory / file).write_bytes(data)
        files[file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record = PackedSet(name, name, "v1", 1, "2026-01-02T03:04:05Z", "user", "rootimg.cpio.gz", "", files)
    (directory / RECORD).write_text(json.dumps(asdict(record)))
    made.served(profile).symlink_to(directory.name)
    made.tftp(profile).mkdir(parents=True)
    for file in ("kernel", "initrd-stateless.gz"):
        shutil.copyfile(directory / file, made.tftp(profile) / file)


def seconds(made: ManagementNode, rounds: int) -> tuple[float, float]:
    """Median seconds of lsdef and of status, in turns."""
    asked, shown = [], []
    for _ in range(rounds):
        started = time.monotonic()
        assert made.program("lsdef", *QUESTION).code == 0
        asked.append(time.monotonic() - started)
        started = time.monotonic()
        result = made.run("status", "--json")
        shown.append(time.monotonic() - started)
        assert not any(document["nodeset_due"] for document in result.document["osimages"])
    return statistics.median(asked), statistics.median(shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default 5)")
    parser.add_argument("--dir", default="/var/tmp", help="where to work (default /var/tmp)")
    rounds, where = vars(parser.parse_args()).values()
    found = {}
    for nodes, images in ((1000, 1), (5000, 1), (1000, 100)):
        with tempfile.TemporaryDirectory(dir=where, prefix="avs-status.") as top:
            made = site(Path(top), nodes, images)
            found[nodes, images] = seconds(made, rounds)
            made.close()
        asked, shown = found[nodes, images]
        print(
            f"{nodes} nodes, {images} served: lsdef {asked:.2f} s, status {shown:.2f} s, {shown / asked:.2f} times",
            flush=True,
        )
    more = found[1000, 100][1] - found[1000, 1][1]
    print(f"100 served images take {more:.2f} s more than one")
    ratios = {nodes: found[nodes, 1][1] / found[nodes, 1][0] for nodes in (1000, 5000)}
    return int(ratios[1000] > 2 or ratios[5000] > 1.3 or more > 1.5)


if __name__ == "__main__":
    sys.exit(main())
