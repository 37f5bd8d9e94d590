"""What verify says: enough to see what is wrong, and not all of it on a terminal."""

from __future__ import annotations

from xcat_avs.modes import verify
from xcat_avs.modes.verify import MOST
from xcat_avs.system.findings import FAIL, Finding


def test_differences_are_cut_on_a_terminal() -> None:
    details = tuple(f"usr/lib/file{number}: changed" for number in range(150))
    lines = Finding(FAIL, "tag v1", details).lines(MOST)
    assert len(lines) == 1 + MOST
    assert lines[MOST].split() == ["and", "111", "more;", "--json", "has", "them", "all"]
    assert Finding(FAIL, "tag v1", details[:MOST]).lines(MOST)[-1].endswith("file39: changed")


def test_what_was_shown_of_one_finding_leaves_less_for_the_next() -> None:
    findings = [Finding(FAIL, "one", ("a",) * 30), Finding(FAIL, "two", ("b",) * 30), Finding(FAIL, "three", ("c",))]
    lines = verify.to_lines(findings)
    assert sum(line.strip() in ("a", "b", "c") for line in lines) < MOST
    assert [line for line in lines if "more" in line] == [
        "       and 21 more; --json has them all",
        "       and 1 more; --json has them all",
    ]
