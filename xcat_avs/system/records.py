"""Read back the JSON records that avsimage has written; what is no such record is None."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from xcat_avs.system.files import write_atomic

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


def texts(path: Path) -> dict[str, str]:
    """A file of notes: name -> text. Empty where there is none, or where it cannot be read."""
    try:
        found = document(path.read_bytes()) or {}
    except OSError:
        return {}
    return {str(name): str(text) for name, text in found.items()}


def note(path: Path, name: str, text: str) -> None:
    """Put a note into such a file. One that cannot be written is no error: only checks read it."""
    with suppress(OSError):
        write_atomic(path, json.dumps({**texts(path), name: text}, indent=1, sort_keys=True) + "\n")
