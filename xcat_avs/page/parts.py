"""Parts of HTML. Whatever others have named or written comes in by these, and steers nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from xcat_avs.escape import masked, printable, printable_lines
from xcat_avs.report import short_size


class Number(NamedTuple):
    """A cell that is aligned to the right."""

    text: str


Cell = object  # a Number, or what is shown as its text


def text(value: object) -> str:
    """A text as one line of HTML."""
    return html.escape(printable(str(value)))


def lines(value: str) -> str:
    """A text of several lines."""
    return f"<pre>{html.escape(printable_lines(masked(value)))}</pre>"


def size(value: object) -> Number:
    return Number(short_size(value) if isinstance(value, int) else "-")


def change(old: int, new: int) -> Number:
    """How much more it is by now."""
    return Number(("+" if new > old else "") + short_size(new - old) if new != old else "0")


def count(value: object) -> Number:
    return Number(f"{value:,}" if isinstance(value, int) else "-")


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; on a narrow screen it is moved sideways by itself."""
    body = ["".join(map(_cell, row)) for row in rows]
    numbers = [isinstance(cell, Number) for cell in next(iter(rows), ())] if isinstance(rows, list) else []
    heads = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{text(header)}</th>'
        for header, number in zip(headers, [*numbers, *([False] * len(headers))])
    )
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>' + "".join(
        f"<tr>{row}</tr>" for row in body
    ) + "</tbody></table></div>"  # fmt: skip


def _cell(cell: Cell) -> str:
    return f"<td class=n>{text(cell.text)}</td>" if isinstance(cell, Number) else f"<td>{text(cell)}</td>"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows) + "</dl>"


def folded(summary: str, content: str, is_open: bool = False) -> str:
    """What is long, under a line that opens it."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>{content}</details>"


def section(title: str, *content: str) -> str:
    return f"<section><h2>{text(title)}</h2>{''.join(content)}</section>"


def note(words: str) -> str:
    return f'<p class="note">{text(words)}</p>'
