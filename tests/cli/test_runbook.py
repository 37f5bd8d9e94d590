"""avs-runbook(7), every line of it, on a management node with the programs of xCAT."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.node import ARCH, OSVERS, ManagementNode, osimage
from harness import TOP

from cli.typed import follow

pytestmark = pytest.mark.slow

PAGE = TOP / "man/man7/avs-runbook.7"
HAND = "somebody has run packimage by hand"


def blocks(title: str) -> list[list[str]]:
    """The lines to type of a section, a list for each place where some stand together; settings are left out."""
    text = PAGE.read_text(encoding="ascii")
    section = re.split(rf"^\.S[HS] {re.escape(title)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^\.SH " if title.isupper() else r"^\.S[HS] ", section, flags=re.MULTILINE)[0]
    found = re.findall(r"^\.EX\n(.*?)^\.EE$", section, re.MULTILINE | re.DOTALL)
    lines = [block.replace("\\(aq", "'").replace("\\-", "-").splitlines() for block in found]
    return [block for block in lines if not block[0].startswith("[")]


def type_all(node: ManagementNode, title: str) -> list[str]:
    """Type all lines of a section; returns what each said."""
    return [follow(node, line) for block in blocks(title) for line in block]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ManagementNode]:
    made = ManagementNode(tmp_path)
    pkglist = made.installdir / "custom/netboot/rocky/example.prod.pkglist"
    pkglist.parent.mkdir(parents=True)
    pkglist.write_text("bash\nkernel\n")
    for name in ("backup", "srv/avs"):
        (tmp_path / name).mkdir(parents=True)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


def test_from_nothing_to_another_management_node(node: ManagementNode) -> None:
    """One life: what a section of the page needs, those before it have made."""
    node.image("compute")  # by copycds
    qemu = node.root / "bin/qemu-system-x86_64"  # a real boot is the quick start's
    qemu.write_text("#!/bin/sh\nprintf 'Linux version 6.1\\n\\ncn001 login: '\nexec sleep 60\n")
    qemu.chmod(0o755)
    node.nodes(osimage("compute"), "cn001", "cn002", "test001")
    node.tables["node"]["test001"]["groups"] = "test,all"
    node.save()
    *_, packed, nodeset, _, status = type_all(node, "FROM NOTHING TO PRODUCTION")
    assert "2026-11-23-first" in packed
    assert nodeset.splitlines()[0] == f"cn001: netboot {OSVERS}-{ARCH}-example.prod"
    assert "did not answer" in status

    (node.installdir / "custom/netboot/rocky/example.prod.pkglist").write_text("bash\nkernel\nopenssh-server\n")
    said = type_all(node, "TEST AND PRODUCTION")
    assert "example.prod.pkglist" in said[2]
    assert "login:" in said[4]
    assert f"No node has provmethod {osimage('example.test')}" in said[5]
    assert "cn001" in said[8]

    said = type_all(node, "ROLLBACK AT NIGHT")
    assert "Serving example.prod.2026-11-23-first again" in said[1]
    assert "slurmd does not start" in said[4]
    assert "is served already" in said[-1] or "Packed" in said[-1]

    node.reload()
    node.tables["node"]["cn001"].update(servicenode="sn01", xcatmaster="sn01")
    node.save()
    said = type_all(node, "SERVICE NODES AND A SHARED STORE")
    assert "rsync" in said[0]
    assert "rsync" in said[1]
    assert "2026-11-24-ssh" in said[3]

    type_all(node, "nodes boot an old kernel, or no image")
    assert " is to be removed" in type_all(node, "a disk is full")[1]
    served = next(node.served().resolve().glob("rootimg.*"))
    served.write_bytes(b"by hand")
    status, packed = type_all(node, HAND)
    assert served.name in status
    assert served.read_bytes() == b"by hand"
    assert next(node.served().glob("rootimg.*")).read_bytes() != b"by hand"

    node.reload()
    node.daemon("down")
    assert "xcatd" in node.run("rollback", "example.prod", code=1).error
    assert "again" in type_all(node, "xcatd does not answer")[0]
    node.daemon("up")
    away = node.repository.rename(node.repository.with_name("away"))
    (lines,) = blocks("the store is not there")
    assert "[FAIL]" in follow(node, lines[0], code=1)
    assert "again" in follow(node, lines[1])
    away.rename(node.repository)
    assert "svnadmin verify" in type_all(node, "the store is damaged")[0]

    first, second = blocks("BACKUP, AND ANOTHER MANAGEMENT NODE")
    for line in first:
        follow(node, line)
    for directory in (node.state, node.repository, node.installdir / "custom", node.served().parent):
        shutil.rmtree(directory)
    node.state.mkdir()
    said = [follow(node, line) for line in second]
    assert "[FAIL]" not in said[3]
    assert "2026-11-24-ssh" in said[4]
    assert "svnadmin verify" in said[7]
    assert (node.served() / "avs.json").exists()


def test_from_avs_image_mgr(node: ManagementNode, tmp_path: Path) -> None:
    node.image()
    base = f"file://{tmp_path}/srv/avs/repo/netboot/{OSVERS}/{ARCH}/example.prod"
    tree = tmp_path / "classic"
    by_hand(node, "genimage")
    subprocess.run(["cp", "-a", str(node.served()), str(tree)], check=True)
    by_hand(node, "packimage")
    env = {**os.environ, "FSVS_CONF": str(tmp_path / "conf"), "FSVS_WAA": str(tmp_path / "waa")}
    for name in ("conf", "waa"):
        (tmp_path / name).mkdir()
    for argv, stdin in (
        (["svnadmin", "create", str(tmp_path / "srv/avs/repo")], ""),
        (["svn", "mkdir", "-q", "--parents", "-m", "layout", *(f"{base}/{name}" for name in ("trunk", "tags", "branches"))], ""),
        (["fsvs", "urls", "load"], f"{base}/trunk\n"),
        (["fsvs", "ci", "-m", "larry; Image rebuild completed"], ""),
        (["svn", "cp", "-q", "-m", "larry; tag v1", f"{base}/trunk", f"{base}/tags/v1"], ""),
    ):  # fmt: skip
        subprocess.run(argv, cwd=tree, env=env, input=stdin, text=True, check=True, capture_output=True)
    node.configure("paths", store=f"file://{tmp_path}/srv/avs/repo")
    tags, log, packed, created, diff = type_all(node, "FROM AVS_IMAGE_MGR")
    assert "v1" in tags
    assert "Image rebuild completed" in log
    assert "cannot be" in packed
    assert "example.prod.moved.aside.on." in packed, packed
    assert "Next: avsimage -c tag example.prod" in created
    assert "v1" in diff


def by_hand(node: ManagementNode, program: str) -> None:
    """What a site without avsimage does in the rootimgdir."""
    done = node.program(program, osimage("example.prod"), XCATBYPASS="1")
    assert done.code == 0, done


def test_an_existing_genimage_tree(node: ManagementNode) -> None:
    node.image()
    for program in ("genimage", "packimage"):
        by_hand(node, program)
    node.nodes(osimage("example.prod"), "cn001")
    said = type_all(node, "AN EXISTING GENIMAGE TREE")
    assert "example.prod.moved.aside.on." in said[2], said[2]
    assert "as-it-was" in said[3]
    assert "as-it-was" in said[5]


def test_a_build_that_fails(node: ManagementNode) -> None:
    node.image()
    step = node.installdir / "custom/avs/procedures/common/site_step.sh"
    step.parent.mkdir(parents=True)
    step.write_text("#!/bin/sh\ntest -e /usr || exit 0\necho no such package\nexit 3\n")
    step.chmod(0o755)
    recipe = node.installdir / "custom/avs/images/example.prod/recipe.conf"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("[recipe]\nsteps_add = site_step before cleanup\n")
    assert "site_step failed" in node.run("create", "example.prod", "-m", "with a step", code=1).error
    (lines,) = blocks("a build fails")
    logs, shell = (follow(node, line) for line in lines[:2])
    assert re.search(r"^site_step +failed ", logs, re.MULTILINE)
    assert f"Next: {lines[2]}".replace("example.prod", osimage("example.prod")) in shell or "-b" in shell
    step.write_text("#!/bin/sh\nexit 0\n")
    assert "with a step" in follow(node, lines[2])


def test_each_line_is_one_that_somebody_types() -> None:
    """No section is left out above."""
    text = PAGE.read_text(encoding="ascii")
    typed = {
        title
        for _, title in re.findall(r"^\.S([HS]) (.*)$", text, re.MULTILINE)
        if "WHAT TO DO" not in title and blocks(title)
    }
    source = Path(__file__).read_text(encoding="utf-8").replace("HAND)", f'"{HAND}")')
    assert {title for title in typed if f'"{title}"' not in source} == set()
