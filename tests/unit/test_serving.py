"""What is told of a pack or a rollback when something fails after the switch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import CommandError
from xcat_avs.pack.serving import Result, ServedError, conclude
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.serve import nodeset
from xcat_avs.serve.nodeset import Outcome
from xcat_avs.site import Site

SITE = cast(Site, SimpleNamespace(definitions=None, runner=lambda: None))
IMAGE = OsImage("img.prod", {})


def concluded(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception, problem: str = "") -> Report:
    def after_publish(*_: Any) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(nodeset, "after_publish", after_publish)
    return conclude(Request(), SITE, Result(IMAGE, ["Serving it"], {"tag": "v1"}, problem=problem))


def test_nothing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    report = concluded(monkeypatch, Outcome(["Used by 1 node"], {"nodes": ["cn1"]}, 1))
    assert report == Report(["Serving it\nUsed by 1 node"], {"tag": "v1", "changed": True, "nodes": ["cn1"]}, 1)


def test_the_nodes_are_told_of_though_the_journal_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServedError, match=r"^no journal$") as caught:
        concluded(monkeypatch, Outcome(["Used by 1 node"]), "no journal")
    assert caught.value.report.blocks == ["Serving it\nUsed by 1 node"]


def test_a_nodeset_that_cannot_be_run_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServedError, match=r"^no journal; nodeset hangs") as caught:
        concluded(monkeypatch, CommandError("nodeset hangs", ["its last line"], "its.log"), "no journal")
    assert caught.value.report == Report(["Serving it"], {"tag": "v1", "changed": True})
    assert (caught.value.tail, caught.value.log) == (("its last line",), "its.log")
