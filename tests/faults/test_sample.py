"""A few points of the fault run, so that it stays able to find something; all of them are `./runtests faults`."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.conftest import _can_build  # noqa: F401

from faults.__main__ import Run
from faults.kinds import Full, Kill, Kind

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "points"), [(Kill("pack"), 2), (Full("store", "ostree"), 1)], ids=str)
def test_sample(kind: Kind, points: int, tmp_path: Path) -> None:
    tally = Run(tmp_path, seed=11, seconds=60).do(kind, range(points))
    assert tally.found == []
    assert list(tmp_path.iterdir()) == [], "left behind by the fault run itself"
