"""Tables that fit: what says nothing is left out, a terminal's width is kept to, and in a pipe nothing is cut."""

from __future__ import annotations

import pytest

from xcat_avs import report
from xcat_avs.report import LEFT, Place, Report, Table

PROD = "debian12-x86_64-netboot-example.prod"
HEADERS = ("OSIMAGE", "TAG", "PACKED", "BY", "PREVIOUS", "NODERANGE", "NEWEST TAG")
ROW = (PROD, "2026-11-26-04-05-06-debian12-by-alice", "2026-11-26 04:05:06 UTC", "alice", "example.prod.v1", "-", "")
OTHER = (PROD.replace("prod", "test"), "2026-11-26-05-05-06-debian12-by-alice", *ROW[2:])
TABLE = Table(HEADERS, [ROW, OTHER], [LEFT] * len(HEADERS), sparse=True)
MESSAGE = "OpenSSH 9.2p1 because of the advisory, and the new kernel with it"
TAGS = Table(("TAG", "DATE", "MESSAGE"), [("v1", ROW[2], MESSAGE), ("v2", ROW[2], "")], [LEFT] * 3)


def words(text: str) -> list[str]:
    return text.split()


def test_in_a_pipe_nothing_is_cut_and_columns_that_say_nothing_are_left_out() -> None:
    lines = report.render(TABLE).split("\n")
    assert words(lines[0]) == ["OSIMAGE", "TAG", "PACKED", "BY", "PREVIOUS"]
    assert words(lines[1]) == [*ROW[:2], *ROW[2].split(), *ROW[3:5]]
    assert words(report.render(TABLE, Place(wide=True)).split("\n")[0])[-3:] == ["NODERANGE", "NEWEST", "TAG"]


def test_the_first_column_stays_and_so_does_a_table_without_rows() -> None:
    assert report.render(Table(("A", "B"), [("-", "x")], [LEFT] * 2, sparse=True)).split("\n")[0].split() == ["A", "B"]
    assert report.render(Table(("OLD", "NEW"), [("-", "x")], [LEFT] * 2)).split("\n")[0].split() == ["OLD", "NEW"]
    assert report.render(Table(("A", "B"), [], [LEFT] * 2, sparse=True)).split() == ["A", "B"]


@pytest.mark.parametrize("columns", [120, 100, 80, 60, 40, 20])
@pytest.mark.parametrize("table", [TABLE, TAGS], ids=["status", "tags"])
def test_a_table_fits_into_the_terminal(table: Table, columns: int) -> None:
    text = report.to_text(Report([table]), Place(True, columns))
    if ":" not in text.split()[0]:  # rows as lines, which a terminal breaks
        assert max(map(len, text.split("\n"))) <= columns
    for row in table.rows:
        assert row[0][-6:] in text, "what tells the names apart stays"
    assert report.to_text(Report([table]), Place(True, columns, wide=True)) == report.to_text(
        Report([table]), Place(wide=True)
    )


def test_texts_are_folded_before_names_are_shortened() -> None:
    lines = report.render(TAGS, Place(True, 60)).split("\n")
    assert max(map(len, lines)) <= 60
    column = lines[0].index("MESSAGE")
    assert " ".join(line[column:] for line in lines[1:]).split() == MESSAGE.split()


def test_a_name_is_shortened_in_its_middle() -> None:
    lines = report.render(Table(("OSIMAGE", "N"), [(PROD, "1"), (OTHER[0], "2")], [LEFT] * 2), Place(True, 30)).split(
        "\n"
    )
    assert [line.split()[0][:7] for line in lines[1:]] == ["debian1", "debian1"]
    assert [line.split()[0][-5:] for line in lines[1:]] == [".prod", ".test"]
    assert max(map(len, lines)) <= 30


def test_names_that_would_become_the_same_are_folded() -> None:
    names = ["2026-11-26-04-05-06-debian12-by-alice", "2026-11-26-05-05-06-debian12-by-alice"]
    text = report.render(Table(("TAG", "N"), [(name, "1") for name in names], [LEFT] * 2), Place(True, 20))
    assert "".join(line[:17].strip() for line in text.split("\n")[1:]) == "".join(names)


def test_where_a_table_cannot_fit_each_row_is_lines() -> None:
    text = report.to_text(Report([TABLE]), Place(True, 40))
    assert text.split("\n")[:3] == [f"OSIMAGE:    {PROD}", f"TAG:        {ROW[1]}", f"PACKED:     {ROW[2]}"]
    assert "NODERANGE" not in text
    assert text.count("\n\n") == 1


def test_the_table_of_the_steps_keeps_its_form() -> None:
    table = Table(("A", "B"), [("x" * 30, "-")], [LEFT] * 2, rule=True, width=20)
    assert report.render(table, Place(True, 20)) == report.render(table)


def test_a_folded_table_is_folded_in_a_pipe_and_loses_nothing() -> None:
    table = Table(("STEP", "OPTION", "VALUE", "MEANING"), [("a", "b", "x" * 100, "y " * 60)], [LEFT] * 4, folded=True)
    text = report.render(table)
    assert max(map(len, text.split("\n"))) <= 100
    assert (text.count("x"), text.count("y")) == (100, 60)
    assert max(map(len, report.render(table, Place(True, 60)).split("\n"))) <= 60
    assert len(report.render(table, Place(wide=True)).split("\n")) == 2
