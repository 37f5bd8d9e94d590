"""Noderanges."""

from __future__ import annotations

import re
from collections.abc import Sequence


def collapse(nodes: Sequence[str]) -> str:
    """Node names as the noderange xCAT writes: `cn001-cn004,login1`."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    plain: list[str] = []
    for node in sorted(set(nodes)):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", node)
        if match:
            groups.setdefault((match.group(1), match.group(3), len(match.group(2))), []).append(int(match.group(2)))
        else:
            plain.append(node)
    parts: list[str] = []
    for (prefix, suffix, width), numbers in sorted(groups.items()):
        first = last = -2
        for number in [*sorted(numbers), -1]:
            if number == last + 1 and number > 0:
                last = number
                continue
            if last >= 0:
                names = [f"{prefix}{edge:0{width}d}{suffix}" for edge in (first, last)]
                parts.append(names[0] if first == last else ",".join(names) if last == first + 1 else "-".join(names))
            first = last = number
    return ",".join([*parts, *plain])
