"""Signs on this machine that a store existed before, for the case that it is not there now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Optional

from xcat_avs.errors import NoStoreError
from xcat_avs.system import records

SHOWN = 2  # signs that an error names
NOTE = "stores.json"  # in the state directory: URL of a store -> UUID of the repository that was used there


def noted(state: Path) -> dict[str, str]:
    """URL -> UUID of the stores that were used from this machine; empty where the note cannot be read."""
    return records.texts(state / NOTE)


def note(state: Path, url: str, uuid: str) -> None:
    """Note which repository is used at a URL. A note that cannot be written is no error: only a check reads it."""
    records.note(state / NOTE, url, uuid)


def recognize(state: Path, url: str, now: str) -> str:
    """What to say of a store that is not the one that was used at this URL before; that one is noted at its first use.

    now: the UUID of the store that is there.
    """
    before = noted(state).get(url, "")
    if now and not before and state.is_dir():
        note(state, url, now)
    if not (now and before) or now == before:
        return ""
    return (
        f"the store at {url} is another one than was used here before: its UUID is {now}, and was {before}. Is the right disk mounted? "
        "Where it was restored or replaced on purpose, create with --new-store takes it from now on"
    )


def of_a_store(state: Path, *others: Iterable[str]) -> str:
    """What says that there was a store, in words; "" where nothing does. others: what else says so, each a kind of its own."""
    return " and ".join(islice(_found(state, others), SHOWN))


def _found(state: Path, others: Iterable[Iterable[str]]) -> Iterator[str]:
    """One of each kind."""
    yield from islice((f"{state / NOTE} names {url}" for url in noted(state)), 1)
    for sentences in others:
        yield from islice(sentences, 1)
    yield from islice((f"{path} is a checkout" for path in state.glob("checkouts/*/tree")), 1)


def missing(url: str, path: Optional[Path], signs: str) -> NoStoreError:
    """The error of a store that is not there. path: its directory, where it is on this machine. signs: of an earlier one."""
    place = f" ({path.parent} does not exist either)" if path is not None and not path.parent.exists() else ""
    if not signs:
        return NoStoreError(f"there is no store yet at {url}{place}; the first `avsimage -c create` makes it")
    return NoStoreError(
        f"there is no store at {url}{place}, and there was one: {signs}. Is its disk mounted, and is [paths] store, "
        "or -s, right? To begin a new, empty store there all the same, create with --new-store"
    )
