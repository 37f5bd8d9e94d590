"""What a mode answers, as text in xCAT's style and as JSON. It alone imports `tabulate`."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from xcat_avs.escape import masked, printable, printable_lines

RIGHT, LEFT = "right", "left"
# A padded header is the only way to give a column a least width; tabulate strips spaces.
FILLER = "\x01"
WIDTH, LEAST = 100, 16  # of a table that is folded, and of a column of it


@dataclass(frozen=True)
class Table:
    """Rows under headers. width: the least width of every column after the first."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: Sequence[str]
    rule: bool = False
    width: int = 0
    first_width: int = 0
    bare: bool = False  # no headers


@dataclass(frozen=True)
class Raw:
    """A text that goes to a file or a pipe as it is; only on a terminal it is made fit for that."""

    text: str


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


def render(table: Table) -> str:
    """A table as text, without trailing spaces."""
    import tabulate

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


def folded(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[tuple[str, ...]]:
    """The rows with the cells of the last two columns folded into more rows, so that a table has at most that width.

    It is wider where the other columns leave too little. The last column takes what the one before it leaves.
    """
    longest = [max(map(len, column)) for column in zip(headers, *rows)]
    left = width - 2 * (len(headers) - 1) - sum(longest[:-2])
    # The last but one has two fifths, or what the last one does not need.
    value = min(longest[-2], max(LEAST, left * 2 // 5, left - longest[-1]))
    limits = [*longest[:-2], value, min(longest[-1], max(LEAST, left - value))]
    found = []
    for row in rows:
        cells = [textwrap.wrap(cell, limit, break_on_hyphens=False) for cell, limit in zip(row, limits)]
        found += list(itertools.zip_longest(*cells, fillvalue="")) or [tuple(row)]
    return found


def as_lines(items: Iterable[str]) -> str:
    """A block of these lines; none of them can make another."""
    return "\n".join(map(printable, items))


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """A block of many rows, aligned but for the last column: tabulate takes seconds for some ten thousand of them."""
    widths = [max(map(len, column)) for column in zip(headers, *rows)][:-1]
    cells = [f"{{:{'>' if side == RIGHT else '<'}{width}}}" for width, side in zip(widths, align)]
    line = "  ".join([*cells, "{}"]).format
    return as_lines([line(*row) for row in (headers, *rows)])


def to_output(report: Report, terminal: bool) -> Union[str, bytes]:
    """The report for people, or its data. terminal: that is where it goes."""
    if report.data is None:
        return to_text(report, terminal)
    return printable_lines(report.data.decode("utf-8", "surrogateescape")) if terminal else report.data


def to_text(report: Report, terminal: bool = False) -> str:
    """The report for people; blocks are parted by an empty line. terminal: that is where it goes."""
    return "\n\n".join(_text(block, terminal) for block in report.blocks) + "\n"


def _text(block: object, terminal: bool) -> str:
    if isinstance(block, Table):
        return render(block)
    if isinstance(block, Raw):
        return printable_lines(block.text) if terminal else masked(block.text)
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
