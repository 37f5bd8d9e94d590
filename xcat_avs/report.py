"""What a mode answers, as text in xCAT's style and as JSON. It alone imports `tabulate`."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Union

from xcat_avs.escape import masked, printable, printable_lines

RIGHT, LEFT = "right", "left"
# A padded header is the only way to give a column a least width; tabulate strips spaces.
FILLER = "\x01"
WIDTH = 100  # of a table that is folded everywhere
LEAST = 12  # of a column that is made to fit: a time with its zone
SILENT = ("", "-")  # cells that say nothing
GAP = ".."  # in a name that is shortened


@dataclass(frozen=True)
class Table:
    """Rows under headers. width: the least width of every column after the first.

    rule: has the form of the report of a create, whatever the terminal. folded: what is long is folded in a pipe as well.
    sparse: columns that say nothing in any row are left out.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: Sequence[str]
    rule: bool = False
    width: int = 0
    first_width: int = 0
    bare: bool = False  # no headers
    folded: bool = False
    sparse: bool = False


@dataclass(frozen=True)
class Raw:
    """A text that goes to a file or a pipe as it is; only on a terminal it is made fit for that."""

    text: str


@dataclass(frozen=True)
class Place:
    """Where an answer goes. columns: the width of a terminal, 0 for a file or a pipe. wide: tables in full."""

    terminal: bool = False
    columns: int = 0
    wide: bool = False


ANYWHERE = Place()


@dataclass(frozen=True)
class Report:
    """A mode's answer: blocks of text and tables for people, one document for programs.

    A block that is a str keeps its new lines: a value that others wrote is put into one by `as_lines`.
    data: in place of the blocks, what goes to a file or a pipe byte by byte.
    """

    blocks: Sequence[object] = ()
    document: dict[str, Any] = field(default_factory=dict)
    code: int = 0  # the exit code
    data: Optional[bytes] = None


def render(table: Table, place: Place = ANYWHERE) -> str:
    """A table as text, without trailing spaces."""
    import tabulate

    if not (table.rule or place.wide):
        fitting = _fitting(table, place)
        if fitting is None:
            return _records(table)
        table = fitting
    line = tabulate.DataRow("", "  ", "")
    form = tabulate.TableFormat(None, None, None, None, line, line, 0, None)
    headers = []
    for number, header in enumerate(table.headers):
        width = table.first_width if number == 0 else table.width
        headers.append(header.rjust(width, FILLER) if table.align[number] == RIGHT else header.ljust(width, FILLER))
    rows = [[printable(cell.replace("\n", " ")) for cell in row] for row in table.rows]
    # No numparse: "1.10" is a version and stays one.
    if not table.bare:
        rows.insert(0, headers)
    text = tabulate.tabulate(rows, tablefmt=form, disable_numparse=True, colalign=list(table.align))
    found = text.replace(FILLER, " ").split("\n")
    width = max(len(item) for item in found)
    found = [item.rstrip() for item in found]
    return "\n".join(["-" * width, *found] if table.rule else found)


def _fitting(table: Table, place: Place) -> Optional[Table]:
    """The table without the columns that say nothing in any row, and no wider than the place; None where it cannot be.

    What is too long is folded at its spaces. Names, which have none, are shortened in their middle where the terminal
    is what they are too long for, and where no two become the same.
    """
    if table.sparse:
        table = _telling(table)
    columns = place.columns or (WIDTH if table.folded else 0)
    if not (columns and table.rows):
        return table
    rows = [[printable(cell.replace("\n", " ")) for cell in row] for row in table.rows]
    cells = list(zip(*rows))
    limits = _limits(table.headers, cells, columns - 2 * (len(cells) - 1))
    if place.columns and sum(limits) + 2 * (len(cells) - 1) > columns:
        return None
    narrowed = [_narrowed(column, limit, bool(place.columns)) for column, limit in zip(cells, limits)]
    found = [line for row in zip(*narrowed) for line in itertools.zip_longest(*row, fillvalue="")]
    return replace(table, rows=found)


