"""A machine that packs what another one builds: the store by OSTree, read by http."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.test_ostree_remote import Web

from integration.harness import PROFILE, Installation, difference, look, output

pytestmark = pytest.mark.slow


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Installation, Installation, Web]]:
    """The one that builds, one that reads the mirror of its store, and the web server of that."""
    one, two = Installation(tmp_path / "one", "ostree"), Installation(tmp_path / "two", "ostree")
    (tmp_path / "www/images").mkdir(parents=True)
    web = Web(tmp_path / "www")
    two.server = web.url
    two.define(PROFILE)
    yield one, two, web
    web.stop()
    left = [*one.close(), *two.close()]
    assert not left, f"left behind: {left}"


def test_built_here_and_served_there(
    machines: tuple[Installation, Installation, Web], source: Path, tmp_path: Path
) -> None:
    one, two, web = machines
    one.store().prepare(one.image(), "ann")
    output(["ostree", "config", f"--repo={one.repository}", "set", "avs.mirror", str(tmp_path / "www/images")])
    assert "mirror" not in one.create(source).stderr
    one.run("tag", PROFILE, "-t", "t1")
    two.run("pack", PROFILE, "-t", "t1")
    assert difference(look(source / "rootimg"), look(two.kept / "rootimg")) == {}
    before = (source / "rootimg/etc/passwd").read_text()
    (source / "rootimg/etc/passwd").write_text("changed\n")
    one.create(source)
    one.run("tag", PROFILE, "-t", "t2")
    web.asked.clear()
    two.run("pack", PROFILE, "-t", "t2")
    assert len([path for path in web.asked if path.endswith(".filez")]) <= 12, "passwd, and what tells of the build"
    assert [tag["name"] for tag in two.run("list-tags", PROFILE, "--json").document["tags"]] == ["t1", "t2"]
    assert "etc/passwd" in two.run("diff", PROFILE, "-t", "t1:t2", "--files").stdout
    assert two.run("cat", PROFILE, "/etc/passwd", "-t", "t1").stdout == before
    two.run("checkout", PROFILE, str(tmp_path / "out"), "-t", "t1")
    assert (tmp_path / "out/rootimg/etc/passwd").read_text() == before
    said = two.run("verify", PROFILE, "--deep", code=None)
    assert "`ostree fsck` has to be run there" in said.stdout, str(said)
    for words in (["create", PROFILE, "--from", str(source)], ["tag", PROFILE, "-t", "t4"]):
        assert "can only be read, for it is behind a web server" in two.run(*words, code=1).error
    pruned = two.run("prune", PROFILE, "--keep", "0")
    assert "stays: this machine only reads it" in pruned.stdout
    one.run("tag", PROFILE, "-t", "t3")
    assert "prune where images" in two.run("prune", PROFILE, "--tags", "t3", "--yes", "t3", code=1).error
    assert "it is only read" in two.run("check", PROFILE, code=None).stdout
    assert [tag.name for tag in one.store().tags(one.image())] == ["t1", "t2", "t3"]
    web.stop()
    assert "it does not answer" in two.run("pack", PROFILE, "-t", "t1", code=1).error
