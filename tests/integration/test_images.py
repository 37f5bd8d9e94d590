"""images on a management node: few questions to xCAT and to the store, however many osimages there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fakes.node import ManagementNode, osimage

from xcat_avs.system.locks import Holder, locked

pytestmark = pytest.mark.slow
PROD, TEST, INSTALL = osimage("example.prod"), osimage("example.test"), "rocky9.4-x86_64-install-compute"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagementNode]:
    """A node that serves one image, built twice and tagged, as another one as well; most osimages are not managed."""
    top = tmp_path_factory.mktemp("images")
    made = ManagementNode(top / "node")
    for name in ("example.prod", "example.test", "compute", *(f"other{number}" for number in range(12))):
        made.image(name)
    made.define(INSTALL, provmethod="install", osvers="rocky9.4", osarch="x86_64", profile="compute")
    made.nodes(PROD, "n1", "n2", "n3")
    made.nodes(INSTALL, "n4")
    (made.served("compute")).mkdir(parents=True)
    (made.served("compute") / "rootimg.gz").write_bytes(b"x" * 100_000)
    (top / "source/rootimg/etc").mkdir(parents=True)
    (top / "source/rootimg/etc/motd").write_text("x" * 5000)
    made.run("create", "example.prod", "--from", str(top / "source"))
    made.run("tag", "example.prod", "-t", "v1", "-m", "works")
    yield made
    assert made.close() == []


def test_every_osimage(node: ManagementNode) -> None:
    found = node.run("images", "--json").document
    images = {item["osimage"]: item for item in found["osimages"]}
    assert sorted(images) == sorted(node.tables["osimage"])
    mine = images[PROD]
    assert (mine["tags"], mine["newest"], mine["nodes"], mine["tag"]) == (1, "v1", 3, "")
    assert mine["revision"] == node.run("log", "example.prod", "--json").document["revisions"][0]["number"]
    assert mine["date"] == node.run("log", "example.prod", "--json").document["revisions"][0]["date"]
    assert mine["bytes"] == node.run("log", "example.prod", "--json").document["revisions"][0]["bytes"]
    assert mine["on_disk"] > 0
    assert images[INSTALL]["on_disk"] is None
    assert (images[INSTALL]["nodes"], images[INSTALL]["revision"]) == (1, 0)
    assert images[osimage("compute")]["foreign"] is True
    assert images[osimage("compute")]["on_disk"] > 100_000
    assert images[TEST]["on_disk"] == 0
    assert found["store"]["bytes"] > 0


def test_in_words(node: ManagementNode) -> None:
    rows = {line.split()[0]: line for line in node.run("images").stdout.splitlines() if line}
    assert re.fullmatch(rf"{PROD} +\d+ +2\S+ \S+ UTC +1 +v1 +\d+K +\d+K +- +3 +-", rows[PROD])
    assert re.fullmatch(rf"{INSTALL} +(?:- +){{7}}1 +-", rows[INSTALL])
    assert "(not packed here)" in rows[osimage("compute")]


def test_it_asks_no_more_for_many_than_for_one(node: ManagementNode) -> None:
    asked = []
    for words in (["images", "example.prod"], ["images"]):
        node.forget()
        said = node.run(*words, "-V").stderr
        asked.append(re.findall(r"^\+ (?:\S*/)?(lsdef|svn|du)\b", said, re.MULTILINE))
        assert len(node.calls()) == 3
    assert sorted(asked[0]) == sorted(asked[1]) == ["du", "lsdef", "lsdef", "lsdef", "svn", "svn", "svn"]


def test_who_builds(node: ManagementNode) -> None:
    (node.state / "locks").mkdir(exist_ok=True)
    holder = Holder("alice", 7, "here", since="now")
    with locked(node.state / f"locks/{TEST}.build", "", holder):
        image = node.run("images", "example.test", "--json").document["osimages"][0]
        assert image["running"] == {"build": "alice (process 7 on here, since now)"}
        assert "build by alice (process 7 on here, since now)" in node.run("images").stdout


def test_what_is_told_without_a_store(node: ManagementNode) -> None:
    node.configure("paths", store=f"file://{node.top}/elsewhere")
    try:
        said = node.run("images")
    finally:
        node.configure("paths", store=f"file://{node.repository}")
    assert "Warning: there is no store" in said.stderr
    assert PROD in said.stdout


def test_the_definitions_of_a_family(node: ManagementNode) -> None:
    assert node.run("images", "-o", "debian12", "--json").document["osimages"] == []
    assert "(no osimages)" in node.run("images", "-o", "debian12").stdout
