"""Parse what Subversion's clients answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from xcat_avs.errors import AvsError

WORDS = {"added": "added", "deleted": "removed", "modified": "changed"}


def summary(root: ElementTree.Element, url: str) -> list[tuple[str, str]]:
    """The paths of `svn diff --summarize --xml` below the old URL, each with what Store.changes calls its change."""
    top = unquote(url).rstrip("/") + "/"
    found: dict[str, str] = {}
    for element in root.iter("path"):
        path = unquote(element.text or "")
        if path.startswith(top):
            word = WORDS.get(element.get("item", ""), "properties")
            path = path[len(top) :]
            # svn lists a path whose kind changed twice: as removed and as added.
            found[path] = "changed" if path in found else word
    return sorted(found.items())


def documents(data: bytes, origin: str) -> list[dict[str, Any]]:
    """JSON objects that stand one after the other. Raises AvsError for anything else."""
    text = data.decode("utf-8", "replace").rstrip()
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    position = 0
    while position < len(text):
        try:
            document, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as err:
            raise AvsError(f"{origin}: document {len(found) + 1} is no JSON: {err}") from None
        if not isinstance(document, dict):
            raise AvsError(f"{origin}: document {len(found) + 1} is no JSON object")
        found.append(document)
        while position < len(text) and text[position].isspace():
            position += 1
    return found
