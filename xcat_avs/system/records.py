"""Read back the JSON records that avsimage has written; what is no such record is None."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Optional, TypeVar, Union

KINDS: dict[str, Union[type, tuple[type, ...]]] = {"str": str, "int": int, "float": (int, float), "dict": dict}
T = TypeVar("T")


def document(text: Union[str, bytes]) -> Optional[dict[str, Any]]:
    """Parse a text as a JSON object; None for any other text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def load(kind: type[T], text: Union[str, bytes]) -> Optional[T]:
    """Parse a text, written by asdict and JSON, as a dataclass of plain fields; None for any other text."""
    values = document(text)
    if values is None:
        return None
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name, _, inner = str(field.type).partition("[")
        value = values.get(field.name)
        if field.name in values and (isinstance(value, bool) or not isinstance(value, KINDS[name])):
            return None
        if inner.startswith("str, dict") and value and not all(isinstance(item, dict) for item in value.values()):
            return None
    try:
        return kind(**values)
    except TypeError:  # a field is missing, or unknown
        return None
