"""Reports: the table that its users know, tables in general, JSON, dates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from xcat_avs import clock, report
from xcat_avs.build import tables
from xcat_avs.build.markers import StepResult
from xcat_avs.report import LEFT, RIGHT, Report, Table

MIB = 2**20
# From the report of the design; TOTAL's seconds are the sum of the steps'.
GOLDEN = """\
Image rebuild completed at Tue Aug 19 10:26:14 PDT 2014

Initial build

-------------------------------------------------------------------------
         PROCEDURE NAME      TIME  +/- RPMS  +/- SIZE      RPMS      SIZE
prepare_image_directory        0s         0        0M         0        0M
         generate_image      591s        94      426M        94      426M
                cleanup      299s         0     -143M        94      283M
                  TOTAL      890s        94      283M        94      283M

Image example.prod created
"""


def step(name: str, seconds: float, before: tuple[int, int], after: tuple[int, int]) -> StepResult:
    return StepResult(name, "id", seconds, before[0], after[0], before[1], after[1], "2014-08-19T17:00:00Z", "/p", "/l")


STEPS = [
    step("prepare_image_directory", 0.2, (0, 0), (0, 0)),
    step("generate_image", 590.7, (0, 0), (94, 426 * MIB)),
    step("cleanup", 299.4, (94, 426 * MIB), (94, 283 * MIB)),
]


@pytest.fixture
def pacific(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "PST8PDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("pacific")
def test_the_report_of_a_create() -> None:
    blocks = [
        f"Image rebuild completed at {clock.ctime('2014-08-19T17:26:14Z')}",
        "Initial build",
        tables.step_table(STEPS, "rpm"),
        "Image example.prod created",
    ]
    assert report.to_text(Report(blocks)) == GOLDEN


def test_header_and_rule() -> None:
    lines = report.render(tables.step_table(STEPS, "rpm")).split("\n")
    assert lines[0] == "-" * 73
    assert lines[1] == "         PROCEDURE NAME      TIME  +/- RPMS  +/- SIZE      RPMS      SIZE"
    assert {len(line) for line in lines} == {73}


def test_packages_of_debs() -> None:
    header = report.render(tables.step_table(STEPS, "deb")).split("\n")[1]
    assert header == "         PROCEDURE NAME      TIME  +/- PKGS  +/- SIZE      PKGS      SIZE"


def test_a_long_name_widens_the_table() -> None:
    name = "a_procedure_with_a_name_that_is_rather_long"
    lines = report.render(tables.step_table([step(name, 1, (0, 0), (1, MIB))], "rpm")).split("\n")
    assert lines[0] == "-" * (73 + len(name) - 23)
    assert {len(line) for line in lines} == {len(lines[0])}
    assert lines[2].startswith(name + "        1s")


def test_each_step_has_its_own_seconds_and_the_total_is_their_sum() -> None:
    steps = [step(f"s{number}", 0.4, (0, 0), (0, 0)) for number in range(10)]
    lines = report.render(tables.step_table(steps, "rpm")).split("\n")
    assert [line.split()[1] for line in lines[2:]] == ["0s"] * 10 + ["4s"]


def test_sizes_are_rounded_once() -> None:
    steps = [
        step("a", 0, (0, 0), (1, int(0.4 * MIB))),
        step("b", 0, (1, int(0.4 * MIB)), (2, int(0.8 * MIB))),
        step("c", 0, (2, int(0.8 * MIB)), (1, int(0.7 * MIB))),
    ]
    rows = [line.split()[2:] for line in report.render(tables.step_table(steps, "rpm")).split("\n")[2:]]
    assert rows == [
        ["1", "0M", "1", "0M"],
        ["1", "0M", "2", "1M"],
        ["-1", "0M", "1", "1M"],
        ["1", "1M", "1", "1M"],
    ]


def test_a_resumed_build_counts_from_its_first_step() -> None:
    steps = [step("a", 1, (5, 10 * MIB), (6, 12 * MIB)), step("b", 1, (6, 12 * MIB), (9, 20 * MIB))]
    assert report.render(tables.step_table(steps, "rpm")).split("\n")[-1].split() == [
        "TOTAL",
        "2s",
        "4",
        "10M",
        "9",
        "20M",
    ]


def test_no_steps() -> None:
    assert report.render(tables.step_table([], "rpm")).split("\n")[1].split()[0] == "PROCEDURE"


@pytest.mark.parametrize(
    "value", ["1.10", "1e5", "007", "-0", "1,000", "nan", "0x10", "1_000", "1.0.0", "None", "True"]
)
def test_what_looks_like_a_number_stays_as_it_is(value: str) -> None:
    table = Table(("TAG", "REVISION"), [(value, value), ("v1.9", "12345")], [LEFT, RIGHT])
    rows = [line.split() for line in report.render(table).split("\n")]
    assert rows == [["TAG", "REVISION"], [value, value], ["v1.9", "12345"]]


def test_left_and_right_and_no_trailing_blanks() -> None:
    table = Table(("TAG", "N", "MESSAGE"), [("a", "1", ""), ("long-one", "10", "why not")], [LEFT, RIGHT, LEFT])
    assert report.render(table) == "TAG        N  MESSAGE\na          1\nlong-one  10  why not"


def test_a_cell_of_several_lines_stays_one_row() -> None:
    table = Table(("A", "B"), [("x", "one\ntwo")], [LEFT, LEFT])
    assert report.render(table) == "A  B\nx  one two"


def test_no_rows_and_no_headers() -> None:
    assert report.render(Table(("A", "B"), [], [LEFT, LEFT])) == "A  B"
    assert (
        report.render(Table(("", ""), [("Osimage:", "x"), ("Tag:", "y")], [LEFT, LEFT], bare=True))
        == "Osimage:  x\nTag:      y"
    )


def test_empty_cells() -> None:
    assert (
        report.render(Table(("A", "B", "C"), [("", "", ""), ("", "x", "")], [LEFT] * 3)).split("\n")[2].strip() == "x"
    )


def test_json_is_one_document_of_ascii() -> None:
    document = {"b": "ü\udcff", "a": [1, None, {"x": "1.10"}]}
    text = report.to_json(Report(["text"], document))
    assert text.isascii()
    assert text.endswith("}\n")
    assert json.loads(text) == document
    assert text.index('"a"') < text.index('"b"')


def test_blocks_are_parted_by_an_empty_line() -> None:
    table = Table(("A",), [("x",)], [LEFT])
    assert report.to_text(Report(["one", table, "two\nthree"])) == "one\n\nA\nx\n\ntwo\nthree\n"


@pytest.mark.usefixtures("pacific")
def test_dates() -> None:
    assert clock.local("2014-08-19T17:26:14.123456Z") == "2014-08-19 10:26:14 PDT"
    assert clock.local("2014-12-19T17:26:14Z") == "2014-12-19 09:26:14 PST"
    assert clock.local("") == ""
    assert clock.ctime("2014-08-09T17:26:14Z") == "Sat Aug  9 10:26:14 PDT 2014"
    now = clock.utc_now()
    assert clock.parse_utc(now).strftime("%Y-%m-%dT%H:%M:%SZ") == now
    assert abs(clock.parse_utc(now).timestamp() - time.time()) < 5


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0M"),
        (MIB, "1M"),
        (MIB // 2 - 1, "0M"),
        (MIB // 2 + 1, "1M"),
        (-MIB, "-1M"),
        (-1, "0M"),
        (3 * 2**30, "3072M"),
    ],
)
def test_mebibytes(size: int, text: str) -> None:
    assert report.mebibytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0K"), (1024, "1K"), (1535, "1K"), (-40 * 1024, "-40K"), (MIB - 1024, "1023K"), (MIB, "1M"), (-MIB, "-1M")],
)
def test_short_size(size: int, text: str) -> None:
    assert report.short_size(size) == text
