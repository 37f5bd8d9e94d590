"""Parse what Subversion's clients answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from xcat_avs.errors import AvsError
from xcat_avs.store.protocol import Summary

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


def summarized(top: Sequence[Element], tags: Sequence[Element], facts: Mapping[str, Any]) -> Summary:
    """What `svn ls --xml` lists of an image and of its tags, with what the provenance counts. top: empty without a trunk."""
    made = {_revision(entry): entry.findtext("name", "") for entry in tags if entry.get("kind") == "dir"}
    newest = made[max(made)] if made else ""
    trunk = next((entry for entry in top if entry.findtext("name") == "trunk"), None)
    if trunk is None:
        return Summary(tags=len(made), newest=newest)
    counts = {key: value for key, value in facts.items() if key in ("packages", "bytes") and isinstance(value, int)}
    date = trunk.findtext("commit/date", "")
    return Summary(revision=_revision(trunk), date=date, tags=len(made), newest=newest, **counts)


def _revision(entry: Element) -> int:
    commit = entry.find("commit")
    return int(commit.get("revision", "0")) if commit is not None else 0


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
