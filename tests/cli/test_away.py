"""A store that does not answer, and what prune frees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from unittest.mock import Mock

import pytest

from cli.conftest import Installation
from xcat_avs.definitions.osimage import Tag
from xcat_avs.modes import prune
from xcat_avs.store.protocol import Revision

AWAY = "ostree:http://127.0.0.1:9/images"


def on_disk(avs: Installation) -> int:
    return int(
        subprocess.run(["du", "-s", "--block-size=1", avs.top], capture_output=True, check=True).stdout.split()[0]
    )


def test_what_is_served_is_told_where_the_store_does_not_answer(built: Installation) -> None:
    if shutil.which("ostree") is None or os.geteuid() != 0:
        pytest.skip("needs ostree, and root")
    assert built("-c", "pack", "example.prod", "-t", "v1").code == 0
    for mode in ("status", "images"):
        answer = built.here("-c", mode, "-s", AWAY)
        assert (answer.code, " v1 " in answer.out) == (0, True), answer.err
        assert f"Warning: the store {AWAY} cannot be read: it does not answer" in answer.err
    # What only the server can look at is no warning that never goes.
    assert "was never verified" not in built.here("-c", "check", "-s", AWAY).out
    assert "was never verified" in built.here("-c", "check").out


def test_a_revision_whose_only_tags_go_goes_with_them() -> None:
    tags = [Tag(name, number, number, "", author="", message="") for name, number in (("a", 1), ("b", 1), ("c", 2))]
    store = Mock(tags=lambda _: tags, log=lambda _: [Revision(number, "", "", "") for number in (3, 2, 1)])
    kept = [
        {item.name: item.kept for item in prune._revisions(store, Mock(), gone)} for gone in ([], ["a"], ["a", "b"])
    ]
    assert kept[0] == kept[1] == {"3": "is the newest", "2": "is tagged", "1": "is tagged"}
    assert kept[2] == {**kept[0], "1": ""}


def test_prune_frees_what_it_says(built: Installation) -> None:
    """A sparse file, such as lastlog, takes no more than its blocks."""
    with open(next((built.top / "state/builds").iterdir()) / "tree/rootimg/lastlog", "wb") as stream:
        stream.truncate(1 << 30)
    words = ("-c", "prune", "example.prod", "--keep", "0", "--json")
    wanted = json.loads(built.here(*words, "--dry-run").out)
    before = on_disk(built)
    answer = built.here(*words)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["bytes"], found["removed"]) == (wanted["bytes"], wanted["removed"])
    assert abs(before - on_disk(built) - found["bytes"]) < 50_000  # locks are made
