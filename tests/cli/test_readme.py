"""The runbooks of README.md, line by line, on a management node with the programs of xCAT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.node import ManagementNode, osimage
from harness import TOP

from cli import typed

# The osvers of the fake's distribution in place of those that the README shows.
SHOWN = re.compile(r"debian12-x86_64|SL6\.3-x86_64|SL6\.3/x86_64")
OPENSSH = '''"""OpenSSH, as far as the runbook looks at it"""


def run(ctx):
    if (ctx.installdir / "broken").exists():
        ctx.fail("no such package")
    ctx.install_file("PermitRootLogin no\\n", "/etc/ssh/sshd_config")
'''


def runbook(title: str) -> list[list[str]]:
    """The commands of a section, block by block."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ").splitlines() for block in blocks]


def shown(line: str) -> str:
    places = {"SL6.3/x86_64": "rocky9.4/x86_64"}
    return SHOWN.sub(lambda found: places.get(found.group(), "rocky9.4-x86_64"), line)


def follow(node: ManagementNode, line: str) -> str:
    return typed.follow(node, shown(line)).split(typed.ERRORS)[0]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ManagementNode]:
    made = ManagementNode(tmp_path)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


@pytest.mark.slow
def test_the_runbook(node: ManagementNode) -> None:
    for profile, names in (("example.prod", ("cn001", "cn002")), ("example.test", ("test001",))):
        node.image(profile)
        node.nodes(osimage(profile), *names)
    site = node.installdir / "custom/avs/images/example.prod"
    site.mkdir(parents=True)
    (site / "openssh.py").write_text(OPENSSH)
    (site / "recipe.conf").write_text("[recipe]\nsteps_add = openssh before cleanup\n")
    serve, back, look, mend = runbook("The runbook")
    said = [follow(node, line) for line in serve]
    assert "Next: avsimage -c tag example.prod\n" in said[0]
    assert "Next: avsimage -c pack example.prod -t 2026-11-23-ssh\n" in said[1]
    for before, after in ((2, 3), (5, 6)):
        due = re.search(r"^Before they reboot: nodeset \S+ (osimage=\S+)$", said[before], re.MULTILINE)
        assert due is not None, said[before]
        assert SHOWN.sub("rocky9.4-x86_64", serve[after]).split()[2] == due.group(1)
    for line in ("create example.prod -m second", "tag example.prod -t second", "pack example.prod -t second --force"):
        follow(node, f"avsimage -c {line}")
    rollback, status, journal = [follow(node, line) for line in back]
    assert "Serving example.prod.2026-11-23-ssh again" in rollback
    assert "did not answer" in status
    assert "slurmd does not start" in journal
    files, text, checkout = [follow(node, line) for line in look]
    assert "/etc/ssh/sshd_config" in files
    assert text == "PermitRootLogin no\n"
    assert f"into {node.top}/tmp/ssh" in checkout
    (node.installdir / "broken").touch()
    assert "shell rocky9.4" in node.run("create", "example.prod", "-m", "OpenSSH update", code=1).error
    check, logs, shell = [follow(node, line) for line in mend[:3]]
    assert "[FAIL]" not in check
    assert re.search(r"^openssh +failed ", logs, re.MULTILINE)
    assert shell.split("Next: ")[1].split() == mend[3].split("#")[0].split(), "the README has what shell says"
    (node.installdir / "broken").unlink()
    assert "OpenSSH update" in follow(node, mend[3])


@pytest.mark.slow
def test_the_classic_runbook(node: ManagementNode) -> None:
    pkglist = node.installdir / "custom/netboot/SL/example.prod.pkglist"
    pkglist.parent.mkdir(parents=True)
    pkglist.write_text("bash\nkernel\n")
    (lines,) = runbook("The classic runbook")
    node.nodes(osimage("example.prod"), "cn001")
    said = [follow(node, line) for line in lines]
    assert "2026-11-23-ssh" in said[3]
    assert f"Packed {osimage('example.prod')} tag 2026-11-23-ssh\n" in said[4]
    assert said[5] == "cn001: netboot rocky9.4-x86_64-example.prod\n"