def _telling(table: Table) -> Table:
    """The table without the columns that say nothing in any row; the first one names the row and stays."""
    rows = table.rows
    kept = [
        number for number in range(len(table.headers)) if not number or any(row[number] not in SILENT for row in rows)
    ]
    if not rows or len(kept) == len(table.headers):
        return table
    headers, align = ([items[number] for number in kept] for items in (table.headers, table.align))
    return replace(table, headers=headers, align=align, rows=[[row[number] for number in kept] for row in rows])


def _limits(headers: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """How wide each column may be, so that all are as wide together, or as near to it as LEAST allows.

    Texts give way first, for they can be folded, and only then names.
    """
    limits = [max(map(len, (header, *column))) for header, column in zip(headers, columns)]
    texts = [any(" " in cell for cell in column) for column in columns]
    for of_texts in (True, False):
        while sum(limits) > width:
            able = [
                number for number, limit in enumerate(limits)
                if texts[number] == of_texts and limit > max(LEAST, len(headers[number]))
            ]  # fmt: skip
            if not able:
                break
            limits[max(able, key=lambda number: limits[number])] -= 1
    return limits


def _narrowed(column: Sequence[str], limit: int, shorten: bool) -> list[list[str]]:
    """The cells of a column as the lines of each. shorten: whether names may be."""
    tail = (limit - len(GAP)) * 2 // 3  # what tells names apart is more often there
    short = [cell if len(cell) <= limit else f"{cell[: limit - len(GAP) - tail]}{GAP}{cell[-tail:]}" for cell in column]
    if shorten and not any(" " in cell for cell in column) and len(set(short)) == len(set(column)):
        return [[cell] for cell in short]
    return [textwrap.wrap(cell, limit, break_on_hyphens=False) or [""] for cell in column]


def _records(table: Table) -> str:
    """Each row as lines `HEADER: value`, without what says nothing."""
    longest = max(map(len, table.headers)) + 1
    blocks = []
    for row in table.rows:
        said = [(header, cell) for header, cell in zip(table.headers, row) if cell not in SILENT]
        blocks.append(as_lines(f"{f'{header}:':<{longest}} {cell}".rstrip() for header, cell in said))
    return "\n\n".join(blocks)


def as_lines(items: Iterable[str]) -> str:
    """A block of these lines; none of them can make another."""
    return "\n".join(map(printable, items))


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """A block of many rows, aligned but for the last column: tabulate takes seconds for some ten thousand of them."""
    widths = [max(map(len, column)) for column in zip(headers, *rows)][:-1]
    cells = [f"{{:{'>' if side == RIGHT else '<'}{width}}}" for width, side in zip(widths, align)]
    line = "  ".join([*cells, "{}"]).format
    return as_lines([line(*row) for row in (headers, *rows)])


def to_output(report: Report, place: Place = ANYWHERE) -> Union[str, bytes]:
    """The report for people, or its data."""
    if report.data is None:
        return to_text(report, place)
    return printable_lines(report.data.decode("utf-8", "surrogateescape")) if place.terminal else report.data


def to_text(report: Report, place: Place = ANYWHERE) -> str:
    """The report for people; blocks are parted by an empty line."""
    return "\n\n".join(_text(block, place) for block in report.blocks) + "\n"


def _text(block: object, place: Place) -> str:
    if isinstance(block, Table):
        return render(block, place)
    if isinstance(block, Raw):
        return printable_lines(block.text) if place.terminal else masked(block.text)
    return printable_lines(str(block))


def to_json(report: Report) -> str:
    """The report for programs: one document."""
    return json.dumps(_masked(report.document), indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _masked(value: Any) -> Any:
    """A document without the passwords of URLs."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {_masked(key): _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, (list, tuple)) else value


def mebibytes(size: int) -> str:
    """Bytes as whole `M` (MiB), rounded once."""
    return f"{round(size / 2**20)}M"


def short_size(size: int) -> str:
    """Bytes as whole `M` (MiB), or as whole `K` (KiB) where that is less than one MiB."""
    return mebibytes(size) if abs(size) >= 2**20 else f"{round(size / 2**10)}K"
