"""check on a management node: what it says of xCAT, whatever is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.node import ManagementNode, osimage
from harness import Result

PROD = osimage("example.prod")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ManagementNode]:
    made = ManagementNode(tmp_path)
    made.image("example.prod")
    made.nodes(PROD, "cn001", "cn002")
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


def failures(result: Result) -> list[str]:
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in re.sub(r"\n +", " ", result.stdout).split("\n") if line.startswith("[FAIL]")]


def test_a_management_node_that_is_well(node: ManagementNode) -> None:
    result = node.run("check", "example.prod")
    assert failures(result) == []
    for words in ("1 osimage, 1 of them netboot, 2 nodes; xcatd answers", "lsdef, genimage, packimage, nodeset, chdef, xdsh",
                  "genimage and packimage take the definition", "no node boots from a service node", "generator genimage: genimage"):  # fmt: skip
        assert words in result.stdout
    assert {call["program"] for call in node.calls()} == {"lsdef"}


BROKEN = {
    "down": ("xcatd cannot be reached", "systemctl start xcatd"),
    "badcert": ("refuses the certificate", "systemctl status xcatd"),
    "denied": ("policy table does not let root read", "tabdump policy"),
    "garbage": ("did not answer with osimage definitions", ""),
}


@pytest.mark.parametrize("mode", BROKEN)
def test_a_broken_xcat(node: ManagementNode, mode: str) -> None:
    node.daemon(mode)
    wanted, fix = BROKEN[mode]
    result = node.run("check", "example.prod", code=1)
    line = next(line for line in failures(result) if wanted in line)
    assert fix in line.partition("fix: ")[2]
    assert "free for state" in result.stdout, "the rest is looked at all the same"
    if mode != "garbage":
        error = node.run("status", code=1)
        assert "`avsimage -c check` looks at all that is needed" in error.stderr


def test_what_xcat_lacks(node: ManagementNode) -> None:
    node.tables["node"]["cn001"]["servicenode"] = "sn1"
    node.tables["site"]["sharedtftp"] = "0"
    node.classic("old")
    (node.root / "bin/xdsh").unlink(missing_ok=True)
    (node.root / "sbin/packimage").unlink()
    result = node.run("check", "old", code=1)
    said = failures(result)
    assert any("xCAT's program packimage is neither in PATH nor in" in line for line in said)
    assert any(
        f"fix: chdef -t osimage {osimage('old')} osvers=rocky9.4 osarch=x86_64 profile=old" in line for line in said
    )
    assert "service node sn1 has its own copy of INSTALLDIR and TFTPDIR, for 1 node" in result.stdout
    found = json.loads(node.run("check", "--json", code=1).stdout)
    assert {item["area"] for item in found["findings"]} >= {"xCAT", "definitions"}
    assert [item["result"] for item in found["findings"] if "program xdsh" in item["text"]] in ([], ["[WARN]"])
