"""boot: what is known of it, who asks for it, and what cannot be booted. What boots for real is in test_quickstart.py."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.node import ManagementNode, osimage

from cli.conftest import PROD, TEST, Installation
from xcat_avs.serve import booted, journal
from xcat_avs.serve.booted import Boot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(built_once: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The image that is tagged v1, in a place of its own for the tests here."""
    top = tmp_path_factory.mktemp("boot") / "site"
    shutil.copytree(built_once.top, top, symlinks=True)
    for name in ("avs.conf", "images.stanza"):
        (top / name).write_text((top / name).read_text().replace(str(built_once.top), str(top)))
    return Installation(top)


def result(site: Installation, **values: object) -> None:
    """Have a result of a boot of v1."""
    tag = json.loads(site.here("-c", "list-tags", "example.prod", "--json").out)["tags"][0]
    made = Boot(
        source=PROD, tag="v1", revision=tag["source"], made=tag["date"], version="", osimage=TEST, archive="rootimg.cpio.gz",
        result="booted", why="node login:", seconds=41.25, accelerator="emulation", memory=960, needed=960, unpacked=350, units="", date="2026-01-02T03:04:05Z",
        user="bo",
    )  # fmt: skip
    journal.append(booted.file(site.top / "state", PROD), replace(made, **values))  # type: ignore[arg-type]


def test_what_qemu_cannot_even_start(site: Installation) -> None:
    """The kernel of this image is a text; what QEMU says of it is told, and nothing is known of the tag then."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("not installed: qemu-system-x86")
    failed = site("-c", "boot", "example.prod", "-t", "v1")
    assert "qemu-system-x86_64 ended before the kernel's first word" in failed.error
    assert "kernel" in failed.error.split("first word")[1]
    assert f"log: {site.top}/logs/{PROD}/boot.log" in failed.error
    assert os.listdir(site.top / "state/boots") == []
    assert "BOOTED" not in site.here("-c", "list-tags", "example.prod").out
    assert not (site.install / "netboot/debian12/x86_64/example.prod").exists()


def test_only_what_has_booted_is_served_where_it_has_to(site: Installation) -> None:
    site.setting("pack", "require_boot = yes")  # of *.prod
    pack = ("-c", "pack", "example.prod", "-t", "v1")
    said = "serves only what has ([pack] require_boot); nothing was published. `avsimage -c boot"
    assert f"{PROD}: tag v1 has not booted yet, and {PROD} {said} {PROD} -t v1` tries it" in site(*pack).error
    assert site(*pack, "-x", "example.test").code == 0
    assert "and -f would serve one that has not" in site.create("-f").error
    result(site, result="failed", why="no init")
    assert (
        "did not boot when it was tried (failed (no init), rootimg.cpio.gz, 2026-01-02 03:04:05 UTC)"
        in site(*pack).error
    )
    result(site, made="2020-01-01T00:00:00.000000Z")  # of a tag of that name in a store that is gone
    assert "did not boot" in site(*pack).error
    result(site)
    assert "tag v1 has not booted yet as rootimg.tar.gz" in site(*pack, "--method", "tar").error
    assert not (site.install / "netboot/debian12/x86_64/example.prod").exists()
    done = site(*pack)
    assert done.code == 0, done.err


def test_what_is_known_is_shown(site: Installation) -> None:
    record = json.loads((site.install / "netboot/debian12/x86_64/example.prod/avs.json").read_text())
    result(site, version=record["version"])
    result(site, archive="rootimg.sfs", seconds=30, accelerator="kvm", units="ssh.service")
    short = "2026-01-02 03:04:05 UTC cpio.gz 41s"
    listed = site.here("-c", "list-tags", "example.prod", "--wide").out
    assert f"  {short}; 2026-01-02 03:04:05 UTC sfs 30s  " in listed
    boots = json.loads(site.here("-c", "list-tags", "example.prod", "--json").out)["tags"][0]["boots"]
    assert [(boot["archive"], boot["units"]) for boot in boots] == [
        ("rootimg.cpio.gz", ""),
        ("rootimg.sfs", "ssh.service"),
    ]
    shown = site.here("-c", "show", "example.prod", "-t", "v1").out
    assert "booted in 41s, emulated, rootimg.cpio.gz, 2026-01-02 03:04:05 UTC, by bo; a node needs 960 MiB" in shown
    status = site.here("-c", "status", "example.test", "--wide").out
    assert short in status
    assert "sfs" not in status
    assert len(json.loads(site.here("-c", "status", "--json").out)["osimages"][0]["boots"]) == 1
    file = booted.file(site.top / "state", PROD)
    file.write_text(file.read_text() + '{"source": "')  # interrupted
    assert short in site.here("-c", "status", "--wide").out


def test_what_the_kernel_is_told_where_xcat_is(tmp_path: Path) -> None:
    """What nodeset has told that of a node, with the addresses of the private network; the set is the one that is served."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("not installed: qemu-system-x86")
    node = ManagementNode(tmp_path)
    node.image("example.prod")
    node.nodes(osimage("example.prod"), "cn001")
    for words in (["create"], ["tag", "-t", "v1"], ["pack", "-t", "v1", "--nodeset"]):
        node.run(words[0], "example.prod", *words[1:])
    failed = node.run("boot", "example.prod", "-t", "v1", code=1)
    assert "ended before the kernel's first word" in failed.stderr
    served = node.served("example.prod")
    (line, *_) = [
        line for line in Path(re.findall("log: (.*)", failed.stderr)[0]).read_text().splitlines() if "tcg" in line
    ]
    assert f"-initrd {served.resolve().parent}/example.prod.v1/initrd-stateless.gz " in line
    told = f"-append imgurl=http://10.0.2.100:80/{str(served)[1:]}/rootimg.cpio.gz XCAT=10.0.2.100:3001 nonodestatus"
    assert told in line, "as the fake's nodeset writes it, without a NODE"
    assert line.count("guestfwd=tcp:10.0.2.100:80-cmd:") == 1
    left = node.close()
    assert not left, f"left behind: {left}"
