"""Read GVariant, the form of OSTree's commits and directories, as far as those need it.

Whoever asks `ostree` for each tag or directory starts a process for each. The form is fixed, for the checksum of an
object is the name that all others have for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FIXED = {"y": 1, "u": 4, "t": 8}  # bytes; OSTree stores numbers with the highest byte first
ALIGNED = {"u": 4, "t": 8, "v": 8}


def load(signature: str, data: bytes) -> Any:
    """The value: tuples, lists, dictionary entries as tuples, text, numbers, `ay` as bytes. Raises ValueError."""
    kind = signature[0]
    if kind in FIXED:
        if len(data) != FIXED[kind]:
            raise ValueError("a number of another size")
        return int.from_bytes(data, "big")
    if kind == "s":
        if data[-1:] != b"\0":
            raise ValueError("a text without its end")
        return data[:-1].decode("utf-8")
    if kind == "v":
        value, _, inner = data.rpartition(b"\0")
        return load(inner.decode("ascii"), value)
    if kind == "a":
        return _array(signature[1:], data)
    if kind in "({":
        return _tuple(list(_members(signature[1:-1])), data)
    raise ValueError(f"the type {signature} is not known here")


def _array(signature: str, data: bytes) -> Any:
    if signature == "y":
        return data
    if signature in FIXED:
        size = FIXED[signature]
        return [load(signature, data[at : at + size]) for at in range(0, len(data), size)]
    if not data:
        return []
    width = _width(data)
    ends = _number(data, len(data) - width, width)
    found, position = [], 0
    for at in range(ends, len(data), width):
        start = _align(position, signature)
        position = _number(data, at, width)
        if not start <= position <= ends:
            raise ValueError("an array whose parts lie elsewhere")
        found.append(load(signature, data[start:position]))
    return found


def _tuple(members: list[str], data: bytes) -> tuple[Any, ...]:
    width = _width(data)
    framed = sum(member[0] not in FIXED for member in members[:-1])  # the last one ends where the offsets begin
    if members[-1][0] in FIXED:
        framed = sum(member[0] not in FIXED for member in members)
    last = len(data) - framed * width
    frame, position, found = len(data), 0, []
    for number, member in enumerate(members):
        start = _align(position, member)
        if member in FIXED:
            position = start + FIXED[member]
        elif number == len(members) - 1:
            position = last
        else:
            frame -= width
            position = _number(data, frame, width)
        if not 0 <= start <= position <= last:
            raise ValueError("a record whose parts lie elsewhere")
        found.append(load(member, data[start:position]))
    return tuple(found)


def _members(signature: str) -> Iterator[str]:
    """The types of a tuple, one by one."""
    start = depth = 0
    for at, char in enumerate(signature):
        depth += (char in "({") - (char in ")}")
        if char != "a" and not depth:
            yield signature[start : at + 1]
            start = at + 1


def _align(position: int, signature: str) -> int:
    step = max(ALIGNED.get(char, 1) for char in signature)
    return -(-position // step) * step


def _width(data: bytes) -> int:
    """How many bytes an offset has in a container of this size."""
    return next(width for width in (1, 2, 4, 8) if len(data) < 1 << 8 * width)


def _number(data: bytes, at: int, width: int) -> int:
    if at < 0:
        raise ValueError("a record without its offsets")
    return int.from_bytes(data[at : at + width], "little")
