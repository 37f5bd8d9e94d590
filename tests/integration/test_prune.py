"""What prune removes, and what it leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.conftest import both
from integration.harness import PROFILE, Installation, look, served_set
from xcat_avs.store.protocol import Version

pytestmark = pytest.mark.slow


def contents(installation: Installation) -> int:
    return len(list((installation.repository / "objects").rglob("*.file")))


@both
def test_prune(installation: Installation, source: Path) -> None:
    """Five revisions, three of them tagged and packed, one after the other, and one masquerade."""
    installation.recipe("prepare_image_directory", "generate_image")
    for number in range(1, 6):
        (source / "rootimg/etc/value").write_text(f"{number}\n" * 1000)
        installation.create(source)
        if number in (1, 3, 4):
            installation.run("tag", PROFILE, "-t", f"t{number}")
            installation.run("pack", PROFILE, "-t", f"t{number}")
    installation.run("pack", PROFILE, "-t", "t3", "-x", "example.test")
    ostree, served = installation.engine == "ostree", served_set(installation.served())
    place = installation.served().parent
    before = (look(installation.top / "store"), look(place), look(installation.state))

    refused = installation.run("prune", PROFILE, code=1)
    assert "prune needs --keep N, --older DAYS, or --tags PATTERN" in refused.error
    for words in (["--keep", "-1"], ["--older", "x"], ["--keep", "9" * 30], ["--yes", "t1", "--keep", "1"]):
        installation.run("prune", PROFILE, *words, code=1)
    assert "Nothing of" in installation.run("prune", PROFILE, "--older", "1").stdout
    document = installation.run("prune", PROFILE, "--keep", "0", "--dry-run", "--json").document
    found = {(item["kind"], item["name"].rpartition("/")[2]) for item in document["removed"]}
    wanted = {
        ("set", f"{PROFILE}.t1"),
        ("checkout", "tree"),
        *((kind, installation.image().name) for kind in ("build", "logs")),
    }
    assert found == wanted | ({("revision", "2")} if ostree else set())
    assert document["bytes"] > 0
    assert document["history_stays"] is not ostree
    assert installation.run("prune", PROFILE, "--keep", "4", "--json").document["removed"] == []
    assert (look(installation.top / "store", times=False), look(place)) == (
        {path: facts[:-1] for path, facts in before[0].items()} | lock(installation), before[1],
    )  # fmt: skip

    count = contents(installation) if ostree else 0
    said = installation.run("prune", PROFILE, "--keep", "1")
    assert "Freed" in said.stdout
    assert "removing what takes" in said.stderr
    assert ("Subversion does not forget" in said.stdout) is not ostree
    assert served_set(installation.served()) == served
    assert not (place / f"{PROFILE}.t1").exists()
    assert os.path.exists(place / f"{PROFILE}.t3")
    assert installation.tree().exists(), "the newest build"
    installation.verify_repository()
    if ostree:
        assert count - contents(installation) >= 2, "what revision 2 alone had, and its manifest"
        assert b"2\n" * 1000 not in [
            path.read_bytes() for path in (installation.repository / "objects").rglob("*.file") if path.is_file()
        ]
        assert [item["number"] for item in installation.run("log", PROFILE, "--json").document["revisions"]] == [
            5,
            4,
            3,
            1,
        ]
        assert "has no revision 2" in installation.run("show", PROFILE, "-r", "2", code=1).error
    installation.run("rollback", PROFILE)
    for tag in ("t1", "t3", "t4"):
        installation.run("verify", PROFILE, "-t", tag)
    (source / "rootimg/etc/value").write_text("6\n")
    assert "Stored as revision" in installation.create(source).stdout

    # Tags: only by their exact names, and never one that is served.
    if not ostree:
        assert (
            "stays: Subversion does not forget"
            in installation.run("prune", PROFILE, "--tags", "t1", "--yes", "t1", code=1).error
        )
        return
    assert (
        "serves tag t3, or would by a rollback"
        in installation.run("prune", PROFILE, "--tags", "t*", "--yes", "t1,t3,t4", code=1).error
    )
    assert (
        "means 1 tag; to remove just them, say --yes t1"
        in installation.run("prune", PROFILE, "--tags", "*1", code=1).error
    )
    assert "no tag that matches" in installation.run("prune", PROFILE, "--tags", "x*", "--yes", "x", code=1).error
    installation.run("prune", PROFILE, "--tags", "*1", "--yes", "t1")
    assert [tag.name for tag in installation.store().tags(installation.image())] == ["t3", "t4"]
    installation.run("prune", PROFILE, "--keep", "0")
    assert [revision.number for revision in installation.store().log(installation.image())] == [6, 4, 3]
    assert not installation.tree().exists()
    assert installation.store().read(installation.image(), Version(tag="t4"), "rootimg/etc/value") == b"4\n" * 1000
    installation.verify_repository()
    assert "no new revision" in installation.create(source).stdout


def lock(installation: Installation) -> dict[str, tuple[object, ...]]:
    """What looking how much would be freed may leave in a store: the file by which one at a time writes."""
    found = look(installation.top / "store", times=False)
    return {path: facts for path, facts in found.items() if path.endswith("avs/lock")}
